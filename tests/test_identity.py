from __future__ import annotations

import enum
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from djsandbox_ray.identity import canonical, chain, content_id, rows_hash, sample_digest

_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _TEXT
PLAIN = st.recursive(
    _LEAVES.filter(lambda value: not (isinstance(value, float) and math.isinf(value))),
    lambda inner: st.lists(inner) | st.dictionaries(_TEXT, inner),
    max_leaves=12,
)


@given(PLAIN)
def test_canonical_is_json_and_loses_nothing(value: Any) -> None:
    assert json.loads(canonical(value)) == value


@given(st.dictionaries(_TEXT, PLAIN, min_size=2))
def test_canonical_does_not_see_the_order_of_keys(value: dict[str, Any]) -> None:
    turned = dict(reversed(value.items()))
    assert canonical([turned]) == canonical([value])


def test_what_is_not_equal_in_json_has_another_id() -> None:
    values = [None, False, True, 0, 1, 1.0, 0.1, "1", "", "true", [], {}, [1], {"1": 1}, [[1]]]
    assert len({content_id("a", value) for value in values}) == len(values)
    assert content_id("a", 1, 2) != content_id("a", [1, 2])
    assert content_id("a") != content_id("b")
    assert content_id("a", 1) != content_id("a", 1, None)


def test_tuples_enums_and_numpy_floats_are_what_they_hold() -> None:
    class Kind(enum.StrEnum):
        LOW = "low"

    assert content_id("a", (1, 2)) == content_id("a", [1, 2])
    assert content_id("a", Kind.LOW) == content_id("a", "low")
    assert content_id("a", np.float64(0.1)) == content_id("a", 0.1)


@pytest.mark.parametrize("value", [{1, 2}, b"x", object(), np.int64(1), np.zeros(2), 1j])
def test_what_is_not_plain_is_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        canonical({"deep": [value]})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_has_no_json_form_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        content_id("a", {"deep": [value]})


def test_ids_are_those_of_earlier_versions() -> None:
    """Caches are found by these: another value here throws every user's results away."""
    assert canonical({"b": [1, 2.5, None], "a": "é"}) == '{"a":"é","b":[1,2.5,null]}'.encode()
    assert content_id("trial", {"b": [1, 2.5, None], "a": "é"}) == "trial-bd87a5eb4d700374"
    assert rows_hash(np.arange(3)) == "e8852dfc187a7b3928b26561829d4517"
    assert sample_digest(b"image", "text").hex() == "0f5a08c50a1f6a8801b2483496ad85ad"
    assert chain([b"a", b"b"]).hex() == "3dc9ae220222e2e156b2a5abb60d01c7"


@given(st.lists(st.integers(0, 2**63 - 1), unique=True), st.randoms(use_true_random=False))
def test_rows_hash_does_not_see_the_order(rows: list[int], random: Any) -> None:
    turned = list(rows)
    random.shuffle(turned)
    assert rows_hash(np.array(turned, np.int64)) == rows_hash(np.array(rows, np.int64))
    assert rows_hash(np.array([*rows, -1], np.int64)) != rows_hash(np.array(rows, np.int64))


def test_rows_hash_does_not_see_type_or_layout() -> None:
    rows = np.arange(0, 20, 2, dtype=np.int64)
    for same in (rows.astype(np.int32), rows.astype(">i8"), np.arange(20)[::2]):
        assert rows_hash(same) == rows_hash(rows)


def test_rows_hash_leaves_its_argument_alone() -> None:
    rows = np.array([3, 1, 2])
    rows_hash(rows)
    assert rows.tolist() == [3, 1, 2]


@given(st.binary(), _TEXT, st.binary(), _TEXT)
def test_a_digest_stands_for_one_pair(image: bytes, text: str, image2: bytes, text2: str) -> None:
    same = (image, text) == (image2, text2)
    assert (sample_digest(image, text) == sample_digest(image2, text2)) == same


def test_a_digest_knows_where_the_image_ends() -> None:
    assert sample_digest(b"ab", "c") != sample_digest(b"a", "bc") != sample_digest(b"", "abc")


def test_a_chain_has_an_order_and_a_length() -> None:
    a, b = sample_digest(b"a", ""), sample_digest(b"b", "")
    chains = [chain(parts) for parts in ([], [a], [b], [a, b], [b, a], [a, a])]
    assert len(set(chains)) == len(chains)
    assert chain(iter([a, b])) == chain([a, b])

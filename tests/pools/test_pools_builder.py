"""Pools of builders: of the size of all others, of picked rows only, whatever their order."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from djsandbox_ray.errors import BadInput
from djsandbox_ray.pools.build import Construction, construct
from djsandbox_ray.pools.builder import BUILDERS, BuilderConfig, PoolBuilder
from djsandbox_ray.pools.config import PoolConfig
from djsandbox_ray.pools.cuts import EXCLUDED, LEFT_OUT, NO_VALUE
from djsandbox_ray.pools.draws import members
from djsandbox_ray.pools.eligible import UnknownStatistic
from djsandbox_ray.records import Pool, PoolKind


class Picks(PoolBuilder):
    """Rows whose id is picked by a rule; two parts may share rows."""

    def build(self, row_ids: Any, columns: Any) -> Any:
        return {"even": row_ids % 2 == 0, "third": row_ids[row_ids % 3 == 0]}


class Given(PoolBuilder):
    """Whatever a test gives."""

    what: Any = None

    def build(self, row_ids: Any, columns: Any) -> Any:
        if isinstance(self.what, Exception):
            raise self.what
        return self.what(row_ids, columns) if callable(self.what) else self.what


PICKS = {"type": f"{__name__}:Picks", "name": "ids"}
GIVEN = {"type": f"{__name__}:Given", "name": "given"}


def columns_of(seed: int, n: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    gappy = rng.normal(size=n)
    gappy[rng.random(n) < 0.2] = np.nan
    return {"a": rng.poisson(4, n).astype(float), "gappy": gappy}


def config(*extra: dict[str, Any], **options: Any) -> PoolConfig:
    return PoolConfig.model_validate({"extra": list(extra), **options})


def between(low: float | None, high: float | None, name: str = "mine") -> dict[str, Any]:
    return {"type": "range", "name": name, "statistic": "gappy", "low": low, "high": high}


def extra(built: Construction) -> dict[str, Pool]:
    return {p.id: p for p in built.pools if p.kind is PoolKind.BUCKET and p.statistic is None}


def reasons(built: Construction) -> dict[str, str]:
    return {item.statistic: item.reason for item in built.not_testable}


# What comes out


@settings(deadline=None, max_examples=40)
@given(
    st.integers(90, 400),
    st.integers(0, 1_000),
    st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
    st.sampled_from(["auto", 15]),
    st.booleans(),
)
def test_pools_have_one_size_and_hold_picked_rows_only(
    n: int, seed: int, bounds: tuple[float, float], size: Any, exclude: bool
) -> None:
    columns = columns_of(seed, n)
    excluded = np.arange(0, n, 17) if exclude else np.empty(0, dtype=np.int64)
    low, high = sorted(bounds)
    built = construct(np.arange(n), columns, config(PICKS, between(low, high), size=size), excluded)
    kept = ~np.isin(np.arange(n), excluded)
    picked = {
        "ids/even": np.arange(n) % 2 == 0,
        "ids/third": np.arange(n) % 3 == 0,
        "mine/inside": (columns["gappy"] >= low) & (columns["gappy"] <= high),
    }
    assert set(extra(built)) | set(reasons(built)) == set(picked)
    assert not set(extra(built)) & set(reasons(built))
    for name in extra(built):
        codes, inside = built.assignments[name], picked[name] & kept
        assert np.count_nonzero(codes == 0) == built.size <= np.count_nonzero(inside)
        np.testing.assert_array_equal(codes == EXCLUDED, ~kept)
        np.testing.assert_array_equal((codes == 0) | (codes == LEFT_OUT), inside)
        np.testing.assert_array_equal(codes == NO_VALUE, kept & ~picked[name])
        assert len(members(np.arange(n), codes, extra(built)[name])) == built.size
    for name in reasons(built):
        assert np.count_nonzero(picked[name] & kept) < config(size=size).least_rows(kept.sum())
        assert name not in built.assignments
    for pool in built.pools:
        assert np.count_nonzero(built.assignments[pool.column] == pool.code) == built.size


@settings(deadline=None, max_examples=25)
@given(st.integers(90, 300), st.integers(0, 1_000))
def test_the_order_of_rows_does_not_matter(n: int, seed: int) -> None:
    rng, columns = np.random.default_rng(seed), columns_of(seed, n)
    rows, order = rng.permutation(10 * n)[:n], rng.permutation(n)
    asked = config(PICKS, between(-0.8, None))
    one = construct(rows, columns, asked, rows[:5])
    two = construct(rows[order], {k: v[order] for k, v in columns.items()}, asked, rows[:5])
    assert one.pools == two.pools
    assert one.not_testable == two.not_testable
    for name, codes in one.assignments.items():
        np.testing.assert_array_equal(codes[order], two.assignments[name])


def test_they_stand_between_buckets_and_controls_and_count_among_the_pools() -> None:
    columns = columns_of(0, 900)
    alone = construct(np.arange(900), columns, PoolConfig(size=100))
    built = construct(np.arange(900), columns, config(PICKS, between(0, None), size=100))
    assert [pool.id for pool in built.pools[5:10]] == [
        "gappy/high",
        "ids/even",
        "ids/third",
        "mine/inside",
        "control/0",
    ]
    assert [pool for pool in built.pools if pool.statistic] == [
        pool for pool in alone.pools if pool.statistic
    ]
    pool = extra(built)["ids/even"]
    assert (pool.column, pool.code, pool.bucket, pool.low) == ("ids/even", 0, "even", None)
    many = [between(None, i / 10, f"range{i}") for i in range(10)]
    wide = construct(np.arange(900), columns, config(*many))
    assert len(extra(wide)) == 10
    assert (
        sum(p.kind is PoolKind.CONTROL for p in wide.pools) == PoolConfig().control_count(16) == 8
    )


def test_the_smallest_of_all_decides_the_size() -> None:
    values = np.arange(900.0)
    ask = {"type": "range", "name": "mine", "statistic": "a", "low": 700}
    built = construct(np.arange(900), {"a": values}, config(ask))
    assert built.size == 200
    np.testing.assert_array_equal(
        np.flatnonzero(built.assignments["mine/inside"] == 0), values[700:]
    )


def test_another_seed_or_name_gives_other_rows() -> None:
    columns = columns_of(0, 900)
    one, two = between(-1, None), between(-1, None, "again")
    built = construct(np.arange(900), columns, config(one, two))
    other = construct(np.arange(900), columns, config(one, seed=1))
    hashes = [extra(built)["mine/inside"].hash, extra(built)["again/inside"].hash]
    assert len({*hashes, extra(other)["mine/inside"].hash}) == 3


def test_bounds_are_inside_and_rows_without_a_value_are_not() -> None:
    values = np.array([0.0, 1.0, 2.0, 3.0, np.nan, np.inf, -np.inf])
    wanted = {(1, 2): [1, 2], (None, 1): [0, 1, 6], (2, None): [2, 3, 5]}
    for (low, high), rows in wanted.items():
        kind = BUILDERS.get("range")
        found = kind(kind.Config.model_validate(between(low, high))).build(
            np.arange(7), {"gappy": values}
        )
        assert np.flatnonzero(found["inside"]).tolist() == rows


def test_a_statistic_need_not_be_testable() -> None:
    built = construct(np.arange(90), {"a": np.ones(90)}, config(PICKS))
    assert [pool.id for pool in built.pools][:2] == ["ids/even", "ids/third"]
    assert "constant" in reasons(built)["a"]


# What cannot be tested


@pytest.mark.parametrize(
    ("ask", "options", "reason"),
    [
        (between(9, None), {}, r"only 0 of 900 rows; at least 150 are needed \(min_coverage is 50"),
        (between(2, None), {}, r"only \d+ of 900 rows; at least 150"),
        (between(2, None), {"buckets": 9, "min_coverage": 1.0}, "at least 100 .* of 9 buckets"),
        (between(0, None), {"size": 200, "min_coverage": 0.1}, None),
        (between(1, None), {"size": 200}, r"only 1\d\d of 900 rows; at least 200 .*size is 200\)"),
        (between(2, None), {"min_coverage": 0.01}, None),
    ],
)
def test_too_few_rows(ask: dict[str, Any], options: dict[str, Any], reason: str | None) -> None:
    built = construct(np.arange(900), columns_of(0, 900), config(ask, **options))
    if reason is None:
        assert set(extra(built)) == {"mine/inside"}
        return
    assert re.search(reason, reasons(built)["mine/inside"])
    plain = construct(np.arange(900), columns_of(0, 900), config(**options))
    assert built.pools == plain.pools


def test_all_rows_are_a_control_and_not_a_pool() -> None:
    columns = {"gappy": np.arange(90.0)}
    built = construct(np.arange(90), columns, config(between(0, None)))
    assert reasons(built) == {
        "mine/inside": "it holds all 90 rows, so that it is no other than a control"
    }


def test_without_anything_testable_all_reasons_are_given() -> None:
    with pytest.raises(BadInput, match=r"gappy: constant.*; mine/inside: only 0 of 90 rows"):
        construct(np.arange(90), {"gappy": np.ones(90)}, config(between(2, None)))


# What builders do wrong


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (None, "rows by the name of a part are needed, not None"),
        ({}, "rows by the name of a part are needed"),
        (np.ones(60, dtype=bool), "rows by the name of a part are needed"),
        ({"a/b": []}, "a part cannot be named 'a/b'"),
        ({"": []}, "a part cannot be named ''"),
        ({1: []}, "a part cannot be named 1"),
        ({"a&b": []}, "a part cannot be named 'a&b'"),
        (
            {"p": np.ones(59, dtype=bool)},
            r"shape \(60,\) or row ids .* not a mask of shape \(59,\)",
        ),
        ({"p": np.ones((60, 1), dtype=bool)}, "not a mask of shape"),
        ({"p": np.ones((2, 30), dtype=int)}, r"not int64 of shape \(2, 30\)"),
        ({"p": np.ones(60)}, "'given/p': a boolean mask .* not float64"),
        ({"p": np.ones(60, dtype=np.uint8)}, "1 row ids occur more than once, such as 1"),
        ({"p": [1, 61]}, "1 row ids are not among those that may be in a pool, such as 61"),
        ({"p": [1, -1]}, "such as -1"),
        ({"p": [5]}, "such as 5"),  # an excluded row
        ({"p": [[1], [1, 2]]}, "a boolean mask"),
        ({"p": None}, "not object"),
        (ZeroDivisionError("oh"), "'given': ZeroDivisionError: oh"),
        (
            lambda rows, columns: columns["gapy"],
            r"unknown statistic 'gapy'; did you mean 'gappy'\?",
        ),
        (lambda rows, columns: columns["a"].sort(), "read-only"),
        (lambda rows, columns: rows.sort(), "read-only"),
    ],
)
def test_what_a_builder_does_wrong_is_said(
    monkeypatch: pytest.MonkeyPatch, what: Any, message: str
) -> None:
    monkeypatch.setattr(Given, "what", staticmethod(what) if callable(what) else what)
    with pytest.raises(BadInput, match=message):
        construct(np.arange(61), columns_of(0, 61), config(GIVEN), np.array([5]))


@pytest.mark.parametrize("what", [[], np.empty(0), np.zeros(60, dtype=bool)])
def test_no_row_is_not_testable(monkeypatch: pytest.MonkeyPatch, what: Any) -> None:
    monkeypatch.setattr(Given, "what", {"p": what})
    built = construct(np.arange(60), columns_of(0, 60), config(GIVEN))
    assert reasons(built)["given/p"].startswith("only 0 of 60 rows")


def test_columns_are_a_mapping(monkeypatch: pytest.MonkeyPatch) -> None:
    def build(row_ids: Any, columns: Any) -> Any:
        assert (list(columns), len(columns)) == (["a", "gappy"], 2)
        assert "b" not in columns
        assert columns.get("b") is None
        with pytest.raises(UnknownStatistic, match=r"^unknown statistic 'b' \(known: a, gappy\)$"):
            columns["b"]
        assert columns["a"].shape == row_ids.shape
        return {"p": columns["a"] > np.median(columns["a"])}

    monkeypatch.setattr(Given, "what", staticmethod(build))
    built = construct(np.arange(90), columns_of(0, 90), config(GIVEN), np.arange(9))
    assert set(extra(built)) == {"given/p"}


def test_a_builder_may_not_have_the_name_of_a_statistic() -> None:
    with pytest.raises(BadInput, match=r"pools\.extra: 'a' is the name of a statistic"):
        construct(np.arange(90), columns_of(0, 90), config({**PICKS, "name": "a"}))


# The section


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ([{"type": "range", "statistic": "a", "low": 1}], "Field required"),
        ([between(None, None)], "low or high is needed"),
        ([between(2, 1)], "low is 2, which is above high, 1"),
        ([between(1, 2, "a/b")], "should match pattern"),
        ([between(1, 2, "control")], "the names control and self_test stand for other pools"),
        ([between(1, 2), between(2, 3)], "two builders are named 'mine'"),
        ([{"type": "rnage", "name": "x"}], r"unknown pool builder 'rnage'; did you mean 'range'\?"),
        ([{"type": f"{__name__}:Pool", "name": "x"}], "not a subclass of PoolBuilder"),
        ([{**PICKS, "low": 1}], "Extra inputs"),
        (["range"], "a mapping with a key 'type' is needed, one of: range"),
    ],
)
def test_the_section_is_checked(asked: list[Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        config(*asked)
    details = str([(e["msg"], e.get("ctx", {}).get("errors")) for e in caught.value.errors()])
    assert re.search(message, details)


def test_the_section_can_be_written_and_read_again() -> None:
    asked = config(PICKS, between(None, 2))
    dumped = asked.model_dump(mode="json")
    assert dumped["extra"][1] == between(None, 2)
    assert PoolConfig.model_validate(dumped) == asked


def test_the_range_says_early_which_statistic_it_lacks() -> None:
    kind = BUILDERS.get("range")
    builder = kind(kind.Config.model_validate(between(0, 1)))
    builder.check(["a", "gappy"])
    with pytest.raises(BadInput, match=r"unknown statistic 'gappy' \(known: a\)"):
        builder.check(["a"])
    Picks(BuilderConfig(type="x", name="x")).check([])

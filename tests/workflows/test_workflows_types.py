from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Optional

import pytest
from pydantic import Field

from djsandbox_ray.records import PoolKind, Range, Ranking
from djsandbox_ray.workflows.language.types import alternatives, describe, fits, is_plain, is_record


@dataclass(frozen=True)
class Base:
    id: str


class Special(Base):
    pass


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (int, int),
        (int, float),
        (PoolKind, str),
        (Special, Base),
        (Base, Base | None),
        (None, Base | None),
        (int, Annotated[float, Field(gt=0)]),
        (Annotated[int, Field(gt=0)], int),
        (int | None, Optional[float]),  # noqa: UP045 - the old spelling too
        (Any, Base),
        (Base, Any),
        (Base | None, object),
        (tuple[int, ...], list[int]),
        (list[int], tuple[float, ...]),
        (tuple[int, float], Sequence[float]),
        (tuple[int, str], tuple[float, str]),
        (tuple[Range, ...], tuple[Range, ...]),
        (tuple[int, ...], list),
        (list, list[int]),
        (dict[str, int], Mapping[str, float]),
        (dict[str, int], dict),
        (list[tuple[int, ...]], list[list[float]]),
        (Literal["a"], Literal["a", "b"]),
        (Literal["a", "b"], str),
        (Literal[1], float),
        (bool, bool),
    ],
)
def test_what_fits(given: Any, wanted: Any) -> None:
    assert fits(given, wanted)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (float, int),
        (bool, int),
        (bool, float),
        (str, float),
        (str, Sequence[str]),
        (str, Literal["a"]),
        (Base, Special),
        (Base | None, Base),
        (Base, Ranking),
        (None, Base),
        (Base, dict),
        (int | str, int),
        (list[str], list[int]),
        (list[float], tuple[int, ...]),
        (list[int], tuple[int, int]),
        (tuple[int, int, int], tuple[int, int]),
        (tuple[int, str], list[int]),
        (dict[str, str], dict[str, int]),
        (dict[str, int], list[int]),
        (list[int], dict[str, int]),
        (Literal["a", "c"], Literal["a", "b"]),
        (Literal[1], Literal[True]),
        (Literal["a", 1], str),
    ],
)
def test_what_does_not_fit(given: Any, wanted: Any) -> None:
    assert not fits(given, wanted)


@pytest.mark.parametrize(
    ("kind", "plain"),
    [
        (int, True),
        (str | None, True),
        (list, True),
        (dict[str, Any], True),
        (list[tuple[int, ...]], True),
        (int | Literal["auto"], True),
        (Annotated[int, Field(ge=1)], True),
        (Any, False),
        (Base, False),
        (Base | None, False),
        (tuple[Range, ...], False),
        (bytes, False),
        (set[int], False),
    ],
)
def test_what_yaml_can_hold(kind: Any, plain: bool) -> None:
    assert is_plain(kind) is plain


def test_records() -> None:
    assert is_record(Base)
    assert is_record(type(None))
    assert not is_record(Range)  # it has no id
    assert not is_record(list[Base])
    assert alternatives(Annotated[int | None, Field()]) == (int, type(None))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (Base | None, "Base or None"),
        (tuple[Range, ...], "tuple[Range, ...]"),
        (dict[str, float | None], "dict[str, None or float]"),
        (Literal["a", "b"], "'a' or 'b'"),
        (Any, "Any"),
        (Annotated[int, Field(ge=1)], "int"),
    ],
)
def test_types_in_words(kind: Any, text: str) -> None:
    assert describe(kind) == text

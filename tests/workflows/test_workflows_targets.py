from __future__ import annotations

import math
import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_hooks import Box, Boxes, Number, number

from djsandbox_ray.errors import BadInput
from djsandbox_ray.workflows.language.repeat import Target

MEANING = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
}


@given(
    sign=st.sampled_from(sorted(MEANING)),
    wanted=st.floats(allow_nan=False, allow_infinity=False),
    value=st.floats(allow_infinity=True),
    space=st.sampled_from(["", " ", "  "]),
)
def test_a_target_holds_when_its_comparison_does(
    sign: str, wanted: float, value: float, space: str
) -> None:
    judged = Target.parse(f"a.value{space}{sign}{space}{wanted!r}").judge({"a": Number("n", value)})
    assert judged.holds is (not math.isnan(value) and MEANING[sign](value, wanted))


@pytest.mark.parametrize(
    ("text", "number"),
    [("a.b>=0.05", 0.05), (" a.b == -3 ", -3), ("a.b < .5", 0.5), ("a.b<=+1e-3", 1e-3)],
)
def test_numbers(text: str, number: float) -> None:
    assert Target.parse(text).number == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a.b",
        "a > 1",
        "a.b > ",
        "> 1",
        "a.b > c.d",
        "a.b != 1",
        "a.b => 1",
        "a.b >> 1",
        "a.b > = 1",
        "a.b > 1 and a.b < 2",
        "a.b > 1_000",
        "a.b > 1e999",
        "a.b > nan",
        "a.b > 0x10",
        "a.b() > 1",
        "a..b > 1",
        "a.b. > 1",
        "__import__('os').system('true') > 1",
        "a.b > 1\n; 2",
    ],
)
def test_what_is_no_target(text: str) -> None:
    with pytest.raises(BadInput, match=r"is no target: job.field OP number is needed, OP one of >"):
        Target.parse(text)


def test_nothing_and_nan_never_hold() -> None:
    boxes = Boxes("b", Box(number(3), (), ""), None, float("nan"))
    for sign in MEANING:
        for field in ("share", "second.inner.value"):
            judged = Target.parse(f"b.{field} {sign} 0").judge({"b": boxes})
            assert not judged.holds
        assert not Target.parse(f"b.share {sign} 0").judge({"b": None}).holds
    assert str(Target.parse("b.share > 0").judge({"b": boxes})) == "b.share > 0: no (nan)"
    assert str(Target.parse("b.share > 0").judge({"b": None})) == (
        "b.share > 0: no (nothing was given)"
    )


def test_fields_of_fields() -> None:
    boxes = Boxes("b", Box(number(3), (), ""), None)
    target = Target.parse("b.first.inner.value >= 3")
    target.check({"b": Boxes})
    assert str(target.judge({"b": boxes})) == "b.first.inner.value >= 3: yes (3)"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("b.first > 1", "a number is needed, but the field is Box or None"),
        ("b.first.sizes > 1", r"a number is needed, but the field is None or tuple\[int, ...\]"),
        ("b.firt > 1", "Boxes has no field 'firt'; did you mean 'first'"),
        ("c.first > 1", "no earlier job 'c'"),
    ],
)
def test_what_is_no_number(text: str, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        Target.parse(text).check({"b": Boxes | None})


def test_a_boolean_is_no_number() -> None:
    from djsandbox_ray.records import TrialRecord

    with pytest.raises(BadInput, match="a number is needed, but the field is bool"):
        Target.parse("t.diverged == 1").check({"t": TrialRecord})

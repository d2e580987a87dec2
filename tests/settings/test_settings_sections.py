from __future__ import annotations

import math
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import BaseModel, Field, SerializeAsAny, ValidationError

from djsandbox_ray.settings.registry import Registry
from djsandbox_ray.settings.sections import NAME, NESTED, Component, Section, component


class Tool:
    Config: ClassVar[type[Component]] = Component


class HammerConfig(Component):
    weight: float
    owner: Owner | None = None


class Owner(Section):
    name: str


class Hammer(Tool):
    Config = HammerConfig


class PlainConfig(BaseModel):
    type: str


class Wrong(Tool):
    Config = PlainConfig  # type: ignore[assignment]


class NoClass(Tool):
    Config = {"type": "x"}  # type: ignore[assignment]  # noqa: RUF012


TOOLS: Registry[Tool] = Registry(
    "tool", Tool, {"hammer": f"{__name__}:Hammer", "tool": f"{__name__}:Tool"}
)


class Box(Section):
    tool: Annotated[SerializeAsAny[Component], component(TOOLS)]
    spare: list[Annotated[SerializeAsAny[Component], component(TOOLS)]] = Field(default=[])
    size: float = 1


def error_of(**values: Any) -> Any:
    with pytest.raises(ValidationError) as caught:
        Box.model_validate(values)
    (error,) = caught.value.errors()
    return error


def test_a_component_is_read_with_its_own_config() -> None:
    box = Box.model_validate({"tool": {"type": "hammer", "weight": 2}})
    assert box.tool == HammerConfig(type="hammer", weight=2)


def test_a_users_own_class_may_stand_there() -> None:
    name = f"{__name__}:Hammer"
    box = Box.model_validate({"tool": {"type": name, "weight": 2}})
    assert box.tool == HammerConfig(type=name, weight=2)


def test_dumping_keeps_the_keys_of_the_component_and_can_be_read_again() -> None:
    box = Box.model_validate(
        {
            "tool": {"type": "hammer", "weight": 2, "owner": {"name": "a"}},
            "spare": [{"type": "tool"}, {"type": "hammer", "weight": 0.5}],
        }
    )
    dumped = box.model_dump(mode="json")
    assert dumped["tool"] == {"type": "hammer", "weight": 2.0, "owner": {"name": "a"}}
    assert Box.model_validate(dumped) == box


def test_a_component_that_was_read_already_is_kept() -> None:
    hammer = HammerConfig(type="hammer", weight=1)
    assert Box(tool=hammer).tool is hammer


def test_sections_never_change() -> None:
    box = Box.model_validate({"tool": {"type": "tool"}})
    with pytest.raises(ValidationError):
        box.size = 2


class Counts(Section):
    one: int = 1
    bounded: Annotated[float, Field(gt=0)] | None = None
    either: bool | int = 1
    items: list[Any] = Field(default=[])


def test_true_is_no_number() -> None:
    """YAML reads ``yes`` and ``on`` so; Python takes it for 1."""
    for field, kind in (("one", "integer"), ("bounded", "number")):
        with pytest.raises(ValidationError, match=f"Input should be a valid {kind}"):
            Counts.model_validate({field: True})
    assert Counts.model_validate({"either": True, "items": [True]}).either is True


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_are_finite(value: float) -> None:
    error = error_of(tool={"type": "tool"}, size=value)
    assert error["type"] == "finite_number"
    inner = error_of(tool={"type": "hammer", "weight": value})["ctx"]["errors"]
    assert inner[0]["type"] == "finite_number"


@pytest.mark.parametrize("value", ["hammer", None, 3, ["hammer"]])
def test_no_mapping_lists_the_known(value: Any) -> None:
    error = error_of(tool=value)
    assert "a mapping with a key 'type' is needed, one of: hammer, tool" in error["msg"]


@pytest.mark.parametrize("value", [{}, {"type": 3}, {"type": None}, {"weight": 2}])
def test_no_name_lists_the_known(value: Any) -> None:
    error = error_of(tool=value)
    assert error["type"] == NAME
    assert "one of: hammer, tool" in error["msg"]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("hamer", "did you mean 'hammer'?"),
        ("pathlib:Path", "not a subclass of Tool"),
        (f"{__name__}:Wrong", "a Config that is no Component"),
        (f"{__name__}:NoClass", "a Config that is no Component"),
        ("{braces}", "unknown tool '{braces}'"),
    ],
)
def test_a_name_that_cannot_serve_says_why(name: str, why: str) -> None:
    error = error_of(tool={"type": name})
    assert error["type"] == NAME
    assert why in error["msg"]


def test_all_errors_of_a_component_are_carried() -> None:
    error = error_of(
        tool={"type": "hammer", "weight": "heavy", "wieght": 1, "owner": {"name": 3, "nam": ""}}
    )
    assert error["type"] == NESTED
    assert error["ctx"]["model"] is HammerConfig
    places = {inner["loc"] for inner in error["ctx"]["errors"]}
    assert places == {("weight",), ("wieght",), ("owner", "name"), ("owner", "nam")}


def test_a_plain_component_takes_its_type_only() -> None:
    (inner,) = error_of(tool={"type": "tool", "weight": 1})["ctx"]["errors"]
    assert inner["type"] == "extra_forbidden"


def test_components_in_lists_carry_their_position() -> None:
    error = error_of(tool={"type": "tool"}, spare=[{"type": "tool"}, {"type": "hammer"}])
    assert error["loc"] == ("spare", 1)

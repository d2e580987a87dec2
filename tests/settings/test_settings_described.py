from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field, SerializeAsAny

from djsandbox_ray.settings.described import kind_of, meaning, reader_in, sections_in
from djsandbox_ray.settings.registry import Registry
from djsandbox_ray.settings.sections import Component, Section, component


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


class Maker:
    Config = Component


MAKERS: Registry[Maker] = Registry("maker", Maker, {"a": f"{__name__}:Maker"})


class Wheel(Section):
    size: int = Field(ge=1)
    """In inches; see :class:`~some.module.Rim` and ``rims``.
    A second line."""


class Car(Section):
    name: str = Field(pattern="^[a-z]+$")
    wheels: list[Wheel] = Field(min_length=3)
    spare: Wheel | None = None
    colour: Colour = Colour.RED
    fuel: Literal["gas", "none"] = "gas"
    share: float = Field(default=0.5, gt=0, lt=1)
    seats: tuple[int, int] = (2, 3)
    names: tuple[str, ...] = ()
    ratios: dict[str, float] = Field(default={})
    more: dict[str, Any] = Field(default={})
    ready: bool = True
    maker: Annotated[SerializeAsAny[Component], component(MAKERS)]
    others: list[Annotated[SerializeAsAny[Component], component(MAKERS)]] = Field(default=[])


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("name", "text like `^[a-z]+$`"),
        ("wheels", "list of mappings (3 or more)"),
        ("spare", "mapping or null"),
        ("colour", "`red` or `blue`"),
        ("fuel", "`gas` or `none`"),
        ("share", "number above 0 below 1"),
        ("seats", "list of 2: whole number, whole number"),
        ("names", "list of texts"),
        ("ratios", "mapping of names to numbers"),
        ("more", "mapping"),
        ("ready", "true or false"),
        ("maker", "mapping with a key type, one of: a; or package.module:Class"),
    ],
)
def test_what_a_field_may_be(key: str, said: str) -> None:
    assert kind_of(Car.model_fields[key]) == said


def test_whole_numbers_with_a_bound() -> None:
    assert kind_of(Wheel.model_fields["size"]) == "whole number from 1"


def test_what_a_field_is_for_is_one_line() -> None:
    said = "In inches; see `Rim` and `rims`. A second line."
    assert meaning(Wheel.model_fields["size"]) == said
    assert meaning(Car.model_fields["ready"]) == ""


def test_sections_and_components_in_a_field() -> None:
    fields = Car.model_fields
    assert sections_in(fields["wheels"].annotation) == [Wheel]
    assert sections_in(fields["spare"].annotation) == [Wheel]
    assert sections_in(fields["maker"].annotation) == []
    assert sections_in(Wheel | Car | None) == [Wheel, Car]
    for key in ("maker", "others"):
        reader = reader_in(fields[key].annotation, fields[key].metadata)
        assert reader is not None
        assert reader.registry is MAKERS
    assert reader_in(fields["spare"].annotation) is None

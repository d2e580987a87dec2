from __future__ import annotations

from typing import Any

import pytest
from pydantic import Field, ValidationError, field_validator

from djsandbox_ray.errors import BadInput
from djsandbox_ray.settings.sections import Section
from djsandbox_ray.settings.yaml_input import Problem, problems, read_mapping, read_value


class Wheel(Section):
    size: float | list[float] = 1
    kind: str = Field(default="round", alias="as")


class Car(Section):
    wheels: list[Wheel] = Field(default=[])
    spare: Wheel | None = None
    by_name: dict[str, Wheel] = Field(default={})
    age: int = 0

    @field_validator("age")
    @classmethod
    def _young(cls, age: int) -> int:
        if age > 9:
            raise ValueError("at most 9")
        return age


def found(document: dict[str, Any]) -> list[str]:
    with pytest.raises(ValidationError) as caught:
        Car.model_validate(document)
    return [str(problem) for problem in problems(caught.value, Car, document)]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: 1\na: 2", "the key 'a' stands twice, again in line 2"),
        ("x:\n  a: 1\n  b: {c: 1, c: 2}", "the key 'c' stands twice, again in line 3"),
        ("[{a: 1, a: 1}]", "the key 'a' stands twice"),
        ("{1: a, 1: b}", "the key 1 stands twice"),
        ("? [a]\n: 1", "unhashable key"),
        ("? {a: 1}\n: 1", "unhashable key"),
        ("a: [1, 2", "not valid YAML"),
        ("a: 2024-13-45", "not valid YAML"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("a: !!int many", "not valid YAML"),
        ("a: 1\n---\nb: 1", "single document"),
        ("a: *nowhere", "undefined alias"),
        ("a: \x00", "not valid YAML"),
        ("a: " + "[" * 20_000, "nested too deeply"),
    ],
)
def test_what_is_no_strict_yaml_is_bad_input(text: str, why: str) -> None:
    with pytest.raises(BadInput) as caught:
        read_value(text, "file.yaml")
    assert str(caught.value).startswith("file.yaml: not valid YAML")
    assert why in str(caught.value)


@pytest.mark.parametrize(
    ("text", "kind"), [("", "NoneType"), ("- a", "list"), ("a", "str"), ("2024-01-01", "date")]
)
def test_the_top_is_a_mapping(text: str, kind: str) -> None:
    with pytest.raises(BadInput, match=f"file.yaml: a mapping of keys is needed, not {kind}"):
        read_mapping(text, "file.yaml")


def test_merged_keys_may_be_overridden() -> None:
    text = "base: &base {a: 1, b: 2}\nother: {<<: *base, b: 3}\nlist: [*base, {<<: [*base], a: 0}]"
    document = read_mapping(text, "file.yaml")
    assert document["other"] == {"a": 1, "b": 3}
    assert document["list"] == [{"a": 1, "b": 2}, {"a": 0, "b": 2}]


def test_equal_keys_in_different_mappings_are_no_repetition() -> None:
    assert read_value("[{a: 1}, {a: 2}, {b: {a: 1}, a: {a: 1}}]", "x")[2]["a"] == {"a": 1}


def test_every_error_has_its_place() -> None:
    lines = found(
        {
            "wheels": [{}, {"sise": 1}, "flat", {"as": 3}],
            "spare": {"size": "big"},
            "by_name": {"front": {"kind": "x"}},
            "age": 10,
            "agee": 1,
        }
    )
    assert lines == [
        "wheels[1].sise: unknown key; did you mean 'size'? (known: as, size)",
        "wheels[2]: Input should be a valid dictionary or instance of Wheel (given: 'flat')",
        "wheels[3].as: Input should be a valid string (given: 3)",
        "spare.size: Input should be a valid number, unable to parse string as a number; or "
        "Input should be a valid list (given: 'big')",
        "by_name.front.kind: unknown key (known: as, size)",
        "age: at most 9 (given: 10)",
        "agee: unknown key; did you mean 'age'? (known: age, by_name, spare, wheels)",
    ]


def test_an_error_inside_one_branch_of_a_union_is_placed_there() -> None:
    lines = found({"spare": {"size": [1, "two"]}})
    assert "spare.size[1]: Input should be a valid number, unable to parse string as a number" in (
        line.partition(" (given")[0] for line in lines
    )


def test_keys_that_are_no_strings_are_placed_too() -> None:
    assert found({1: 2, "by_name": {2: {}}}) == [
        "by_name.2: Input should be a valid string (given: 2)",
        "1: Keys should be strings (given: 1)",
    ]


def test_a_problem_is_one_line_however_long_the_value() -> None:
    (line,) = found({"age": "x\n" * 1000})
    assert len(line) < 250
    assert "\n" not in line


def test_a_problem_of_the_whole_document_has_no_place() -> None:
    assert str(Problem("", "wrong")) == "wrong"
    assert str(Problem("a[0]", "wrong")) == "a[0]: wrong"

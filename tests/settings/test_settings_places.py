from __future__ import annotations

import pytest

from djsandbox_ray.settings.places import Places, Position, located, parsed

TEXT = """\
# a comment
name: x
base: &base {size: 1,
             "colour": red}
wheels:
  - size: 2
  - {size: 3}
  - flat
spare:
  <<: *base
  age: 4
other: {<<: [*base], age: 5}
jobs:
  pools: {a: 1}
workflow:
  jobs:
    - id: dataset
      hook: nosuch
"""


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("name", (2, 1)),
        ("base.colour", (4, 14)),
        ("wheels[0]", (6, 5)),
        ("wheels[0].size", (6, 5)),
        ("wheels[1].size", (7, 6)),
        ("wheels[2]", (8, 5)),
        ("spare.age", (11, 3)),
        ("spare.size", (3, 14)),  # where it is merged from
        ("other.colour", (4, 14)),
        # What lacks a key is shown in its place.
        ("wheels[2].size", (8, 5)),
        ("spare.missing", (9, 1)),
        ("missing", (2, 1)),
        ("", (2, 1)),
        # There is no such place.
        ("wheels[3]", None),
        ("spare[0]", None),
        ("missing.size", None),
        ("name.a.b", None),
    ],
)
def test_the_place_of_a_value(path: str, place: tuple[int, int] | None) -> None:
    assert Places(TEXT).of(parsed(path)) == (Position(*place) if place else None)


def test_an_empty_document_has_no_places() -> None:
    assert Places("").of(("name",)) is None


def test_paths_are_read_as_messages_write_them() -> None:
    assert parsed("a.b[0][12].c-d.e") == ("a", "b", 0, 12, "c-d", "e")


SECTIONS = {"name", "base", "wheels", "spare", "jobs", "workflow"}


def told(message: str, elsewhere: tuple[tuple[int | str, ...], ...] = ()) -> list[str]:
    files = {"car.yaml": TEXT, "w.yaml": "after: x\njobs:\n  - {id: a}\n", "bad.yaml": "a: ["}
    found = located(message, "car.yaml", files.__getitem__, sections=SECTIONS, elsewhere=elsewhere)
    return found.split("\n")


def test_every_line_that_begins_with_a_path_says_where() -> None:
    message = "\n".join(
        [
            "car.yaml: 3 error(s) in the configuration",
            "  wheels[1].size: too small",
            "  spare.agee: unknown key",
            "  and 3 more",
            "dataset: no section of this name",
            "the name: is no path",
            "jobs.pools of the configuration: the workflow has no job 'pools'",
        ]
    )
    assert told(message) == [
        "car.yaml: 3 error(s) in the configuration",
        "  car.yaml:7:6: wheels[1].size: too small",
        "  car.yaml:9:1: spare.agee: unknown key",
        "  and 3 more",
        "dataset: no section of this name",
        "the name: is no path",
        "car.yaml:14:3: jobs.pools of the configuration: the workflow has no job 'pools'",
    ]
    found = "\n".join(told(message))  # is left as it is
    assert located(found, "car.yaml", lambda file: TEXT, sections=SECTIONS) == found


def test_what_does_not_come_from_the_file_has_no_place_in_it() -> None:
    message = "wheels[1].size: too small\nwheels[0].size: too large\nspare.age: old"
    assert told(message, (("wheels", 1, "size"), ("spare",))) == [
        "wheels[1].size: too small",
        "car.yaml:6:5: wheels[0].size: too large",
        "spare.age: old",
    ]


def test_a_workflow_has_places_of_its_own() -> None:
    message = "\n".join(
        [
            "workflow of the configuration:",
            "  job 'dataset', jobs[0].hook: unknown hook 'nosuch'",
            "  job 'pools', configuration jobs.pools.a: not a number",
            "workflow w.yaml:",
            "  jobs[0].hook: Field required",
            "  repeat.until[0]: no such job",
            "wheels: something else",
        ]
    )
    assert told(message) == [
        "workflow of the configuration:",
        "  car.yaml:18:7: job 'dataset', jobs[0].hook: unknown hook 'nosuch'",
        "  car.yaml:14:11: job 'pools', configuration jobs.pools.a: not a number",
        "workflow w.yaml:",
        "  w.yaml:3:5: jobs[0].hook: Field required",
        "  repeat.until[0]: no such job",
        "car.yaml:5:1: wheels: something else",
    ]


def test_a_file_that_cannot_be_read_has_no_places() -> None:
    def gone(file: str) -> str:
        raise FileNotFoundError(file)

    assert located("name: x", "car.yaml", gone, sections=SECTIONS) == "name: x"
    assert located("name: x", "car.yaml", lambda file: "a: [", sections=SECTIONS) == "name: x"

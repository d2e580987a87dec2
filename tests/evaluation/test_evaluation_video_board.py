"""VBench's table: its constants, its averages against printed numbers, and what is no value."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.video.board import (
    AVERAGES,
    DIMENSIONS,
    QUALITY_WEIGHT,
    SEMANTIC_WEIGHT,
    averages,
    averages_of,
    in_range,
    normalised,
    part_of,
    part_score,
    total,
    uniform,
)

ALL = {name: (one.minimum + one.maximum) / 2 for name, one in DIMENSIONS.items()}
# Of Table 11 of the Data-Juicer Sandbox: the printed total and uniform average of each row. Of
# three rows of Table 10 (81.84, 81.82, 79.16) the total alone is known, from which nothing follows.
TABLE_11 = [
    (82.53, 81.26),
    (82.10, 80.54),
    (82.32, 79.64),
    (81.97, 80.00),
    (81.85, 79.54),
    (81.75, 79.50),
    (81.61, 79.90),
    (81.57, 80.15),
    (81.01, 78.67),
]


@pytest.mark.parametrize(("whole", "even"), TABLE_11)
def test_the_averages_are_those_that_the_paper_prints(whole: float, even: float) -> None:
    """Quality and semantic as they follow from both: whole = (4 q + s) / 5, even = (q + s) / 2."""
    quality = round((5 * whole - 2 * even) / 3, 2)
    semantic = round(2 * even - quality, 2)
    assert total(quality, semantic) == pytest.approx(whole, abs=0.01)
    assert uniform(quality, semantic) == pytest.approx(even, abs=0.01)


def test_the_constants_are_those_of_vbench(shared_data: Path) -> None:
    known = json.loads((shared_data / "benchmarks" / "vbench" / "constants.json").read_text())
    ours = {name.replace("_", " "): one for name, one in DIMENSIONS.items()}
    assert list(ours) == known["dimensions"]
    for name, one in ours.items():
        assert one.weight == known["weight"][name]
        assert {"Min": one.minimum, "Max": one.maximum} == known["normalize"][name]
    for part in ("quality", "semantic"):
        assert {name.replace("_", " ") for name in part_of(part)} == set(known[f"{part}_list"])
    assert (known["quality_weight"], known["semantic_weight"]) == (QUALITY_WEIGHT, SEMANTIC_WEIGHT)


def test_the_middle_of_every_range_is_half_and_dynamic_degree_weighs_half() -> None:
    assert averages(ALL) == pytest.approx(dict.fromkeys(AVERAGES, 0.5))
    moving = averages({**ALL, "dynamic_degree": 1.0})
    assert moving["quality"] == pytest.approx((6 * 0.5 + 0.5 * 1) / 6.5)
    assert moving["semantic"] == pytest.approx(0.5)
    styled = averages({**ALL, "scene": 0.8222})
    assert styled["semantic"] == pytest.approx((8 * 0.5 + 1) / 9)
    assert styled["total"] == pytest.approx((4 * 0.5 + styled["semantic"]) / 5)
    assert normalised("motion_smoothness", 1.0) > 1  # above the maximum of the table, and a value


def test_what_was_not_measured_is_no_zero() -> None:
    quality = {name: ALL[name] for name in part_of("quality")}
    assert averages(quality) == {"quality": pytest.approx(0.5)}
    assert averages_of(quality) == ("quality",)
    assert averages_of(part_of("semantic")) == ("semantic",)
    assert averages({"color": 0.3}) == {}
    del quality["imaging_quality"]
    with pytest.raises(BadInput, match="no quality without imaging_quality: a dimension that was"):
        part_score("quality", quality)
    assert set(averages({**ALL})) == set(AVERAGES)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("overall_consistency", 323.99),  # seen with wrong weights, VBench's issue 87
        ("color", float("nan")),
        ("color", float("inf")),
        ("color", -0.01),
        ("subject_consistency", 95.6),
        ("temporal_style", -1.01),
    ],
)
def test_what_cannot_be_is_an_error(name: str, value: float) -> None:
    with pytest.raises(BadInput, match=f"{name} is .*; it lies between"):
        in_range(name, value)
    with pytest.raises(BadInput, match=name):
        averages({name: value})


def test_what_rounding_puts_outside_is_the_end_of_the_range() -> None:
    """A video that stands still has cosines of 1, which single precision makes 1.0000001."""
    assert in_range("subject_consistency", 1.0000001) == 1
    assert in_range("overall_consistency", -1.0000001) == -1
    assert in_range("color", -1e-9) == 0
    still = {**ALL, "subject_consistency": 1 + 1e-7, "background_consistency": 1 + 1e-15}
    assert averages(still)["quality"] == pytest.approx((4 * 0.5 + 0.5 * 0.5 + 2) / 6.5)
    for value in (1.0001, -0.0001):
        with pytest.raises(BadInput, match="it lies between"):
            in_range("subject_consistency", value)


def test_a_name_that_is_none() -> None:
    with pytest.raises(BadInput, match="did you mean 'dynamic_degree'"):
        in_range("dynamic_degre", 0.5)
    assert in_range("temporal_style", -0.2) == -0.2


def test_quality_does_not_see_that_nothing_moves() -> None:
    """T2V-Turbo's seven, as its paper prints them, and what is left of them in still videos."""
    moving = {
        "subject_consistency": 0.9628,
        "background_consistency": 0.9702,
        "temporal_flickering": 0.9748,
        "motion_smoothness": 0.9734,
        "dynamic_degree": 0.4917,
        "aesthetic_quality": 0.6304,
        "imaging_quality": 0.7249,
    }
    smooth = tuple(moving)[:4]
    still = {**moving, **dict.fromkeys(smooth, 1.0), "dynamic_degree": 0.0}
    assert part_score("quality", moving) == pytest.approx(0.8257, abs=1e-3)
    assert part_score("quality", still) == pytest.approx(part_score("quality", moving), abs=1e-3)

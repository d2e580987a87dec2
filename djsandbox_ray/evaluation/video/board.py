"""VBench's sixteen dimensions, and what its leaderboard makes of them.

The constants are those of ``scripts/constant.py`` in Vchitect/VBench. What is missing is an error:
the script that VBench brings for its leaderboard, ``cal_final_score.py``, takes zero for it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from djsandbox_ray.errors import BadInput, unknown

Part = Literal["quality", "semantic"]


@dataclass(frozen=True)
class Dimension:
    """One thing that VBench measures."""

    part: Part
    """The average that it belongs to."""
    minimum: float
    """The raw value that counts as 0."""
    maximum: float
    """The raw value that counts as 1; a better one counts more."""
    weight: float = 1.0
    """In its average."""
    lowest: float = 0.0
    """The least raw value that there can be: a share cannot be negative, a cosine can."""


DIMENSIONS: dict[str, Dimension] = {
    "subject_consistency": Dimension("quality", 0.1462, 1.0),
    "background_consistency": Dimension("quality", 0.2615, 1.0),
    "temporal_flickering": Dimension("quality", 0.6293, 1.0),
    "motion_smoothness": Dimension("quality", 0.706, 0.9975),
    "dynamic_degree": Dimension("quality", 0.0, 1.0, weight=0.5),
    "aesthetic_quality": Dimension("quality", 0.0, 1.0),
    "imaging_quality": Dimension("quality", 0.0, 1.0),
    "object_class": Dimension("semantic", 0.0, 1.0),
    "multiple_objects": Dimension("semantic", 0.0, 1.0),
    "human_action": Dimension("semantic", 0.0, 1.0),
    "color": Dimension("semantic", 0.0, 1.0),
    "spatial_relationship": Dimension("semantic", 0.0, 1.0),
    "scene": Dimension("semantic", 0.0, 0.8222),
    "appearance_style": Dimension("semantic", 0.0009, 0.2855, lowest=-1.0),
    "temporal_style": Dimension("semantic", 0.0, 0.364, lowest=-1.0),
    "overall_consistency": Dimension("semantic", 0.0, 0.364, lowest=-1.0),
}
"""By name, in the order of the leaderboard."""
HIGHEST = 1.0
"""Of all raw values."""
_ROUNDING = 1e-5
"""What a value may lie outside of its range: the cosine of two equal vectors in single precision is
1.0000001 as often as 1, and of a video that stands still every frame's is one."""
QUALITY_WEIGHT, SEMANTIC_WEIGHT = 4, 1
"""In the total."""
AVERAGES = ("quality", "semantic", "total", "uniform")


def part_of(part: Part) -> tuple[str, ...]:
    """Return the names of the dimensions that an average is made of."""
    return tuple(name for name, one in DIMENSIONS.items() if one.part == part)


def in_range(name: str, value: float, where: str = "VBench") -> float:
    """Return a raw value, if it can be one; what rounding has put outside counts as the end.

    Args:
        name: of the dimension.
        value: as measured, a share of 1.
        where: what has given it, for the message.

    Raises:
        BadInput: there is no such dimension, or no such value of it.
    """
    if name not in DIMENSIONS:
        raise unknown("dimension of VBench", name, DIMENSIONS)
    lowest = DIMENSIONS[name].lowest
    if not (math.isfinite(value) and lowest - _ROUNDING <= value <= HIGHEST + _ROUNDING):
        raise BadInput(
            f"{where}: {name} is {value:g}; it lies between {lowest:g} and {HIGHEST:g} (published "
            "tables have percent): such numbers come of wrong weights"
        )
    return float(min(max(value, lowest), HIGHEST))


def normalised(name: str, value: float) -> float:
    """Return (value - minimum) / (maximum - minimum) of a dimension: about 0 to 1.

    Raises:
        BadInput: see :func:`in_range`.
    """
    value, one = in_range(name, value), DIMENSIONS[name]
    return (value - one.minimum) / (one.maximum - one.minimum)


def part_score(part: Part, values: Mapping[str, float]) -> float:
    """Return the weighted mean of a part's normalised dimensions.

    Args:
        part: quality or semantic.
        values: raw, by dimension; others may stand among them.

    Raises:
        BadInput: a dimension is missing, or see :func:`in_range`.
    """
    names = part_of(part)
    if lacking := [name for name in names if name not in values]:
        raise BadInput(
            f"VBench: no {part} without {', '.join(lacking)}: a dimension that was not measured "
            "is not zero"
        )
    weights = sum(DIMENSIONS[name].weight for name in names)
    return sum(normalised(name, values[name]) * DIMENSIONS[name].weight for name in names) / weights


def total(quality: float, semantic: float) -> float:
    """Return the leaderboard's total: quality counts four times as much."""
    whole = QUALITY_WEIGHT + SEMANTIC_WEIGHT
    return (QUALITY_WEIGHT * quality + SEMANTIC_WEIGHT * semantic) / whole


def uniform(quality: float, semantic: float) -> float:
    """Return the mean of both, the "uniform average" of the Data-Juicer Sandbox."""
    return (quality + semantic) / 2


def averages_of(names: Iterable[str]) -> tuple[str, ...]:
    """Return which averages there are where these dimensions are measured."""
    there = set(names)
    parts = [part for part in ("quality", "semantic") if there.issuperset(part_of(part))]
    return AVERAGES if len(parts) == 2 else tuple(parts)


def averages(values: Mapping[str, float]) -> dict[str, float]:
    """Return all averages whose dimensions are there.

    Args:
        values: raw, by dimension.

    Raises:
        BadInput: see :func:`in_range`.
    """
    for name, value in values.items():
        in_range(name, value)
    parts: tuple[Part, ...] = ("quality", "semantic")
    known = averages_of(values)
    found: dict[str, float] = {part: part_score(part, values) for part in parts if part in known}
    if len(found) < len(parts):
        return found
    both = found["quality"], found["semantic"]
    return {**found, "total": total(*both), "uniform": uniform(*both)}

"""Ranges of statistics as parameters of Data-Juicer's operators, and the rows that they keep.

Data-Juicer has no table of which parameter bounds which statistic. The source of a filter says what
it compares with (:func:`djsandbox_ray.stats.inspection.thresholds`); of one that writes several
statistics, ``min_<x>`` and ``max_<x>`` bound the one whose name ends in ``<x>``. A bound itself is
kept. What departs from that is listed here. The tests run every filter's own decision against it.
"""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_type_hints

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import BadInput
from djsandbox_ray.pools.eligible import check_statistics, inside
from djsandbox_ray.records import Range
from djsandbox_ray.stats import inspection
from djsandbox_ray.stats.inspection import Thresholded
from djsandbox_ray.stats.operators import OperatorSpec, statistic_names

UNBOUNDED = sys.maxsize
"""What Data-Juicer itself writes for "no bound"; unlike an infinity, it still drops a row whose
value is not finite, which has no value here either."""

_IN_THE_WAY: dict[str, dict[str, Any]] = {"language_id_score_filter": {"lang": ""}}
"""Parameters that drop rows by something else than the statistic, and the value that does not."""
_NO_RANGE = {
    "llm_analysis_filter": "it keeps every row of value 0, whatever the thresholds are",
    "text_entity_dependency_filter": "it compares every entity, and the statistic is their mean",
}


def thresholds(spec: OperatorSpec, key: str) -> Thresholded:
    """Return which parameters of an operator bound a statistic.

    Args:
        spec: the operator.
        key: Data-Juicer's name of the statistic.

    Raises:
        BadInput: none does; says why.
    """
    if spec.name in _NO_RANGE:
        raise BadInput(f"{spec.name} cannot keep a range of {key}: {_NO_RANGE[spec.name]}")
    found = [
        pair
        for pair in inspection.thresholds(spec.filter_class)
        if len(spec.keys) == 1 or key.endswith(str(pair.low or pair.high).partition("_")[2])
    ]
    if len(found) != 1:
        raise BadInput(f"{spec.name} cannot keep a range of {key}: it has no threshold for it")
    return found[0]


def no_ranges(operators: Sequence[OperatorSpec]) -> list[tuple[int, str]]:
    """Return which operators (by index) give a statistic that no recipe can keep a range of.

    Returns:
        With what is to be said of each.
    """
    found = []
    for index, spec in enumerate(operators):
        try:
            for key in spec.keys:
                thresholds(spec, key)
        except BadInput as error:
            found.append((index, str(error)))
    return found


def to_process(operators: Sequence[OperatorSpec], ranges: Sequence[Range]) -> list[dict[str, Any]]:
    """Return the ``process`` list that keeps the rows within all ranges.

    Thresholds that the operators came with, and those that Data-Juicer would take by default, are
    all replaced: what a range leaves open is opened.

    Args:
        operators: those of the run, with the models that the statistics were computed with.
        ranges: at most one per statistic.

    Returns:
        One entry ``{name: parameters}`` per operator that a range needs, in the order of the
        operators: plain data for YAML. Two, one for each side, where a range has two sides and the
        operator one threshold; Data-Juicer computes the statistic once.

    Raises:
        BadInput: no range, two of one statistic, an unknown statistic, an empty range, one that
            the operator's thresholds cannot express, or two operators that write one statistic.
    """
    wanted = _by_statistic(ranges, operators)
    process: list[dict[str, Any]] = []
    written: set[str] = set()
    for spec, names in zip(operators, statistic_names(operators), strict=True):
        found = {k: wanted[n] for k, n in zip(spec.keys, names, strict=True) if n in wanted}
        if not found:
            continue
        if twice := written & set(spec.keys):
            raise BadInput(
                f"two operators of the recipe write {min(twice)}: Data-Juicer computes it once per "
                "row and would hold it against the thresholds of both"
            )
        written |= set(spec.keys)
        process += [{spec.name: parameters} for parameters in _parameters(spec, found)]
    return process


def applied(operators: Sequence[OperatorSpec], ranges: Sequence[Range]) -> tuple[Range, ...]:
    """Return the ranges as the operators will apply them, as :func:`to_process` writes them.

    They differ from what was wanted only where a parameter takes whole numbers (bounds are rounded
    to the inside; for counts that changes nothing), or only numbers from 0 to 1.

    Raises:
        BadInput: as :func:`to_process`.
    """
    wanted = _by_statistic(ranges, operators)
    found = []
    for spec, names in zip(operators, statistic_names(operators), strict=True):
        for key, name in zip(spec.keys, names, strict=True):
            if name in wanted:
                pair, r = thresholds(spec, key), wanted[name]
                low = _bound(spec, pair.low or pair.high, r.low, low=True)
                high = _bound(spec, pair.high or pair.low, r.high, low=False)
                found.append(Range(name, low, high))
    return tuple(found)


def kept(columns: Mapping[str, NDArray[np.float64]], ranges: Iterable[Range]) -> NDArray[np.bool_]:
    """Return which rows lie within all ranges, shape (rows,), reading one column at a time.

    A row without a value of one of the statistics is not kept, however wide its range.

    Raises:
        BadInput: no range, or an unknown statistic.
    """
    mask: NDArray[np.bool_] | None = None
    for r in ranges:
        check_statistics([r.statistic], columns)
        found = inside(columns[r.statistic], r.low, r.high)
        mask = found if mask is None else mask & found
    if mask is None:
        raise BadInput("there is no range to keep rows by")
    return mask


def _by_statistic(ranges: Sequence[Range], operators: Sequence[OperatorSpec]) -> dict[str, Range]:
    if not ranges:
        raise BadInput("there is no range to make a recipe of")
    check_statistics(
        (r.statistic for r in ranges),
        [name for names in statistic_names(operators) for name in names],
    )
    wanted = {r.statistic: r for r in ranges}
    if len(wanted) < len(ranges):
        raise BadInput("a statistic has two ranges: " + ", ".join(r.text for r in ranges))
    for r in ranges:
        if any(bound is not None and not math.isfinite(bound) for bound in (r.low, r.high)):
            raise BadInput(f"{r.text}: a bound is a finite number, or none")
        if r.low is not None and r.high is not None and r.low > r.high:
            raise BadInput(f"{r.text} is empty")
    return wanted


def _parameters(spec: OperatorSpec, ranges: Mapping[str, Range]) -> list[dict[str, Any]]:
    """Return an operator's parameters: its own but the thresholds, then all thresholds.

    Returns:
        Those of each entry.
    """
    decide = {p for key in spec.keys for p in vars(thresholds(spec, key)).values() if p}
    decide |= inspection.DECISION_BASE
    own = {name: value for name, value in spec.params.items() if name not in decide}
    own |= _IN_THE_WAY.get(spec.name, {})
    entries = [own]
    for key in spec.keys:
        wanted = ranges.get(key, Range(key, None, None))
        sides = _thresholds(spec, thresholds(spec, key), wanted)
        entries = [{**entry, **side} for side in sides for entry in entries]
    return entries


def _thresholds(spec: OperatorSpec, names: Thresholded, r: Range) -> list[dict[str, Any]]:
    if names.low and names.high:
        return [
            {
                names.low: _written(spec, names.low, r.low, low=True),
                names.high: _written(spec, names.high, r.high, low=False),
            }
        ]
    only, bounds_below = str(names.low or names.high), names.low is not None
    ends: tuple[tuple[bool, float | None], ...] = ((True, r.low), (False, r.high))
    sides = [side for side in ends if side[1] is not None] or [(bounds_below, None)]
    found: list[dict[str, Any]] = []
    for below, bound in sides:
        # Reversed, Data-Juicer keeps what lies on the other side, the bound included; and NaN,
        # which these operators do not write.
        found.append({only: _written(spec, only, bound, low=below)})
        if len(sides) > 1 or below != bounds_below:  # an entry takes over what those before it say
            found[-1]["reversed_range"] = below != bounds_below
    return found


def _written(spec: OperatorSpec, name: str, bound: float | None, *, low: bool) -> Any:
    """Return a bound as the parameter takes it."""
    found = _bound(spec, name, bound, low=low)
    kind = _kind(spec, name)
    if found is None:
        # Counts and sizes are never negative.
        least = 0 if kind in (int, str) else -UNBOUNDED
        found = least if low else UNBOUNDED
    return str(int(found)) if kind is str else int(found) if kind is int else found


def _bound(spec: OperatorSpec, name: str | None, bound: float | None, *, low: bool) -> float | None:
    """Return the bound that will be applied; None for none."""
    kind = _kind(spec, str(name))
    if kind in (int, str) and bound is not None:
        return float(math.ceil(bound) if low else math.floor(bound))
    if kind is float or kind in (int, str):
        return bound
    # Data-Juicer's type for numbers from 0 to 1, which takes no others.
    if bound is None:
        return 0.0 if low else 1.0
    return min(max(bound, 0.0), 1.0)


def fails_preflight(spec: OperatorSpec) -> bool:
    """Say whether Data-Juicer's own check before a run refuses any threshold of an operator.

    It does where they are of its type for numbers from 0 to 1, which no number of YAML is.
    """
    pairs = inspection.thresholds(spec.filter_class)
    names = {name for pair in pairs for name in (pair.low, pair.high) if name is not None}
    kinds = (_kind(spec, name) for name in names)
    return any(getattr(kind, "__name__", "") == "ClosedUnitInterval" for kind in kinds)


def _kind(spec: OperatorSpec, name: str) -> Any:
    cls = spec.filter_class
    owner = next(k for k in inspection.lineage(cls) if name in inspection.own_parameters(k))
    init: Any = vars(owner)["__init__"]
    return get_type_hints(init).get(name, inspect.Parameter.empty)

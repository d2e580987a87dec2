"""How far the numbers of a run can be trusted, in words: its noise, and what was given up early."""

from __future__ import annotations

from djsandbox_ray.analysis.noise import NoiseFloor, Realised
from djsandbox_ray.analysis.power import MAX_SEEDS
from djsandbox_ray.analysis.racing import AuditReport, Savings
from djsandbox_ray.reporting.ranking import Unit


def noise_lines(floor: NoiseFloor, unit: Unit, *, stopping: bool) -> list[str]:
    """Say which effect a study can find, from the noise of its controls.

    Args:
        floor: the noise, and what follows from it.
        unit: what changes are measured in.
        stopping: whether pools may be given up early.
    """
    design, found, width = floor.design, floor.detectable, floor.half_width
    lines = [
        f"with {design.controls} control arms and {design.seeds} "
        f"{'seed' if design.seeds == 1 else 'seeds'}, a pool that is {unit.size(found.value)} "
        f"better is called better with 80 % probability (90 % range of this estimate: "
        f"{unit.size(found.low)} to {unit.size(found.high)})"
        + (", unless it is given up early because others are far better" if stopping else ""),
        f"intervals will be about {unit.size(width.value)} to each side "
        f"({unit.size(width.low)} to {unit.size(width.high)})",
    ]
    if found.value:
        half = found.value / 2
        needed = floor.seeds_for(half)
        lines.append(
            f"to find half of that, {unit.size(half)}, takes {needed} seeds"
            if needed
            else f"not even {MAX_SEEDS} seeds find half of that, {unit.size(half)}: which samples "
            "are in a bucket does not average out over seeds; more control arms help, or larger "
            "pools"
        )
    return lines


def realised_lines(realised: Realised | None, unit: Unit) -> list[str]:
    """Say how wide the intervals came out, beside the prediction."""
    if realised is None:
        return []
    line = (
        f"Intervals came out {unit.size(realised.half_width)} to each side, {realised.ratio:.2f} "
        "times what the noise floor foretold."
    )
    return [line] if realised.warning is None else [line, f"Beware: {realised.warning}."]


def stopping_lines(given_up: int, audit: AuditReport, savings: Savings) -> list[str]:
    """Say what giving up pools early saved, and how often it was wrong.

    Args:
        given_up: pools that were given up early and did not run on.
        audit: of the pools that ran on as a check.
        savings: in samples seen in training.
    """
    if not given_up and not audit.audited:
        return ["Early stopping gave up no pool."]
    line = (
        f"Early stopping gave up {_pools(given_up)} and saved {savings.share:.0%} of all training "
        f"({savings.share_of_stoppable:.0%} of that of the pools that race)."
    )
    if audit.rate is None:
        return [line, "None of them ran on as a check: how often that was wrong is not known."]
    return [
        line,
        f"{_pools(audit.audited)} that would have been given up ran on as a check: {audit.wrong} "
        f"ended among the best ({audit.rate:.0%}; 95 % interval {audit.low:.0%} to "
        f"{audit.high:.0%}).",
    ]


def _pools(count: int) -> str:
    return f"{count} pool" if count == 1 else f"{count} pools"

"""How far the numbers of a run can be trusted: its noise, early stopping, and the second look."""

from __future__ import annotations

import math
from collections.abc import Sequence

from djsandbox_ray.analysis.planning.noise import NoiseFloor, Realised
from djsandbox_ray.analysis.planning.power import (
    MAX_SEEDS,
    MOST_CONTROLS,
    MOST_SEEDS,
    PlannedDesign,
)
from djsandbox_ray.analysis.planning.sight import Blind, Cause, Reason
from djsandbox_ray.analysis.verdicts.racing import AuditReport, Savings
from djsandbox_ray.evaluation.metric import Metric
from djsandbox_ray.records import ConfirmationRow, FlipRow, MetricRow, RankingRow
from djsandbox_ray.reporting.blocks import ReportTable
from djsandbox_ray.reporting.ranking import NOTHING, Unit


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


def blind_lines(found: Blind, floor: NoiseFloor, unit: Unit) -> list[str]:
    """Say that a study is not likely to find what is of interest, why, and what would.

    Args:
        found: what it does not find.
        floor: what it does.
        unit: what changes are measured in.
    """
    wanted = unit.size(found.interest)
    return [
        f"this study is not likely to see a change of {wanted}: a pool must be "
        f"{unit.size(floor.detectable.value)} better to be called better with 80 % probability",
        f"likely because {'; and because '.join(map(_because, found.reasons))}",
        _cheapest(found.design, floor, wanted),
    ]


def _because(reason: Reason) -> str:
    named = ", ".join(reason.metrics)
    return {
        Cause.BUDGET: (
            f"the models have learnt hardly anything (at chance: {named}): a greater trials.budget "
            "or a larger model comes first"
        ),
        Cause.POOL_SIZE: (
            f"{100 * reason.share:.0f} % of the noise is which samples are in a bucket, which does "
            "not average out over seeds: more data, fewer pools.buckets or more pools.controls help"
        ),
        Cause.METRIC: (
            f"{named} scatters far more than the other metrics: evaluation.score can do without, "
            "or the evaluation takes more samples"
        ),
        Cause.TRAINING: (
            "trainings differ by themselves, whatever they learn from: more seeds or a greater "
            "trials.budget help"
        ),
    }[reason.cause]


def _cheapest(found: PlannedDesign | None, floor: NoiseFloor, wanted: str) -> str:
    if found is None:
        return (
            f"no design of up to {MOST_CONTROLS} control arms and {MOST_SEEDS} seeds sees {wanted}"
        )
    design = found.design
    planned = (floor.design.pools + floor.design.controls) * floor.design.seeds
    settings = {
        "pools.controls": design.controls,
        "trials.seeds": design.seeds,
        "pools.draw_share": f"{design.draw_share:.3g}",
    }
    said = " ".join(f"--set {key}={value}" for key, value in settings.items())
    return (
        f"the cheapest design that would see {wanted} takes {found.trials:,} trials in place of "
        f"{planned:,}: {said}"
    )


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


def suspicion_lines(rows: Sequence[RankingRow], metrics: Sequence[Metric]) -> list[str]:
    """Name the pools whose models answer in a way that makes other metrics say little.

    Args:
        rows: the ranking.
        metrics: what is known of its metrics; see :attr:`Metric.suspect_above`.
    """
    lines = []
    for metric in metrics:
        if metric.suspect_above is None:
            continue
        means = {row.pool: row.metrics[metric.name] for row in rows if metric.name in row.metrics}
        above = [pool for pool, mean in means.items() if mean > metric.suspect_above]
        if above:
            named = "all pools" if len(above) == len(means) else ", ".join(above)
            lines.append(
                f"Beware: {metric.name} is above {metric.suspect_above:g} in {named}; there the "
                f"other metrics of {metric.name.partition('/')[0]} say little."
            )
    return lines


def sensitivity_section(rows: Sequence[MetricRow]) -> ReportTable:
    """Show what each metric can see; those that see most of the self-tests come first."""
    header = ["metric", "controls", "noise", "visible change", "self-tests, in errors", ""]
    body = [
        [
            row.metric,
            f"{row.mean:.4g}",
            f"{row.noise:.2g}",
            f"{row.visible:.2g}",
            NOTHING if math.isnan(row.seen) else f"{row.seen:.1f}",
            ", ".join(["sees"] * row.sees + ["not in the score"] * (not row.scored)),
        ]
        for row in rows
    ]
    return ReportTable("What each metric can see", header, body, numbers=range(1, 5))


def sensitivity_lines(rows: Sequence[MetricRow], *, chosen: bool) -> list[str]:
    """Say by which metrics of the score self-tests are seen.

    Args:
        rows: of all metrics.
        chosen: whether these alone make the score.
    """
    scored = [row for row in rows if row.scored]
    seeing = [row.metric for row in scored if row.sees]
    if all(math.isnan(row.seen) for row in scored):
        return ["No self-test says which metrics see anything: all count."] if chosen else []
    if not seeing:
        more = ": all of them count" if chosen else ""
        return [f"No metric of the score sees the self-tests{more}."]
    of_all, named = f"{len(seeing)} of {len(scored)} metrics", ", ".join(seeing)
    if chosen:
        return [f"The score is made of {of_all}, those that see the self-tests: {named}."]
    if len(seeing) == len(scored):
        return []
    return [
        f"The self-tests are seen by {of_all} of the score: {named}. The others may add more "
        "noise than they tell; 'score: informative' leaves them out."
    ]


def _pools(count: int) -> str:
    return f"{count} pool" if count == 1 else f"{count} pools"


def confirmation_section(rows: Sequence[ConfirmationRow], unit: Unit) -> ReportTable:
    """Set the effect that a pool was chosen by beside the shrunken and the confirmed one."""
    header = ["pool", f"first {unit}", f"shrunken {unit}", f"confirmed {unit}", "verdict"]
    body = [
        [
            row.pool,
            _effect(row.first, row.first_low, row.first_high, unit),
            unit.text(row.shrunken),
            _effect(row.confirmed, row.low, row.high, unit),
            row.verdict,
        ]
        for row in rows
    ]
    return ReportTable("Confirmed with fresh seeds and fresh controls", header, body)


def confirmation_notes(rows: Sequence[ConfirmationRow]) -> list[str]:
    """Say how many of the chosen pools are better in the second study too."""
    if not rows:
        return []
    better = sum(row.verdict == "better" for row in rows)
    lines = [f"Confirmed: {better} of {len(rows)} pools that were called better are better again."]
    if worse := [row.pool for row in rows if row.verdict == "worse"]:
        lines.append(f"Contradicted, worse in the second study: {', '.join(worse)}.")
    return lines


def flips_section(rows: Sequence[FlipRow], unit: Unit) -> ReportTable:
    """Set the verdicts at two learning rates side by side; those that differ come first."""
    header = ["pool", f"change {unit}", "verdict", f"second change {unit}", "second verdict", ""]
    body = [
        [
            row.pool,
            unit.text(row.change),
            row.verdict,
            unit.text(row.second_change),
            row.second_verdict,
            "flips" if row.flips else "",
        ]
        for row in sorted(rows, key=lambda row: not row.flips)
    ]
    return ReportTable("At a second learning rate", header, body)


def flips_notes(rows: Sequence[FlipRow]) -> list[str]:
    """Say which verdicts are not the same at a second learning rate."""
    if not rows:
        return []
    changed = [f"{r.pool} ({r.verdict}, then {r.second_verdict})" for r in rows if r.flips]
    if not changed:
        return [f"All {len(rows)} decided verdicts are the same at the second learning rate."]
    return [
        f"{len(changed)} of {len(rows)} decided verdicts flip at the second learning rate: "
        f"{', '.join(changed)}."
    ]


def _effect(value: float, low: float, high: float, unit: Unit) -> str:
    if not (math.isfinite(low) and math.isfinite(high)):
        return unit.text(value)
    return f"{unit.text(value)} [{unit.scaled(low):.2f}, {unit.scaled(high):.2f}]"

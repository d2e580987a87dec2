"""``insights.md``: what a run observed, in sentences that a reader can check against its tables.

Every sentence is made of rows of a table that it names. Nothing is said that no table holds; what
was not testable, not decided or not done is said as such.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from djsandbox_ray.analysis.scale.diversity import MIN_POINTS, rank_correlation
from djsandbox_ray.analysis.scale.repetition import BASELINE
from djsandbox_ray.records import (
    ConfirmationRow,
    DiversityRow,
    InteractionRow,
    NotTestable,
    PoolKind,
    RankingRow,
    RepetitionRow,
    SurrogateRow,
)
from djsandbox_ray.reporting.blocks import Chapter, Sentences
from djsandbox_ray.reporting.ranking import Unit
from djsandbox_ray.reporting.together import beyond

_VERDICTS = ("better", "worse", "undecided", "stopped", "failed")
_LOOSE = 0.3
"""Statistics whose |r| stays below this are called nearly orthogonal (Cohen's medium effect)."""


@dataclass(frozen=True)
class Observations:
    """The tables of a run, as far as it has them."""

    unit: Unit
    ranking: Sequence[RankingRow]
    modality: Mapping[str, str]
    """Of every statistic's operator."""
    not_testable: Sequence[NotTestable] = ()
    confirmed: Sequence[ConfirmationRow] = ()
    combined: Sequence[RankingRow] = ()
    interactions: Sequence[InteractionRow] = ()
    surrogate: Sequence[SurrogateRow] = ()
    repetition: Sequence[RepetitionRow] = ()
    repetition_lines: Sequence[str] = ()
    scaling_lines: Sequence[str] = ()
    diversity: Sequence[DiversityRow] = ()
    correlations: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """Pearson's r per pair of statistics."""
    caveats: Sequence[str] = ()
    """What jobs could not do, in lines."""


def insights_markdown(name: str, found: Observations) -> str:
    """Return the page: a section per question, each with sentences or with why there are none."""
    sections = {
        "Which operators matter": _operators(found),
        "Are the best confirmed": _confirmation(found),
        "Do combinations help": _combinations(found),
        "Are the operators orthogonal": _orthogonality(found),
        "Quality against diversity": _diversity(found),
        "Repetition against fresh data": [
            *_repetition(found),
            *map(sentence, found.repetition_lines),
        ],
        "What holds at a larger scale": [*map(sentence, found.scaling_lines)]
        or ["No training at other scales was made."],
        "Not testable, not decided": _open(found),
    }
    lines = [f"# What {name} observed", ""]
    for title, sentences in sections.items():
        lines += [f"## {title}", "", *(f"- {sentence}" for sentence in sentences), ""]
    return "\n".join(lines)


def insights_chapter(markdown: str) -> Chapter:
    """Return the page of :func:`insights_markdown` as a chapter of the report.

    A line that is no item of a list, as of a page that somebody has edited, stays as it is.
    """
    lines: list[str] = []
    parts: list[tuple[str, list[str]]] = []
    for line in filter(str.strip, markdown.splitlines()):
        if line.startswith("## "):
            parts.append((line.removeprefix("## "), []))
        elif not line.startswith("# "):
            section = parts[-1][1] if parts else lines
            section.append(line.removeprefix("- "))
    return Chapter("Insights", lines, [Sentences(*part) for part in parts])


def sentence(line: str) -> str:
    """Return a line as a sentence."""
    return f"{line[0].upper()}{line[1:].rstrip('.')}."


def _operators(found: Observations) -> list[str]:
    pools = _pools(found.ranking)
    counts = Counter(row.verdict for row in pools)
    said = ", ".join(f"{counts[v]} {v}" for v in _VERDICTS if counts[v])
    statistics = len({row.statistic for row in pools} - {None})
    lines = [f"Of {len(pools)} pools of {statistics} statistics: {said} (ranking.csv)."]
    for verdict, pick in (("better", max), ("worse", min)):
        decided = [row for row in pools if row.verdict == verdict]
        if decided:
            row = pick(decided, key=lambda row: row.change)
            lines.append(f"The most {verdict}: {row.pool}, {_interval(row, found.unit)}.")
    for modality in sorted(set(found.modality.values())):
        own = [r for r in pools if found.modality.get(r.statistic or "") == modality]
        decided = [row for row in own if row.verdict in ("better", "worse")]
        if own:
            names = ", ".join(sorted({row.statistic or "" for row in decided})) or "none"
            lines.append(
                f"Operators on {modality}: {len(decided)} of {len(own)} pools were decided "
                f"(statistics: {names})."
            )
    if not counts["better"]:
        lines.append("No pool was called better than the controls.")
    return lines


def _confirmation(found: Observations) -> list[str]:
    if not found.confirmed:
        return ["No pool was trained a second time."]
    unit = found.unit
    return [
        f"{row.pool}: first {unit.text(row.first)} {unit}, confirmed {unit.text(row.confirmed)} "
        f"{unit} {_bounds(row.low, row.high, unit)}: {row.verdict} (confirmation.csv)."
        for row in found.confirmed
    ]


def _combinations(found: Observations) -> list[str]:
    if not found.combined:
        return ["No combination of pools was trained."]
    unit = found.unit
    rows = [row for row in _pools(found.combined) if math.isfinite(row.change)]
    singles = [row for row in rows if "&" not in row.pool]
    joined = [row for row in rows if "&" in row.pool]
    lines = [
        f"At one size, {row.pool}: {_interval(row, unit)}, {row.verdict} (combination_ranking.csv)."
        for row in sorted(rows, key=lambda row: -row.change)
    ]
    if singles and joined:
        best = max(joined, key=lambda row: row.change)
        single = max(singles, key=lambda row: row.change)
        if best.low > single.high:
            word = "beats the best single pool: their intervals do not overlap"
        elif best.high < single.low:
            word = "is worse than the best single pool: their intervals do not overlap"
        else:
            word = "cannot be told from the best single pool by their intervals alone"
        lines.append(f"The best combination, {best.pool}, {word} ({single.pool}).")
    interactions = [row for row in found.interactions if row.kind == "interaction"]
    for row in interactions:
        lines.append(
            f"Together, {row.parts} give {unit.text(row.effect)} {unit} "
            f"{_bounds(row.low, row.high, unit)} {beyond(row)}: {row.verdict} (interactions.csv)."
        )
    held = [row for row in found.surrogate if row.held_out and math.isfinite(row.measured)]
    if held:
        inside = sum(row.low <= row.measured <= row.high for row in held)
        lines.append(
            f"A model of main and pairwise effects foretells {inside} of {len(held)} combinations "
            "that it did not see within its interval (surrogate.csv)."
        )
    return lines


def _orthogonality(found: Observations) -> list[str]:
    known = {pair: r for pair, r in found.correlations.items() if math.isfinite(r)}
    if not known:
        return ["The correlation of statistics was not computed, or there is only one."]
    tied = sorted(
        ((pair, r) for pair, r in known.items() if abs(r) >= _LOOSE), key=lambda item: -abs(item[1])
    )
    lines = [f"{a} and {b} correlate: r = {r:+.2f}." for (a, b), r in tied]
    rest = len(known) - len(tied)
    lines.append(f"{rest} of {len(known)} pairs of statistics have |r| below {_LOOSE:g}.")
    return lines


def _diversity(found: Observations) -> list[str]:
    # Self-tests are no pools of anybody's, and the parts of one statistic depend on each other.
    groups = {row.pool: row.statistic or row.pool for row in _pools(found.ranking)}
    lines = []
    for measure in dict.fromkeys(row.measure for row in found.diversity):
        rows = [r for r in found.diversity if r.measure == measure and r.pool in groups]
        judged = [r for r in rows if math.isfinite(r.change)]
        known = [r for r in judged if math.isfinite(r.value)]
        left_out = [
            f"{count} without {what}"
            for count, what in (
                (len(rows) - len(judged), "an effect"),
                (len(judged) - len(known), "a value"),
            )
            if count
        ]
        missing = f" Pools left out: {', '.join(left_out)}." if left_out else ""
        lines.append(f"{measure}: {_association(known, groups)} (diversity.csv).{missing}")
    return lines or ["The diversity of pools was not measured."]


def _association(rows: Sequence[DiversityRow], groups: Mapping[str, str]) -> str:
    own = [groups[row.pool] for row in rows]
    over = f"{len(rows)} pools ({len(set(own))} independent: the parts of a statistic count once)"
    if len(set(own)) < MIN_POINTS:
        return f"{over} are too few to relate it to the effect; {MIN_POINTS} independent are needed"
    result = rank_correlation([row.value for row in rows], [row.change for row in rows], own)
    if result is None:
        return f"it, or the effect, is the same in all of {over}"
    if result.low > 0:
        word = "more varied pools did better"
    elif result.high < 0:
        word = "more varied pools did worse"
    else:
        word = "no relation to the effect beyond chance"
    return (
        f"Spearman's rho with the effect over {over} is {result.rho:+.2f} "
        f"[{result.low:+.2f}, {result.high:+.2f}]: {word}"
    )


def _repetition(found: Observations) -> list[str]:
    if not found.repetition:
        return ["Repetition was not studied."]
    unit, lines = found.unit, []
    for factor in sorted({row.factor for row in found.repetition}):
        at = {row.strategy: row for row in found.repetition if row.factor == factor}
        said = ", ".join(
            f"{name} {unit.text(row.effect)} {unit} {_bounds(row.low, row.high, unit)}"
            for name, row in at.items()
            if name != BASELINE
        )
        samples = next(iter(at.values())).samples
        if said:
            lines.append(
                f"At {samples} samples seen (x{factor}), against as many of random rows: {said} "
                "(repetition.csv)."
            )
    return lines


def _open(found: Observations) -> list[str]:
    lines = [
        *map(sentence, found.caveats),
        *(f"{item.statistic} was not testable: {item.reason}." for item in found.not_testable),
    ]
    for verdict, word in (
        ("undecided", "Undecided: their intervals hold 0"),
        ("stopped", "Given up early, without a verdict"),
        ("failed", "Failed"),
    ):
        names = [row.pool for row in _pools(found.ranking) if row.verdict == verdict]
        if names:
            lines.append(f"{word}: {', '.join(names)}.")
    widths = [row.high - row.change for row in _pools(found.ranking) if math.isfinite(row.high)]
    if widths:
        lines.append(
            f"Intervals reach about {found.unit.size(float(np.median(widths)))} to each side: a "
            "pool with just that effect is called better in half of all studies."
        )
    return lines or ["Everything was decided."]


def _pools(rows: Iterable[RankingRow]) -> list[RankingRow]:
    return [row for row in rows if row.kind is PoolKind.BUCKET]


def _interval(row: RankingRow, unit: Unit) -> str:
    return f"{unit.text(row.change)} {unit} {_bounds(row.low, row.high, unit)}"


def _bounds(low: float, high: float, unit: Unit) -> str:
    return f"[{unit.text(low)}, {unit.text(high)}]"

"""The answer of a run: what to keep, what that is worth, how sure it is, and what to do next.

It stands on the pool that a recipe would stand on (:func:`.winner.winner`); where there is none,
on what came nearest to it.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from djsandbox_ray.analysis.planning.noise import NoiseFloor
from djsandbox_ray.analysis.together.winner import winner
from djsandbox_ray.evaluation.metric import Metric
from djsandbox_ray.records import ConfirmationRow, Pool, PoolKind, Range, RankingRow
from djsandbox_ray.reporting.blocks import ReportTable
from djsandbox_ray.reporting.ranking import NOTHING, Unit, notes, tally

_METRICS = 3
"""Of the score's metrics, so many are named in a sentence."""

Lines = tuple[tuple[str, str], ...]
"""Sentences, each with the word that says what it is about: keep, worth, sure, next."""


class Certainty(StrEnum):
    """How sure it is that a pool is better."""

    UNTRUSTED = "a self-test failed"
    CONFIRMED = "confirmed"
    UNCONFIRMED = "not confirmed"
    """It was called better, and was not when it was looked at again."""
    ONCE = "seen once"
    NOTHING = "nothing found"


@dataclass(frozen=True)
class Conclusion:
    """What the verdicts of a run come to."""

    certainty: Certainty
    pool: str = ""
    """The pool that it is about; empty for none."""
    ranges: tuple[Range, ...] = ()
    """What that pool stands for, open where nothing lies beyond; none for a pool that is no part of
    statistics."""
    change: float = math.nan
    """As the last study measured it that had no part in the choice, where there is one."""
    low: float = math.nan
    high: float = math.nan
    first: float = math.nan
    """The change that the pool was chosen by, where it is another one."""
    alone: tuple[ConfirmationRow, ...] = ()
    """Single pools that are confirmed, where the pool itself is not, best first."""
    hurts: RankingRow | None = None
    """The pool that was called worse by most."""
    carried_by: str | None = None
    """The metric without which the pool's verdict would not stand."""
    confirmed_statistics: int = 0
    """How many statistics have a pool that is confirmed: with several, they may be combined."""

    def worth(self, unit: Unit) -> str:
        """Return the change and its interval as text."""
        between = unit.between(self.low, self.high)
        return f"{unit.text(self.change)} {unit}" + (
            "" if between == NOTHING else f" [{between.replace(' .. ', ', ')}]"
        )

    @property
    def kept(self) -> str:
        """What is to be kept, in the units of the statistics."""
        said = " and ".join(range_text(item) for item in self.ranges)
        return f"samples with {said}" if said else f"the rows of the pool {self.pool}"


def conclude(
    rows: Sequence[RankingRow],
    confirmed: Sequence[ConfirmationRow] | None,
    pools: Mapping[str, Pool],
    *,
    combined: Sequence[RankingRow] = (),
    combinations: Sequence[Pool] = (),
) -> Conclusion:
    """Return what the verdicts come to.

    Args:
        rows: the ranking of single operators.
        confirmed: the second look at the best; None where there was none.
        pools: those of single operators, by id.
        combined: the ranking of combinations.
        combinations: their pools.
    """
    buckets = [row for row in rows if row.kind is PoolKind.BUCKET]
    worse = [row for row in buckets if row.verdict == "worse"]
    hurts = min(worse, key=lambda row: row.change, default=None)
    if any(row.self_test_failed for row in (*rows, *combined)):
        return Conclusion(Certainty.UNTRUSTED)
    refused = [pool.id for pool in (*pools.values(), *combinations) if pool.breaks]
    found = winner(rows, confirmed, combined, combinations, refused)
    looks = {row.pool: row for row in confirmed or ()}
    against = {name for name, look in looks.items() if look.verdict == "worse"}
    better = [
        row
        for row in buckets
        if row.verdict == "better" and row.pool not in refused and row.pool not in against
    ]
    if found is not None:
        name, parts = found.pool, found.parts
    elif better:
        name = max(better, key=lambda row: row.change).pool
        parts = (name,)
    else:
        return Conclusion(Certainty.NOTHING, hurts=hurts)
    again = [row for row in looks.values() if row.verdict == "better"]
    first = next((row for row in (*combined, *rows) if row.pool == name), None)
    ranges = tuple(
        bucket_range(pools[part], pools)
        for part in parts
        if part in pools and pools[part].statistic is not None
    )
    change = first.change if first else math.nan
    look = looks.get(name)
    if look is None or not math.isfinite(look.confirmed):
        ends = (first.low, first.high) if first else (math.nan, math.nan)
        certainty, numbers = Certainty.ONCE, (change, *ends, math.nan)
    else:
        is_better = look.verdict == "better"
        certainty = Certainty.CONFIRMED if is_better else Certainty.UNCONFIRMED
        numbers = (look.confirmed, look.low, look.high, look.first)
    return Conclusion(
        certainty,
        name,
        ranges if len(ranges) == len(parts) else (),
        *numbers,
        alone=()
        if certainty is Certainty.CONFIRMED
        else tuple(sorted(again, key=lambda row: -row.confirmed)),
        hurts=hurts,
        carried_by=first.carried_by if first else None,
        confirmed_statistics=len({pools[row.pool].statistic for row in again if row.pool in pools}),
    )


def bucket_range(pool: Pool, pools: Sequence[Pool] | Mapping[str, Pool]) -> Range:
    """Return the values that a bucket stands for: the outermost ones are open to their side.

    Args:
        pool: a bucket of a statistic.
        pools: all pools of its study.
    """
    members = pools.values() if isinstance(pools, Mapping) else pools
    codes = [other.code for other in members if other.statistic == pool.statistic]
    low = None if pool.code == min(codes, default=0) else pool.low
    high = None if pool.code == max(codes, default=0) else pool.high
    return Range(str(pool.statistic), low, high)


def range_text(item: Range) -> str:
    """Return a range in words: ``text_len from 10 to 64``, ``text_len of 10 or more``."""
    if item.low is None and item.high is None:
        return f"any {item.statistic}"
    if item.high is None:
        return f"{item.statistic} of {item.low:.6g} or more"
    if item.low is None:
        return f"{item.statistic} of {item.high:.6g} or less"
    return f"{item.statistic} from {item.low:.6g} to {item.high:.6g}"


@dataclass(frozen=True)
class Measured:
    """A metric of the score: what the pool got, and what is to be held against it."""

    metric: Metric
    pool: float
    controls: float
    """Mean over the completed control trials of the same study; NaN where that is not known."""

    @property
    def text(self) -> str:
        """In words."""
        chance = self.metric.chance
        beside = f", chance {chance:.4g}" if chance is not None else ""
        arrow = " (less is better)" if self.metric.better == "less" else ""
        controls = _number(self.controls)
        return f"{self.metric.name}{arrow} {self.pool:.4g} (controls {controls}{beside})"


def metrics_section(measured: Sequence[Measured]) -> ReportTable:
    """Set what the pool got beside what controls got and what chance gets, metric by metric."""
    columns = {
        "metric": [one.metric.shown for one in measured],
        "this pool": [f"{one.pool:.4g}" for one in measured],
        "controls": [_number(one.controls) for one in measured],
    }
    if any(one.metric.chance is not None for one in measured):
        columns["chance"] = [_number(one.metric.chance) for one in measured]
    body = [*zip(*columns.values(), strict=True)]
    numbers = range(1, len(columns))
    return ReportTable("In the score's own terms", [*columns], body, numbers)


@dataclass(frozen=True)
class Share:
    """How much of the data is kept."""

    rows: int
    of: int

    @property
    def text(self) -> str:
        """In words."""
        part = 100 * self.rows / self.of if self.of else 0.0
        return f"{part:.1f} % of the data ({self.rows:,} of {self.of:,} samples)"


@dataclass(frozen=True)
class RunPlace:
    """Where a run lies, as commands need it."""

    run: str
    storage: str
    """As it may be shown."""
    has_combined: bool = False
    """Whether combinations were looked at."""

    def command(self, *words: str) -> str:
        """Return a command on the run."""
        default = self.storage in ("./sandbox", "sandbox")
        more = () if default else ("--storage", self.storage)
        return shlex.join(["djsandbox", *words, *more])

    def again(self, setting: str) -> str:
        """Return the command that goes on with the run, with a setting changed."""
        config = f"{self.storage}/runs/{self.run}/config.yaml"
        return shlex.join(["djsandbox", "run", config, "--set", setting])


def answer_lines(
    found: Conclusion,
    unit: Unit,
    place: RunPlace,
    *,
    confidence: float,
    share: Share | None = None,
    measured: Sequence[Measured] = (),
    floor: NoiseFloor | None = None,
) -> Lines:
    """Return the answer in sentences.

    Args:
        found: what the verdicts come to.
        unit: what changes are measured in.
        place: where the run lies.
        confidence: of the intervals, such as 0.95.
        share: how much of the data would be kept.
        measured: the metrics of the score.
        floor: what the study could see.
    """
    if found.certainty is Certainty.UNTRUSTED:
        return (
            ("keep", "Nothing on the word of this run: one of its self-tests failed."),
            ("sure", "Not at all, before the reason is found; the ranking says which test it was."),
            ("next", f"look closer at what a study of this size can see: {_power(place)}"),
        )
    lines = [("keep", _keep(found, share)), ("worth", _worth(found, unit, measured, floor))]
    lines += [("sure", _sure(found, unit, confidence))]
    if found.hurts is not None:
        lines.append(("hurts", _hurts(found.hurts, unit)))
    steps = _steps(found, place, floor)
    return (*lines, *(("next", f"{why}: {command}") for why, command in steps))


def summary_line(
    name: str,
    rows: Sequence[RankingRow],
    confirmed: Sequence[ConfirmationRow],
    pools: Mapping[str, Pool],
    unit: Unit,
) -> str:
    """Say in one line what to keep, what that is worth, how sure it is, and how the others did.

    It is for a chat, a log, a commit message.

    Args:
        name: of the run.
        rows: the ranking of single operators.
        confirmed: the second look at the best; empty where there was none.
        pools: by id, for what the best one keeps.
        unit: what changes are measured in.
    """
    if any(row.self_test_failed for row in rows):  # then nothing is promised
        return f"{name}: {notes(rows)[0]}"
    found = conclude(rows, confirmed or None, pools)
    return f"{name}: {_clause(found, unit)}. {tally(rows)}"


def _clause(found: Conclusion, unit: Unit) -> str:
    if found.certainty is Certainty.NOTHING:
        return "no pool is better than random data of the same size"
    sure = {
        Certainty.CONFIRMED: "confirmed with fresh seeds",
        Certainty.UNCONFIRMED: "not confirmed by the second look",
        Certainty.ONCE: "seen once",
    }[found.certainty]
    perhaps = "" if found.certainty is Certainty.CONFIRMED else "perhaps "
    ranges = f" ({' and '.join(map(range_text, found.ranges))})" if found.ranges else ""
    return f"{perhaps}keep {found.pool}{ranges}: {found.worth(unit)}, {sure}"


def _number(value: float | None) -> str:
    return NOTHING if value is None or math.isnan(value) else f"{value:.4g}"


def _keep(found: Conclusion, share: Share | None) -> str:
    if found.certainty is Certainty.NOTHING:
        return "All of it, as far as this run can tell: no pool is better than random data."
    word = "Keep" if found.certainty is Certainty.CONFIRMED else "Perhaps keep"
    of = f": {share.text}" if share else ""
    return f"{word} {found.kept}{of}. That is the pool {found.pool}."


def _worth(
    found: Conclusion, unit: Unit, measured: Sequence[Measured], floor: NoiseFloor | None
) -> str:
    if found.certainty is Certainty.NOTHING:
        if floor is None:
            return "Nothing that could be told from chance."
        return (
            f"A pool that is {unit.size(floor.detectable.value)} better would have been found with "
            "80 % probability; less than that may be there."
        )
    said = (
        f"{found.worth(unit)} against training on as many random samples"
        f"{' (in standard deviations of the controls)' if unit is Unit.SD else ''}"
    )
    if math.isfinite(found.first):
        said += f"; {unit.text(found.first)} {unit} when it was chosen"
    if measured:
        named = "; ".join(one.text for one in measured[:_METRICS])
        rest = len(measured) - _METRICS
        more = f"; and {rest} more" if rest > 0 else ""
        said += f". In the score's own terms: {named}{more}"
    return f"{said}."


def _sure(found: Conclusion, unit: Unit, confidence: float) -> str:
    said = {
        Certainty.CONFIRMED: (
            "Confirmed: better again with fresh seeds beside fresh controls. The interval holds "
            f"with {100 * confidence:g} % for all pools together that were looked at again"
        ),
        Certainty.UNCONFIRMED: (
            "Not confirmed: it was called better once, and with fresh seeds it was not. The best "
            "of many looks better than it is"
        ),
        Certainty.ONCE: (
            "Seen once, not looked at again: the best of many looks better than it is"
        ),
        Certainty.NOTHING: (
            f"With {100 * confidence:g} %, no pool is called better where none is; that none was "
            "does not mean that none is"
        ),
    }[found.certainty]
    if found.carried_by:
        said += f". It hangs on one metric, {found.carried_by}, without which it would not stand"
    if found.alone:
        row = found.alone[0]
        between = unit.between(row.low, row.high).replace(" .. ", ", ")
        said += (
            f". What is confirmed is {row.pool} alone: {unit.text(row.confirmed)} {unit} "
            f"[{between}]"
        )
    return f"{said}."


def _hurts(row: RankingRow, unit: Unit) -> str:
    between = unit.between(row.low, row.high).replace(" .. ", ", ")
    return f"{row.pool} hurts most: {unit.text(row.change)} {unit} [{between}], seen once."


def _steps(found: Conclusion, place: RunPlace, floor: NoiseFloor | None) -> list[tuple[str, str]]:
    """Return what to do next, the nearest first: why, and the command."""
    if found.certainty is Certainty.NOTHING:
        return [_more_seeds(place, floor), ("see what each design would find", _power(place))]
    if found.certainty is Certainty.UNCONFIRMED:
        return [_more_seeds(place, floor)]
    steps = []
    if found.certainty is Certainty.ONCE and not place.has_combined:
        steps.append(("look again with fresh seeds", place.again("confirm.top=3")))
    if found.ranges:
        why = "the recipe for Data-Juicer"
        steps.append((why, place.command("recipe", place.run)))
    else:
        why = "write its rows to files"
        folder = f"{place.run}-kept"
        steps.append((why, place.command("materialise", place.run, found.pool, "--output", folder)))
    if found.confirmed_statistics > 1 and not place.has_combined:
        steps.append(("combine what is confirmed", place.again("workflow=multi_op")))
    return steps


def _more_seeds(place: RunPlace, floor: NoiseFloor | None) -> tuple[str, str]:
    """Say how many seeds find half of what these find, or twice as many where nobody knows."""
    seeds = 6 if floor is None else 2 * floor.design.seeds
    why = "more seeds see smaller effects"
    if floor is not None and floor.detectable.value > 0:
        needed = floor.seeds_for(floor.detectable.value / 2)
        if needed is None:
            more = 2 * floor.design.controls
            return "seeds alone will not do; more control arms", place.again(
                f"pools.controls={more}"
            )
        seeds, why = max(needed, floor.design.seeds + 1), "seeds that find effects half as large"
    return why, place.again(f"trials.seeds={seeds}")


def _power(place: RunPlace) -> str:
    config = f"{place.storage}/runs/{place.run}/config.yaml"
    return shlex.join(["djsandbox", "plan", config, "--power"])

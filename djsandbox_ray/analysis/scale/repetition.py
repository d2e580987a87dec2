"""Whether more repetitions still pay, and what they cost against new rows.

:class:`Fillings` are the strategies that fill a longer training ("repeat" the pool, "expand" it by
new rows, or "random" rows) at several factors: their table of effects, and what it says.

A difference of two cells (a strategy at a factor) is compared with the scatter of seeds within
these two alone, by Welch's test: longer trainings scatter more, and repeated rows of a small draw
more than new ones of a large one, so that no cell says much about another. A seed gives two
trainings little in common, and where it does, this is on the safe side. All differences of one
question hold together (Bonferroni).

Steps of "repeat" are between trainings on one pool: which rows it has is in both. New rows are
compared with repeated ones of *one* pool, whose luck no seed averages away: the interval is wider
by the most that this luck can be.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.analysis.scale.effective_data import DataLaw, fit_data_law
from djsandbox_ray.analysis.scale.fitting import CONFIDENCE, NoLaw, error_of, seed_interval
from djsandbox_ray.analysis.verdicts.grid import Key
from djsandbox_ray.analysis.verdicts.scores import Yardstick
from djsandbox_ray.evaluation.metric import ScoreMetrics
from djsandbox_ray.records import Pools, RepetitionRow

Floats = NDArray[np.float64]

FILLINGS = ("repeat", "expand", "random")
BASELINE = "random"
"""What the others are compared with: as many samples of rows that nothing has chosen."""


@dataclass(frozen=True, eq=False)
class Fillings:
    """What the trainings of all strategies measured."""

    unit: int
    """Rows of a draw from the top pool."""
    draw_share: float
    """These over the rows of the top pool."""
    bucket_share: float
    """Rows of the top pool over those that pools are made of."""
    factors: tuple[int, ...]
    """Rising."""
    rows: Mapping[str, Sequence[int]]
    """Per strategy, different rows seen at every factor."""
    scores: Mapping[str, Floats]
    """Per strategy, changes against the controls of the single-operator stage, (factors, seeds);
    NaN without a result. These controls were trained for longer or shorter: only differences of
    scores mean anything."""
    errors: Mapping[str, Floats]
    """The same as errors (see :func:`.fitting.error_of`); NaN also where a metric has none."""

    @classmethod
    def of(
        cls,
        unit: int,
        pools: Pools,
        rows: Mapping[str, Mapping[int, int]],
        measured: Mapping[Key, Mapping[str, float]],
        seeds: Sequence[int],
        yardstick: Yardstick,
        score: ScoreMetrics | None = None,
    ) -> Fillings:
        """Arrange the final metrics of the completed trials.

        Args:
            unit: rows of a draw from the top pool.
            pools: of the study, as large as the top pool.
            rows: per strategy and factor, different rows seen.
            measured: metrics by pool (``<strategy>/x<factor>``) and seed.
            seeds: of the trials.
            yardstick: the unit of the changes.
            score: what is known of its metrics; by default that all are better when greater.
        """
        errors = ScoreMetrics(yardstick.metrics, score.known if score else ())
        factors = tuple(sorted(rows[FILLINGS[0]]))

        def table(value: Any) -> dict[str, Floats]:
            return {
                name: np.array(
                    [
                        [
                            value(measured[key]) if key in measured else math.nan
                            for key in ((f"{name}/x{factor}", seed) for seed in seeds)
                        ]
                        for factor in factors
                    ]
                )
                for name in FILLINGS
            }

        return cls(
            unit,
            unit / pools.size,
            pools.size / pools.eligible,
            factors,
            {name: [rows[name][factor] for factor in factors] for name in FILLINGS},
            table(yardstick.change),
            table(lambda metrics: error_of(metrics, errors)),
        )

    def table(self) -> list[RepetitionRow]:
        """Return one row per strategy and factor, each against random rows of the same seeds."""
        found = []
        for name in FILLINGS:
            changes = self.scores[name] - self.scores[BASELINE]
            table = zip(self.factors, self.rows[name], changes, self.scores[name], strict=True)
            for factor, rows, change, scores in table:
                effect, low, high = seed_interval(change)
                if name == BASELINE:  # against itself: nothing that an interval could be about
                    low = high = math.nan
                found.append(
                    RepetitionRow(
                        name,
                        factor,
                        factor * self.unit,
                        rows,
                        effect,
                        low,
                        high,
                        seeds=int(np.isfinite(change).sum()),
                        score=seed_interval(scores)[0],
                    )
                )
        return found

    def law(self) -> DataLaw | NoLaw:
        """Fit the law of effective data to "repeat" and "expand"."""
        known = [(self.scores[name], self.errors[name]) for name in FILLINGS]
        if any((np.isfinite(scores) & np.isnan(errors)).any() for scores, errors in known):
            return NoLaw("a metric of the score lies outside [0, 1]: 1 - its mean is no error")
        cells = {
            name: [(rows, f * self.unit) for f, rows in zip(self.factors, own, strict=True)]
            for name, own in self.rows.items()
        }
        return fit_data_law(cells, self.errors)

    def findings(self) -> dict[str, Any]:
        """Return plain data: where repetition stops paying, what it costs, and the law."""
        law, pays = self.law(), paying(self.factors, self.scores["repeat"])
        new = against_new_rows(
            self.factors,
            self.scores["expand"],
            self.scores["repeat"],
            self.draw_share,
            self.bucket_share,
        )
        return {
            "unit": self.unit,
            "sentences": [pays.statement, *_sentences(new, law), *self._caveats(law)],
            "paying": asdict(pays),
            "against_new_rows": [asdict(difference) for difference in new],
            "formula": "error = E + B / D'^beta, D' = U + U R* (1 - exp(-R / R*)), R = D / U - 1",
            "source": "Muennighoff et al. 2023, arXiv 2305.16264",
            "law": None if isinstance(law, NoLaw) else asdict(law),
            "reason": law.reason if isinstance(law, NoLaw) else None,
        }

    def _caveats(self, law: DataLaw | NoLaw) -> list[str]:
        """Say what the intervals hold for."""
        own = "steps and effects against random rows hold"
        if not isinstance(law, NoLaw):
            own = f"the law, {own}"
        if self.draw_share == 1:
            new = (
                "every seed repeats the whole pool, and says nothing of other rows: new rows "
                "cannot be compared with repeated ones"
            )
        else:
            new = "new rows against repeated ones: that holds for other rows of the same kind, too"
        return [
            f"intervals are over seeds, none of which chose the pool: {own} for its rows, which "
            "were chosen for their effect",
            new,
        ]


def _sentences(new: Sequence[Difference], law: DataLaw | NoLaw) -> list[str]:
    """Say what new rows have over repeated ones, and what the law makes of it."""
    lines = []
    for verdict, word in (("better", "more"), ("worse", "less")):
        names = [found.of.split()[-1] for found in new if found.verdict == verdict]
        if names:
            lines.append(f"new rows are worth {word} than repeated ones at {', '.join(names)}")
    undecided = [found.of.split()[-1] for found in new if found.verdict == "undecided"]
    if undecided:
        lines.append(f"new rows and repeated ones are not told apart at {', '.join(undecided)}")
    if isinstance(law, NoLaw):
        return [*lines, f"no law of effective data: {law.reason}"]
    life = law.half_life
    low, high = ("unbounded" if end is None else f"{end:.3g}" for end in (life.low, life.high))
    return [*lines, f"repetitions decay with R* = {life.value:.3g} [{low}, {high}]"]


@dataclass(frozen=True)
class Difference:
    """One cell against another."""

    of: str
    """What is compared: ``repeat x4``."""
    against: str
    value: float | None
    """In the unit of the ranking; None where one of both has no result."""
    low: float | None
    high: float | None
    """Simultaneous interval over the differences of one question; None with one seed, and where
    seeds say nothing of other rows."""
    verdict: str
    """better, worse or undecided: whether the interval excludes 0."""


@dataclass(frozen=True)
class Paying:
    """Where repetition stops paying."""

    factor: int | None
    """The largest one whose gain over the one before is beyond noise, none before it being worse
    than the one before; None: no gain is."""
    statement: str
    steps: tuple[Difference, ...]
    """Every factor of "repeat" against the one before it."""


def paying(factors: Sequence[int], scores: Floats) -> Paying:
    """Say up to which factor repetition pays: as far as a step is better, until one is worse.

    Args:
        factors: rising.
        scores: of "repeat", (factors, seeds), NaN where a trial has no result.
    """
    names = [f"repeat x{factor}" for factor in factors]
    steps = _differences(names[1:], names[:-1], scores[1:], scores[:-1], np.zeros(len(names) - 1))
    falls = next((i for i, step in enumerate(steps) if step.verdict == "worse"), len(steps))
    gains = [i for i, step in enumerate(steps[:falls]) if step.verdict == "better"]
    last = factors[gains[-1] + 1] if gains else None
    return Paying(last, _statement(factors, steps, last, falls), steps)


def against_new_rows(
    factors: Sequence[int], expand: Floats, repeat: Floats, draw_share: float, bucket_share: float
) -> list[Difference]:
    """Return what "expand" has over "repeat" at equal samples seen, factor by factor.

    The intervals are of pools of the same kind, not of the rows that this top pool happens to have.
    With the factor f, "expand" draws from f times as many rows, the top pool's n among them. The
    means over both pools differ by chance with the variance S^2 (1/n - 1/(f n)), S^2 that of single
    rows and f at most 1/bucket_share; draws of d n rows vary within the top pool by at least S^2
    (1 - d)/(d n). So the luck of the pool is at most d (1 - 1/f)/(1 - d) times the variance within
    the cell of "repeat", as in :attr:`~djsandbox_ray.analysis.verdicts.design.Design.bucket_bound`.

    Args:
        factors: rising.
        expand: scores, (factors, seeds), NaN where a trial has no result.
        repeat: the same.
        draw_share: size of a draw over that of the top pool, in (0, 1]. With 1, all seeds repeat
            the same rows and say nothing of others: there are no intervals beyond the factor 1.
        bucket_share: size of the top pool over the number of rows that there are, in (0, 1].
    """
    new, again = ([f"{name} x{factor}" for factor in factors] for name in ("expand", "repeat"))
    share = 1 - np.maximum(1 / np.array(factors, dtype=np.float64), bucket_share)
    most = draw_share / (1 - draw_share) if draw_share < 1 else math.inf
    luck = np.array([most * part if part > 0 else 0.0 for part in share.tolist()])
    return list(_differences(new, again, expand, repeat, luck))


def _differences(
    names: Sequence[str], others: Sequence[str], of: Floats, against: Floats, luck: Floats
) -> tuple[Difference, ...]:
    """Compare cells row by row.

    Args:
        names: of the cells.
        others: of those that they are compared with.
        of: scores, (cells, seeds).
        against: the same of the others.
        luck: (cells,): variance that seeds do not show, in that within the other cell, at most.
    """
    level = 1 - (1 - CONFIDENCE) / (2 * max(len(of), 1))
    found = []
    for name, other, mine, theirs, more in zip(names, others, of, against, luck, strict=True):
        here, there = _there(mine), _there(theirs)
        if not (len(here) and len(there)):
            found.append(Difference(name, other, None, None, None, "undecided"))
            continue
        value = float(here.mean() - there.mean())
        half = _half_width(here, there, float(more), level)
        if half is None:
            found.append(Difference(name, other, value, None, None, "undecided"))
            continue
        verdict = "undecided" if abs(value) <= half else "better" if value > 0 else "worse"
        found.append(Difference(name, other, value, value - half, value + half, verdict))
    return tuple(found)


def _half_width(here: Floats, there: Floats, luck: float, level: float) -> float | None:
    """Return that of Welch's interval (Biometrika 34:28, 1947); None where it is unbounded."""
    from scipy import stats

    if min(len(here), len(there)) < 2 or math.isinf(luck):
        return None
    mine, theirs = here.var(ddof=1) / len(here), there.var(ddof=1) / len(there)
    if mine + theirs == 0:  # trials that repeat each other to the last digit
        return 0.0
    lucky = theirs * (1 + luck * len(there))

    def freedom(other: float) -> float:
        """Satterthwaite's."""
        squares = mine**2 / (len(here) - 1) + other**2 / (len(there) - 1)
        return float((mine + other) ** 2 / squares)

    # More variance on the quieter side would raise it: luck must not make an interval narrower.
    factor = stats.t.ppf(level, min(freedom(theirs), freedom(lucky)))
    return float(factor * math.sqrt(mine + lucky))


def _there(values: Floats) -> Floats:
    return values[np.isfinite(values)]


def _statement(
    factors: Sequence[int], steps: Sequence[Difference], last: int | None, falls: int
) -> str:
    if len(factors) < 2:
        return "one factor only: there is nothing to compare"
    if all(step.low is None for step in steps):
        return "undecided: without two results of a seed each, a gain is not told from noise"
    if falls < len(steps):
        beyond = f"{steps[falls].of} is worse than {steps[falls].against}"
        again = [step.of for step in steps[falls:] if step.verdict == "better"]
        if again:
            beyond += (
                f"; that {', '.join(again)} is better again than the one before counts no more"
            )
        return (
            f"repetition does not pay: {beyond}"
            if last is None
            else f"repetition pays up to x{last}; {beyond}"
        )
    if last is None:
        return "undecided: no step is a gain or a loss beyond noise"
    if last == factors[-1]:
        return f"repetition still pays at x{last}, the largest factor tried"
    return f"repetition pays up to x{last}; whether it does beyond that is undecided"

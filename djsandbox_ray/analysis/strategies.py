"""Three ways to fill a training, at several factors: the table of effects, and what it says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.analysis.curve_fit import NoLaw
from djsandbox_ray.analysis.effective_data import DataLaw, fit_data_law
from djsandbox_ray.analysis.grid import Key
from djsandbox_ray.analysis.repetition import Difference, against_new_rows, paying
from djsandbox_ray.analysis.seed_bootstrap import error_of, seed_interval
from djsandbox_ray.analysis.yardstick import Yardstick
from djsandbox_ray.records import Pools, RepetitionRow

Floats = NDArray[np.float64]

STRATEGIES = ("repeat", "expand", "random")
BASELINE = "random"
"""What the others are compared with: as many samples of rows that nothing has chosen."""


@dataclass(frozen=True, eq=False)
class Strategies:
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
    """The same as errors, 1 - mean of the metrics; NaN also where a metric is outside [0, 1]."""

    @classmethod
    def of(
        cls,
        unit: int,
        pools: Pools,
        rows: Mapping[str, Mapping[int, int]],
        measured: Mapping[Key, Mapping[str, float]],
        seeds: Sequence[int],
        yardstick: Yardstick,
    ) -> Strategies:
        """Arrange the final metrics of the completed trials.

        Args:
            unit: rows of a draw from the top pool.
            pools: of the study, as large as the top pool.
            rows: per strategy and factor, different rows seen.
            measured: metrics by pool (``<strategy>/x<factor>``) and seed.
            seeds: of the trials.
            yardstick: the unit of the changes.
        """
        factors = tuple(sorted(rows[STRATEGIES[0]]))

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
                for name in STRATEGIES
            }

        return cls(
            unit,
            unit / pools.size,
            pools.size / pools.eligible,
            factors,
            {name: [rows[name][factor] for factor in factors] for name in STRATEGIES},
            table(yardstick.change),
            table(lambda metrics: error_of(metrics, yardstick.metrics)),
        )

    def table(self) -> list[RepetitionRow]:
        """Return one row per strategy and factor, each against random rows of the same seeds."""
        found = []
        for name in STRATEGIES:
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
        known = [(self.scores[name], self.errors[name]) for name in STRATEGIES]
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

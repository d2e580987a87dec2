"""What the trials say."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from djsandbox_ray.records.data import PoolKind


class Aggregate(StrEnum):
    """How the changes of several metrics become one number."""

    POOLED = "pooled"
    """sum(s - s') / sum(s'): Eq. 1 of "Data-Juicer Sandbox" (arXiv 2407.11784). Metrics with large
    values dominate."""
    MEAN_RELATIVE = "mean_relative"
    """mean((s - s') / s'): what the published Table 9 of that paper holds."""
    STANDARDIZED = "standardized"
    """mean((s - s') / noise), in standard deviations of the control trials: metrics count by how
    well they are measured, not by their unit."""
    WEIGHTED = "weighted"
    """sum(w (s - s')) / sum(w s'): the change of a total with a weight for each metric."""


@dataclass(frozen=True)
class Noise:
    """How much the controls scatter, and which effect can be told from that."""

    id: str
    path: str
    """JSON: see :class:`djsandbox_ray.analysis.planning.noise.NoiseFloor`."""


@dataclass(frozen=True)
class MetricRow:
    """What a metric can see, as a row of ``metrics.csv``; by controls and self-tests alone."""

    metric: str
    mean: float
    """Over the control trials."""
    noise: float
    """Standard deviation of a control trial, without what a seed does to all."""
    visible: float
    """The change of one pool that is told from the controls four times in five."""
    seen: float
    """By how many standard errors it is worse for the self-test that it sees best; NaN where no
    self-test spoils samples, or none was completed."""
    sees: bool
    """Whether that is more than chance makes it."""
    scored: bool
    """Whether it is part of the score, or may be where those are chosen that see something."""


@dataclass(frozen=True)
class RankingRow:
    """The verdict on one pool, as a row of ``ranking.csv``."""

    rank: int
    """1 is the greatest change; failed pools come last."""
    pool: str
    kind: PoolKind
    statistic: str | None
    bucket: str | None
    change: float
    """Mean over seeds of the aggregated change against the controls: a fraction (0.05 = +5 %), or
    with ``standardized`` in standard deviations of the controls; NaN where every trial failed."""
    std: float
    """Standard deviation over seeds of that change; NaN with fewer than two seeds."""
    low: float
    high: float
    """Simultaneous interval of the change."""
    p: float
    q: float
    verdict: str
    """better, worse, undecided, stopped (given up early) or failed (nothing was completed)."""
    seeds: int
    """Completed trials."""
    failed: int
    """Failed trials, left out of the numbers above."""
    expected: str | None = None
    """Self-tests: the verdict that must come out."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Mean of every metric over the completed trials."""
    shrunken: float = math.nan
    """The change pulled towards zero by what the spread of all pools says: the best of many looks
    better than it is."""
    carried_by: str | None = None
    """The metric without which the verdict, better or worse, would not be the same."""
    stopped_at: int | None = None
    """Samples seen when the pool was given up early; such a pool has no verdict."""
    collapsed: str | None = None
    """Trials that collapsed and bear on the verdict: the pool's own, by seed, and those of
    controls."""
    without_collapsed: str | None = None
    """The verdict where these are left out, all of the study; None where there are none, or where
    too few controls are left to judge by."""
    error: float = math.nan
    """Standard error of the change: which rows are in a bucket and the noise of the controls are in
    it, unlike in ``std`` over seeds; NaN for self-tests and pools that were not judged."""

    @property
    def self_test_failed(self) -> bool:
        """Whether this is a self-test whose verdict is not the expected one."""
        return self.kind is PoolKind.SELF_TEST and self.verdict != self.expected


@dataclass(frozen=True)
class Ranking:
    """Verdicts against the controls."""

    id: str
    path: str
    """CSV: one row per pool, best first."""
    better: int = 0
    """Pools that were called better; self-tests do not count."""
    effect: float = 0.0
    """The greatest change of those; 0 where there is none. They were chosen by it: see
    :attr:`Confirmation.effect`."""

    @classmethod
    def of(cls, id: str, path: str, rows: Iterable[RankingRow]) -> Ranking:
        """Return the record of a table."""
        better = [
            row.change for row in rows if row.kind is PoolKind.BUCKET and row.verdict == "better"
        ]
        return cls(id, path, len(better), max(better, default=0.0))


@dataclass(frozen=True)
class ConfirmationRow:
    """A pool that was called better, trained again with fresh seeds beside fresh controls."""

    pool: str
    first: float
    """The change that it was chosen by."""
    first_low: float
    first_high: float
    shrunken: float
    """The first change, shrunken."""
    confirmed: float
    """The change in the second study: not biased by the choice. NaN where it failed."""
    low: float
    high: float
    """Simultaneous interval of the confirmed change."""
    verdict: str
    """better, worse, undecided or failed, in the second study."""
    seeds: int


@dataclass(frozen=True)
class Confirmation:
    """The second look at the pools that were called better."""

    id: str
    path: str
    """CSV: one :class:`ConfirmationRow` per pool."""
    better: int = 0
    """Pools that are better again."""
    effect: float = 0.0
    """The greatest confirmed change of those; 0 where there is none."""


@dataclass(frozen=True)
class FlipRow:
    """A pool's verdict at the learning rate of the study and at a second one."""

    pool: str
    change: float
    verdict: str
    second_change: float
    second_verdict: str

    @property
    def flips(self) -> bool:
        """Whether a decided verdict is not the same at the second learning rate."""
        return self.verdict != self.second_verdict


@dataclass(frozen=True)
class LearningRateCheck:
    """Whether the verdicts hold at a second learning rate."""

    id: str
    path: str
    """CSV: one :class:`FlipRow` per pool that was decided."""

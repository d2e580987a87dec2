"""What crosses the borders between stages: read this first.

Frozen dataclasses of plain values, so that every one has a JSON form. Paths are relative to the
storage. A record's ``id`` stands for its content: two records with one id describe the same thing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True)
class Dataset:
    """A sample table: image-text pairs, ingested once, random access by ``row_id``."""

    id: str
    """Fingerprint of the content of the samples, in order, and of where shards begin."""
    table: str
    """The Lance table; a sample's ``row_id`` is its position in it."""
    rows: int
    rejected: int
    """Samples that were set aside; ``rejected.parquet`` beside the table says why."""


@dataclass(frozen=True)
class Leak:
    """Evaluation samples that also occur among the training samples."""

    id: str
    path: str
    """Parquet with ``row_id`` (training) and ``evaluation_row_id``, by exact hash of the pair."""
    rows: int
    """Training rows concerned."""
    removed: bool
    """Whether these rows are kept out of every pool."""


@dataclass(frozen=True)
class Scorer:
    """A CLIP trained on a trusted subset, saved as a Hugging Face folder."""

    id: str
    path: str


@dataclass(frozen=True)
class Statistic:
    """One number per sample, computed by a Data-Juicer operator."""

    name: str
    """Unique in a run: the key that Data-Juicer writes, with parameters where two would collide."""
    key: str
    """The key that Data-Juicer writes; the column in ``path``."""
    operator: str
    operator_id: str
    path: str
    """Parquet folder with ``row_id`` and one column per statistic of the operator."""


@dataclass(frozen=True)
class Statistics:
    """The statistics of one dataset."""

    id: str
    statistics: tuple[Statistic, ...]


class PoolKind(StrEnum):
    """What a pool is for."""

    BUCKET = "bucket"
    """Low, middle or high part of a statistic: what the run asks about."""
    CONTROL = "control"
    """A random bucket, built like a pool: what pools are compared with."""
    SELF_TEST = "self_test"
    """A pool whose verdict is known beforehand."""


@dataclass(frozen=True)
class Pool:
    """A set of rows, all pools of a run of one size. Its rows: ``assignments[column] == code``."""

    id: str
    """``<statistic>/<bucket>``, ``control/<n>`` or ``self_test/<name>``."""
    kind: PoolKind
    column: str
    """Column of ``assignments.parquet``."""
    code: int
    """The value of that column for the rows of this pool."""
    size: int
    hash: str
    """Hash of the row ids (and of what is done to the samples, if anything)."""
    statistic: str | None = None
    bucket: str | None = None
    low: float | None = None
    """Least value of the statistic in the pool."""
    high: float | None = None
    """Greatest value of the statistic in the pool."""
    ties: int = 0
    """Rows of the dataset whose value equals a cut of this bucket: the hash placed them."""
    shuffle_captions: bool = False
    """Whether every caption of a draw is replaced by another one of it (self-test)."""
    expected: str | None = None
    """Self-tests: the verdict that must come out."""


@dataclass(frozen=True)
class NotTestable:
    """A statistic that gets no pools and costs no trial."""

    statistic: str
    reason: str


@dataclass(frozen=True)
class Pools:
    """All pools of a run, of one size, and how seeds draw from them."""

    id: str
    assignments: str
    """Parquet: ``row_id`` and one int8 column per statistic, control and self-test."""
    pools: tuple[Pool, ...]
    size: int
    """Rows of every pool."""
    draw_size: int
    """Rows that one trial trains on."""
    seed: int
    not_testable: tuple[NotTestable, ...] = ()
    contrast: dict[str, float] = field(default_factory=dict)
    """Per statistic: probability that a row of the high bucket exceeds a row of the low one."""
    missing: dict[str, int] = field(default_factory=dict)
    """Per statistic: rows without a value."""


class TrialState(StrEnum):
    """What became of a trial. Only completed trials are ranked."""

    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    STOPPED = "STOPPED"
    FAILED = "FAILED"


@dataclass(frozen=True)
class TrialSpec:
    """One training and evaluation of one pool with one seed and one budget."""

    id: str
    """Fingerprint of the draw, the model, the training, the seed, the budget and the evaluators."""
    pool: str
    seed: int
    draw_hash: str
    budget: int
    """Samples seen in training."""


@dataclass(frozen=True)
class RungReport:
    """What a trial reports at a rung."""

    samples: int
    """Samples seen so far."""
    loss: float
    """Mean training loss since the previous rung."""
    metrics: dict[str, float]
    train_seconds: float
    """Since the start of the trial."""
    evaluation_seconds: float
    """Since the start of the trial."""
    time_ms: int
    """Milliseconds since the epoch when the report was made."""


@dataclass(frozen=True)
class TrialRecord:
    """A trial and all it has reported; stored after every report."""

    spec: TrialSpec
    state: TrialState
    reports: tuple[RungReport, ...] = ()
    error: str | None = None
    """Why it failed, in one line."""
    diverged: bool = False
    """It failed because its loss or a metric was not finite: it would again, so it is final."""
    traceback: str | None = field(default=None, compare=False)
    """Where it failed; kept in the trial's own file only."""

    @property
    def final(self) -> RungReport | None:
        """The report at the full budget, if the trial got there."""
        last = self.reports[-1] if self.reports else None
        return last if last is not None and last.samples == self.spec.budget else None


@dataclass(frozen=True)
class Trials:
    """The trials of a run."""

    id: str
    trials: str
    """Parquet: one row per trial."""
    curves: str
    """Parquet: one row per rung report."""
    completed: int
    failed: int
    crashed: int = 0
    """Failed trials that did not diverge: the same command tries them again."""


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
    """better, worse, undecided, or failed (no trial of the pool was completed)."""
    seeds: int
    """Completed trials."""
    failed: int
    """Failed trials, left out of the numbers above."""
    expected: str | None = None
    """Self-tests: the verdict that must come out."""
    metrics: dict[str, float] = field(default_factory=dict)
    """Mean of every metric over the completed trials."""

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


@dataclass(frozen=True)
class Report:
    """What a run shows."""

    id: str
    path: str
    """The page, ``report.html``."""
    figure: str
    """The bar chart, PNG."""

"""The extension point: a tracker is told what happens in a run and never gets in its way.

What it is told of a run, of samples, of a trial and of verdicts; the tracker that tracks nothing.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple

from djsandbox_ray.evaluation.metric import ScoreMetrics
from djsandbox_ray.records import Pool, RungReport, TrialRecord
from djsandbox_ray.settings.registry import Registry
from djsandbox_ray.settings.sections import Component
from djsandbox_ray.storage.store import Storage


class DatasetInput(NamedTuple):
    """Samples that a run or a trial works with."""

    name: str
    digest: str
    """Fingerprint of its content."""
    source: str
    """Where it came from: a path, a URL, or the name of a generator."""
    rows: int
    context: str = "training"
    """What they are for: ``training`` or ``evaluation``."""


SCORE = "score"
"""Under this name a tracker finds at every rung the mean of the metrics that make the score."""


class PoolVerdict(NamedTuple):
    """What became of a pool."""

    pool: str
    verdict: str
    """better, worse, undecided, stopped or failed."""
    rank: int
    """1 is the greatest change."""
    change: float
    """Against the controls, in the unit of the ranking; NaN where it is not known."""


class TrialFacts(NamedTuple):
    """What a tracker is told of a trial."""

    record: TrialRecord
    """With the score among the metrics of its reports."""
    tags: dict[str, str]
    params: dict[str, str]
    inputs: tuple[DatasetInput, ...]
    """What it alone learns from: its pool."""


def trial_facts(record: TrialRecord, pool: Pool, stage: str, score: ScoreMetrics) -> TrialFacts:
    """Return the facts of a trial.

    Args:
        record: of the trial.
        pool: that it trains on.
        stage: names the study.
        score: the metrics that make the score.
    """
    spec = record.spec
    tags = {
        "stage": stage,
        "pool": pool.id,
        "kind": str(pool.kind),
        "statistic": pool.statistic or "",
        "operator": pool.operator or "",
        "bucket": pool.bucket or "",
        "seed": str(spec.seed),
        "state": str(record.state),
    }
    params = {
        "pool": pool.id,
        "seed": str(spec.seed),
        "budget": str(spec.budget),
        "pool_size": str(pool.size),
        "draw": spec.draw_hash,
    }
    # The same pool has the same name and digest whichever seed, stage or run trains on it.
    rows = DatasetInput(pool.id, pool.hash, pool.column, pool.size)
    shown = replace(record, reports=tuple(_scored(report, score) for report in record.reports))
    return TrialFacts(shown, {name: tag for name, tag in tags.items() if tag}, params, (rows,))


def _scored(report: RungReport, score: ScoreMetrics) -> RungReport:
    """Return a report with its score, unless an evaluator calls a metric so."""
    mean = score.mean(report.metrics)
    if mean is None or SCORE in report.metrics:
        return report
    return replace(report, metrics={SCORE: mean, **report.metrics})


@dataclass(frozen=True)
class RunInfo:
    """A sandbox run, as a tracker shows it.

    Raises:
        ValueError: the key is empty or holds a quote, a backslash or a line break.
    """

    name: str
    key: str
    """Unique identity: the same run, resumed or repeated, has the same key."""
    params: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    datasets: Sequence[DatasetInput] = ()

    def __post_init__(self) -> None:
        if not self.key or set(self.key) & set('"\\\n'):
            raise ValueError(f"not a key that trackers can search for: {self.key!r}")


class Tracker(ABC):
    """Receives what happens in a run. No method blocks or fails because a server does."""

    Config: ClassVar[type[Component]] = Component

    def __init__(self, config: Component, storage: Storage) -> None:
        self.config = config
        self.storage = storage

    @property
    def ui_command(self) -> str | None:
        """What a user types, or the address to open, to see what was tracked."""
        return None

    @property
    def address(self) -> str:
        """Where it sends things, without secrets; empty where that does not matter."""
        return ""

    def start(self, run: RunInfo) -> None:  # noqa: B027 - optional
        """Begin, or take up again, the run with the key ``run.key``."""

    def dataset(self, dataset: DatasetInput) -> None:  # noqa: B027 - optional
        """Take a dataset that the run learns from; known only once it was read."""

    @abstractmethod
    def trial(
        self,
        record: TrialRecord,
        tags: Mapping[str, str],
        params: Mapping[str, str],
        inputs: Sequence[DatasetInput] = (),
    ) -> None:
        """Take the newest record of a trial; called after every report and change of state.

        ``inputs`` is what it alone learns from: its pool.
        """

    def judged(  # noqa: B027 - optional
        self, stage: str, pools: Sequence[PoolVerdict]
    ) -> None:
        """Take the verdicts on the pools of a study, which has the name of its trials' tag."""

    def metrics(  # noqa: B027 - optional
        self, values: Mapping[str, float], time_ms: int | None = None
    ) -> None:
        """Take numbers about the run as a whole, known since ``time_ms`` (since the epoch; now)."""

    def artifact(self, name: str, data: bytes) -> None:  # noqa: B027 - optional
        """Take a file of the run; ``name`` is a relative path such as ``figures/ranking.png``."""

    def describe(self, text: str) -> None:  # noqa: B027 - optional
        """Take what the run has found, as Markdown; replaces what it said before."""

    def finish(self, ok: bool, within: float | None = None) -> int:
        """End the run after a bounded wait; return how many things could not be sent.

        Args:
            ok: whether the run came to its end.
            within: wait at most so many seconds in all.
        """
        return 0


TRACKERS: Registry[Tracker] = Registry(
    "tracker",
    Tracker,  # type: ignore[type-abstract]
    {
        "mlflow": "djsandbox_ray.tracking.mlflow:MlflowTracker",
        "none": "djsandbox_ray.tracking.tracker:NullTracker",
        "tensorboard": "djsandbox_ray.tracking.tensorboard:TensorBoardTracker",
        "wandb": "djsandbox_ray.tracking.wandb:WandbTracker",
    },
)


class NullTracker(Tracker):
    """For runs that nobody watches; everything is in the storage all the same."""

    def trial(
        self,
        record: TrialRecord,
        tags: Mapping[str, str],
        params: Mapping[str, str],
        inputs: Sequence[DatasetInput] = (),
    ) -> None:
        """Take a record and do nothing with it."""

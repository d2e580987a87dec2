"""Trials, and what they report."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


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
    """Fingerprint of the draw, the model, the training, what its numbers hang on (see
    :attr:`TrialRecord.numerics`), the seed, the budget and the evaluators."""
    pool: str
    seed: int
    draw_hash: str
    budget: int
    """Samples seen in the stage that the pool feeds."""
    training: str = field(default="", compare=False)
    """As :attr:`id`, less the evaluators: what is kept of its models' answers goes by this."""
    total: int = 0
    """Samples seen in all stages of the training; 0 stands for the budget."""

    def __post_init__(self) -> None:
        if self.total == 0:
            object.__setattr__(self, "total", self.budget)


@dataclass(frozen=True)
class RungReport:
    """What a trial reports at a rung."""

    samples: int
    """Samples seen so far, through all stages."""
    loss: float
    """Mean training loss since the previous rung."""
    metrics: dict[str, float]
    train_seconds: float
    """Since the start of the trial."""
    evaluation_seconds: float
    """Since the start of the trial."""
    time_ms: int
    """Milliseconds since the epoch when the report was made."""
    terms: dict[str, float] = field(default_factory=dict)
    """Means since the previous rung of what the loss is made of, by name, and of the gradient's
    norm; ``<stage>/loss`` of a stage that ended since. Empty where a family tells none."""


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
    place: str | None = field(default=None, compare=False)
    """Rank, node and process in which it failed."""
    attempts: int = 0
    """How often it was begun: 1, and one more for every crash or interruption it went on from."""
    held_seconds: float = 0.0
    """For how long its CPUs and GPUs were held for it, over all attempts; pauses do not count."""
    owner: str | None = None
    """The run and stage that trained it, or went on with it last."""
    billed_seconds: float = 0.0
    """Of ``held_seconds``, what earlier owners have on their account."""
    billed_reports: int = 0
    """The reports that earlier owners have on their account, the first ones."""
    numerics: dict[str, str] = field(default_factory=dict)
    """What its numbers hang on beside settings, code and rows, by name: kind of device, precision,
    minor versions of libraries. Empty in records of earlier versions."""
    scored: str = field(default="", compare=False)
    """How answers were scored in its reports; empty where models were asked nothing."""

    @property
    def settled(self) -> bool:
        """Whether it came to an end that would come again; a crash is worth another try."""
        return self.state is TrialState.COMPLETED or self.diverged

    @property
    def final(self) -> RungReport | None:
        """The report at the end of the whole training, if the trial got there."""
        last = self.reports[-1] if self.reports else None
        return last if last is not None and last.samples == self.spec.total else None


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
    stopped: int = 0
    """Trials that were given up early, at a rung."""
    race: str = ""
    """Folder of the decisions to give up pools: one JSON file per rung that was decided."""

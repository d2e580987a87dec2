"""The extension point: a way to stop trials early, as a scheduler of Ray Tune."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar

from pydantic import Field, field_validator

from djsandbox_ray.evaluation.metric import ScoreMetrics
from djsandbox_ray.records import Aggregate, Pool, TrialRecord, TrialSpec
from djsandbox_ray.settings.registry import Registry
from djsandbox_ray.settings.sections import Component


class StoppingConfig(Component):
    """What all ways have in common."""

    rungs: list[float] = Field(default=[0.25, 0.5])
    """Fractions of the training at which trials are evaluated too; the end always is. Of a model
    with stages that cannot be judged, fractions of what is behind the last of these."""

    def rung_samples(self, total: int, start: int = 0) -> tuple[int, ...]:
        """Return the samples seen at every report, all of them last.

        Args:
            total: samples seen in the whole training.
            start: in the stages before a model can be judged.
        """
        judged = total - start
        return (*(start + max(1, round(rung * judged)) for rung in self.rungs), total)

    @field_validator("rungs")
    @classmethod
    def _fractions(cls, rungs: list[float]) -> list[float]:
        if any(not 0 < rung < 1 for rung in rungs) or sorted(set(rungs)) != rungs:
            raise ValueError("rungs are fractions between 0 and 1, in increasing order")
        return rungs


class Action(Enum):
    """What becomes of a trial after a report."""

    GO = "go"
    WAIT = "wait"
    STOP = "stop"


@dataclass(frozen=True)
class Decision:
    """What was decided when all racing pools had reached a rung; kept before it is acted upon."""

    samples: int
    """The rung."""
    stopped: tuple[str, ...]
    """Pools that are given up."""
    audited: tuple[str, ...]
    """Pools that would be given up, but run on to measure how often that is wrong."""
    effects: dict[str, float]
    """Mean paired difference to the controls at this rung, of every pool that was compared."""
    margin: float | None
    """A pool is given up when ``keep`` pools lead it by more than this, where all have the median
    of noise; None where nothing could be compared."""
    reason: str | None = None
    """Why nothing could be compared."""


@dataclass(frozen=True)
class Competition:
    """What a scheduler knows of the study whose trials it runs."""

    pools: Mapping[str, Pool]
    specs: Sequence[TrialSpec]
    """All trials of the study, those in ``known`` included."""
    known: Mapping[str, TrialRecord]
    """By trial id: what earlier work left, settled or partial."""
    rungs: tuple[int, ...]
    """Samples seen at every report; the last is the whole training."""
    metrics: ScoreMetrics | Sequence[str] | None
    """The metrics of the score, and which way each counts; None for all."""
    aggregate: Aggregate
    decisions: Sequence[Decision]
    """Taken by earlier work on this run: they stand."""
    on_decision: Callable[[Decision], None]
    """Keeps a decision; called before it is acted upon."""


@dataclass(frozen=True)
class Seen:
    """What a scheduler sees of a report."""

    samples: int
    metrics: dict[str, float]


def report_in(result: Mapping[str, Any]) -> Seen | None:
    """Return the report in a result as schedulers get it, flattened; None in that of a failure."""
    if "report/samples" not in result:
        return None
    prefix = "report/metrics/"
    metrics = {
        name.removeprefix(prefix): value
        for name, value in result.items()
        if name.startswith(prefix)
    }
    return Seen(result["report/samples"], metrics)


class Stopping(ABC):
    """A way to stop trials early. Controls and self-tests are never stopped."""

    Config: ClassVar[type[StoppingConfig]] = StoppingConfig

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def scheduler(self, competition: Competition) -> Any:
        """Return a ``ray.tune.schedulers.TrialScheduler``.

        :func:`report_in` reads its results; a trial's spec is in ``trial.config["trial"]``: id,
        pool, seed.
        """


STOPPING: Registry[Stopping] = Registry(
    "early stopping",
    Stopping,  # type: ignore[type-abstract]
    {
        "asha": "djsandbox_ray.trials.stopping.asha:Asha",
        "none": "djsandbox_ray.trials.stopping.stopping:NoStopping",
        "race": "djsandbox_ray.trials.stopping.race:RaceStopping",
    },
)


class NoStopping(Stopping):
    """Every trial runs to its full budget; rungs are evaluated only."""

    def scheduler(self, competition: Competition) -> Any:
        """Return Tune's own queue."""
        from ray.tune.schedulers import FIFOScheduler

        return FIFOScheduler()  # type: ignore[no-untyped-call]

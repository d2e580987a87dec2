"""What trials of a family start from and never change, made once: the extension point.

A base is a folder, ``models/<base id>/`` in the storage: copied from where it lies, or built small
and trained on trusted data. Trials are known by its :meth:`Base.identity`.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from djsandbox_ray.dataset.source import Source
from djsandbox_ray.nodes.kinds import NodeKind
from djsandbox_ray.records import RungReport
from djsandbox_ray.trials.checkpoint import Checkpoint

_CHECKPOINTS = 4
"""Of the training of a part of a base."""


@dataclass(frozen=True)
class BaseTask:
    """What making a base has to work with."""

    tables: Mapping[str, str]
    """URIs of the Lance tables of :meth:`Base.sources`, by name."""
    folder: Path
    """Existing and empty: what is written there is the base."""
    checkpoint: Callable[[str], Checkpoint]
    """Returns where a training of a part, by its name, keeps its state."""
    cpus: float
    gpus: float
    beat: Callable[[], None] = field(default=lambda: None)
    """Called at every step."""


class Base(ABC):
    """How a base is made."""

    cpus: float = 1
    """What making it occupies."""
    gpus: float = 0
    nodes: NodeKind = NodeKind()
    """Where it is made."""

    def sources(self) -> dict[str, Source]:
        """Return the trusted data that it is trained on, by name; none where it is copied."""
        return {}

    @abstractmethod
    def identity(self) -> Any:
        """Return plain data that decides its content, beside the samples of its sources.

        Raises:
            BadInput: what it is copied from is not there.
        """

    def samples(self) -> int:
        """Return how many samples its trainings see."""
        return 0

    def flops(self) -> float:
        """Return the operations of its trainings."""
        return 0.0

    @abstractmethod
    def make(self, task: BaseTask) -> dict[str, float]:
        """Make it, and return what is worth knowing of it, such as its losses.

        Raises:
            BadInput: what it is made of cannot be used.
        """


def run_whole(training: Any, samples: int, checkpoint: Checkpoint) -> float:
    """Run a training of a part to its end, or from where it was cut off; return its mean loss.

    Args:
        training: a :class:`~djsandbox_ray.trials.loop.TrainingLoop`; it is closed at the end.
        samples: seen in all.
        checkpoint: where its state is kept, four times.
    """
    with checkpoint.load() as found:
        if found is not None:
            training.load(found[1])
    stops = {max(1, samples * part // _CHECKPOINTS) for part in range(1, _CHECKPOINTS + 1)}
    try:
        for state in training.run(sorted(stops)):
            now = time.time_ns() // 1_000_000
            report = RungReport(state.samples, state.loss, {}, 0.0, 0.0, now)
            checkpoint.save(report, training.save)
    finally:
        training.close()
    reports = checkpoint.reports()
    seen = np.diff([0, *(report.samples for report in reports)])
    return float(np.average([report.loss for report in reports], weights=seen))

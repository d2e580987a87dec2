"""The extension point: a model family trains one trial and yields a report per rung."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import SandboxError
from djsandbox_ray.evaluation.evaluator import Encoder
from djsandbox_ray.records import RungReport
from djsandbox_ray.registry import Registry
from djsandbox_ray.sections import Component


class Diverged(SandboxError):
    """The training loss is no longer finite; the trial is FAILED and never ranked."""


@dataclass(frozen=True)
class TrialTask:
    """One training, as a family sees it."""

    seed: int
    """Decides the initial weights and the order of positions, the same for every pool."""
    rows: NDArray[np.int64]
    """Row ids to train on; shape (draw size,)."""
    captions: NDArray[np.int64]
    """Row ids whose captions are used with ``rows``; the same unless captions are shuffled."""
    rungs: tuple[int, ...]
    """Samples seen at every report; the last is the budget."""
    cpus: float
    gpus: float
    evaluate: Callable[[Encoder], dict[str, float]]
    """The evaluation suite."""


class ModelFamily(ABC):
    """A kind of model with its hyper-parameters.

    An instance is made in the driver, prepared once, and sent to every trial process.
    """

    Config: ClassVar[type[Component]] = Component

    def __init__(self, config: Any) -> None:
        self.config = config

    def identity(self) -> Any:
        """Return plain data that decides the result of a training, beside the task."""
        return self.config.model_dump(mode="json")

    def flops_per_sample(self) -> float | None:
        """Return floating-point operations of training on one sample, if the family can count."""
        return None

    def prepare(self, train: str, evaluation: str) -> Any:
        """Return what all trials share; called once in the driver with Ray connected.

        Args:
            train: URI of the Lance table with the training samples.
            evaluation: URI of the Lance table of the trusted split.
        """
        return train, evaluation

    @abstractmethod
    def train(self, task: TrialTask, shared: Any) -> Iterator[RungReport]:
        """Train from scratch and yield one report at each of ``task.rungs``.

        Args:
            task: what to train on, and how long.
            shared: what :meth:`prepare` returned.

        Raises:
            Diverged: the loss is not finite.
        """


FAMILIES: Registry[ModelFamily] = Registry("model family", ModelFamily)  # type: ignore[type-abstract]

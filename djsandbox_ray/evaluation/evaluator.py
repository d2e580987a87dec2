"""The extension point: an evaluator turns a trained image-text model into named numbers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.evaluation.split import Split
from djsandbox_ray.registry import Registry
from djsandbox_ray.sections import Component


class Encoder(Protocol):
    """What a trained image-text model offers to evaluators. Rows have unit length."""

    def images(self, split: Split) -> NDArray[np.float32]:
        """Embed every image of the split; shape (rows, dimensions)."""

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts; shape (len(texts), dimensions)."""


class Evaluator(ABC):
    """Measures a trained model on the trusted split; every metric is better when greater."""

    Config: ClassVar[type[Component]] = Component
    VERSION: ClassVar[int] = 1
    """Part of every trial's identity: to be raised when the same model would get other numbers."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def check(self, split: Split) -> None:  # noqa: B027 - optional
        """Raise :class:`BadInput` if this cannot run on the split; called before training."""

    def metric_names(self) -> tuple[str, ...] | None:
        """Return the names of all metrics, if they are known before anything is measured.

        A score that names another metric is then an error of the configuration.
        """
        return None

    @abstractmethod
    def evaluate(self, encoder: Encoder, split: Split) -> dict[str, float]:
        """Return the metrics, each under its full name such as ``retrieval/image_to_text_r5``."""


EVALUATORS: Registry[Evaluator] = Registry("evaluator", Evaluator)  # type: ignore[type-abstract]

"""All evaluators of a run on one split, and which of their metrics make the score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.evaluation import retrieval, zero_shot  # noqa: F401 - they register themselves
from djsandbox_ray.evaluation.evaluator import EVALUATORS, Encoder
from djsandbox_ray.evaluation.split import Split
from djsandbox_ray.sections import Component


class NotFinite(SandboxError):
    """A model's embeddings or metrics are no numbers any more: it has diverged."""


class Suite:
    """Runs the configured evaluators on one encoder.

    Args:
        configs: the evaluators' configurations, in order.
        split: the trusted split.
        score: the metrics that make the score of a trial; None for all.

    Raises:
        BadInput: an evaluator cannot run on the split.
    """

    def __init__(
        self, configs: Sequence[Component], split: Split, score: Sequence[str] | None = None
    ) -> None:
        self.split = split
        self._score = score or ()
        self._configs = tuple(configs)
        self._evaluators = [EVALUATORS.get(config.type)(config) for config in configs]
        for evaluator in self._evaluators:
            evaluator.check(split)

    def identity(self) -> list[Any]:
        """Return plain data that two suites share only if they give the same numbers."""
        settings = [config.model_dump(mode="json") for config in self._configs]
        versions = [evaluator.VERSION for evaluator in self._evaluators]
        return [self.split.id, settings, versions]

    def run(self, encoder: Encoder) -> dict[str, float]:
        """Return all metrics of the encoder.

        Raises:
            BadInput: two evaluators give a metric of the same name, or none gives one of the score.
            NotFinite: an embedding or a metric is not.
        """
        metrics: dict[str, float] = {}
        finite = _Finite(encoder)
        for evaluator in self._evaluators:
            for name, value in evaluator.evaluate(finite, self.split).items():
                if name in metrics:
                    raise BadInput(f"two evaluators give a metric named {name!r}")
                if not math.isfinite(value):
                    raise NotFinite(f"the metric {name!r} is {value}")
                metrics[name] = float(value)
        if lacking := [name for name in self._score if name not in metrics]:
            raise BadInput(
                f"evaluation.score: no evaluator gives {', '.join(lacking)} "
                f"(given: {', '.join(metrics)})"
            )
        return metrics


class _Finite:
    """An encoder whose numbers can be compared: with NaN, some comparisons favour the model."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def images(self, split: Split) -> NDArray[np.float32]:
        return self._checked("images", self._encoder.images(split))

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._checked("texts", self._encoder.texts(texts))

    @staticmethod
    def _checked(what: str, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        if not np.isfinite(embeddings).all():
            raise NotFinite(f"the model's embeddings of {what} are not finite")
        return embeddings

"""All evaluators of a run on one split, and which of their metrics make the score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.evaluator import EVALUATORS, Artefact, Encoder, Saved
from djsandbox_ray.settings.code import version_of
from djsandbox_ray.settings.sections import Component
from djsandbox_ray.storage.own import temporary


class NotFinite(SandboxError):
    """A model's embeddings or metrics are no numbers any more: it has diverged."""


class Suite:
    """Runs the configured evaluators on one model.

    Args:
        configs: the evaluators' configurations, in order.
        split: the trusted split.
        score: the metrics that make the score of a trial; None for all.

    Raises:
        BadInput: an evaluator cannot run on the split.
    """

    def __init__(
        self, configs: Sequence[Component], split: EvaluationSet, score: Sequence[str] | None = None
    ) -> None:
        self.split = split
        self._score = score or ()
        self._configs = tuple(configs)
        self._evaluators = [EVALUATORS.get(config.type)(config) for config in configs]
        for evaluator in self._evaluators:
            evaluator.check(split)

    def identity(self) -> list[Any]:
        """Return plain data that two suites share only if they give the same numbers."""
        settings = [evaluator.identity() for evaluator in self._evaluators]
        versions = [version_of(type(evaluator)) for evaluator in self._evaluators]
        return [self.split.id, settings, versions]

    @property
    def embeds_only(self) -> bool:
        """Whether all that is done with a model is to embed images and texts."""
        return all(evaluator.READS == "embeddings" for evaluator in self._evaluators)

    def run(self, model: Encoder | Artefact) -> dict[str, float]:
        """Return all metrics of the model; one that is needed as files is saved for that, once.

        Raises:
            BadInput: an evaluator reads what the model does not offer, two evaluators give a metric
                of the same name, or none gives one of the score.
            NotFinite: an embedding or a metric is not.
        """
        metrics: dict[str, float] = {}
        files: Artefact | None = None
        with ExitStack() as stack:
            for evaluator, config in zip(self._evaluators, self._configs, strict=True):
                if evaluator.READS == "embeddings":
                    seen: Any = _finite(model, config.type)
                else:
                    files = files or _as_files(model, config.type, stack)
                    seen = files
                for name, value in evaluator.evaluate(seen, self.split).items():
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


def _finite(model: Encoder | Artefact, evaluator: str) -> _Finite:
    if isinstance(model, Artefact):
        raise BadInput(f"{evaluator}: it asks for embeddings, but this model is only had as files")
    return _Finite(model)


def _as_files(model: Encoder | Artefact, evaluator: str, stack: ExitStack) -> Artefact:
    if isinstance(model, Artefact):
        return model
    if not isinstance(model, Saved):
        raise BadInput(f"{evaluator}: it reads files, but this model has no way to be saved")
    return model.save(stack.enter_context(temporary()))


class _Finite:
    """An encoder whose numbers can be compared: with NaN, some comparisons favour the model."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder

    def images(self, split: EvaluationSet) -> NDArray[np.float32]:
        return self._checked("images", self._encoder.images(split))

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._checked("texts", self._encoder.texts(texts))

    @staticmethod
    def _checked(what: str, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        if not np.isfinite(embeddings).all():
            raise NotFinite(f"the model's embeddings of {what} are not finite")
        return embeddings

"""All evaluators of a run on one split, and which of their metrics make the score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation import retrieval, zero_shot  # noqa: F401 - they register themselves
from djsandbox_ray.evaluation.evaluator import EVALUATORS, Encoder
from djsandbox_ray.evaluation.split import Split
from djsandbox_ray.sections import Component


class Suite:
    """Runs the configured evaluators on one encoder.

    Args:
        configs: the evaluators' configurations, in order.
        split: the trusted split.

    Raises:
        BadInput: an evaluator cannot run on the split.
    """

    def __init__(self, configs: Sequence[Component], split: Split) -> None:
        self.split = split
        self._configs = tuple(configs)
        self._evaluators = [EVALUATORS.get(config.type)(config) for config in configs]
        for evaluator in self._evaluators:
            evaluator.check(split)

    def identity(self) -> list[Any]:
        """Return plain data that two suites share only if they give the same numbers."""
        return [self.split.id, *(config.model_dump(mode="json") for config in self._configs)]

    def run(self, encoder: Encoder) -> dict[str, float]:
        """Return all metrics of the encoder.

        Raises:
            BadInput: two evaluators give a metric of the same name.
        """
        metrics: dict[str, float] = {}
        for evaluator in self._evaluators:
            for name, value in evaluator.evaluate(encoder, self.split).items():
                if name in metrics:
                    raise BadInput(f"two evaluators give a metric named {name!r}")
                metrics[name] = float(value)
        return metrics

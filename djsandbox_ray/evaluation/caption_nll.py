"""How likely a model finds the trusted captions, given their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from djsandbox_ray.dataset.media import Content
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.evaluator import Evaluator, Reads
from djsandbox_ray.evaluation.metric import Metric
from djsandbox_ray.settings.sections import Component


@dataclass(frozen=True)
class Likelihoods:
    """What a model makes of captions."""

    nll: NDArray[np.float64]
    """Negative log likelihood of each caption and of its end, in nats; shape (captions,)."""
    tokens: NDArray[np.int64]
    """How many tokens that are; shape (captions,)."""


class CaptionScorer(Protocol):
    """What a model that foretells captions offers to evaluators."""

    def nll(self, data: EvaluationSet, rows: Sequence[int]) -> Likelihoods:
        """Return how likely the captions of some rows are, given their images."""

"""How likely a model finds the trusted captions, given their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.evaluator import Evaluator, Reads
from djsandbox_ray.evaluation.metric import Metric
from djsandbox_ray.records import Spoil
from djsandbox_ray.settings.sections import Component


@dataclass(frozen=True)
class Likelihoods:
    """What a model makes of captions."""

    nll: NDArray[np.float64]
    """Negative log likelihood of each caption and of what ends it, in nats; shape (captions,)."""
    tokens: NDArray[np.int64]
    """How many tokens that are; shape (captions,)."""


class CaptionScorer(Protocol):
    """What a model that foretells captions offers to evaluators."""

    def nll(self, data: EvaluationSet, rows: Sequence[int]) -> Likelihoods:
        """Return how likely the captions of some rows are, given their images."""


class CaptionNllConfig(Component):
    """How many captions are looked at."""

    limit: int | None = Field(default=None, ge=1, strict=True)
    """So many rows, chosen by chance, the same for every model; all by default."""


class CaptionNll(Evaluator):
    """The mean negative log likelihood of the trusted captions, in nats.

    ``caption_nll/token`` counts every token as much as any other, which is what a model is trained
    on; ``caption_nll/byte``, every byte of UTF-8, by which models with different tokenizers can be
    compared. It asks for no answer, and is less noisy than any benchmark that does.
    """

    Config = CaptionNllConfig
    VERSION = 1
    READS: ClassVar[Reads] = "likelihoods"
    SEES: ClassVar[frozenset[Spoil]] = frozenset({"captions"})
    config: CaptionNllConfig

    def metrics(self) -> tuple[Metric, ...]:
        """Return both; only the first is scored: they say the same of models with one tokenizer."""
        return (
            Metric("caption_nll/token", "less", low=0.0),
            Metric("caption_nll/byte", "less", low=0.0, scored=False),
        )

    def check(self, data: EvaluationSet) -> None:
        """Look whether there are captions."""
        if len(data.texts) != data.rows or not data.rows:
            raise BadInput(f"caption_nll: the set {data.id} has no captions")

    def rows(self, data: EvaluationSet) -> list[int]:
        """Return the rows whose captions are looked at, in order."""
        return data.some(self.config.limit)

    def evaluate(self, model: CaptionScorer, data: EvaluationSet) -> dict[str, float]:
        """Return both means."""
        rows = self.rows(data)
        found = model.nll(data, rows)
        nats = float(found.nll.sum())
        size = sum(len(data.texts[row].encode()) for row in rows)
        return {
            "caption_nll/token": nats / float(found.tokens.sum()),
            "caption_nll/byte": nats / size,
        }

"""Several workers answer what one of them is asked: each a part, as each has the whole model."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from djsandbox_ray.evaluation.asking import Answer, Asked
from djsandbox_ray.evaluation.caption_nll import Likelihoods
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.trials.llava.answerer import LlavaAnswerer
from djsandbox_ray.trials.strategies.strategy import Group

Evaluating = Callable[["LlavaAnswerer | Together"], dict[str, float]]


def evaluated_by_all(own: LlavaAnswerer, group: Group, evaluate: Evaluating) -> dict[str, float]:
    """Evaluate on rank 0, with all workers answering; every worker calls it.

    Args:
        own: this worker's model, the same on all.
        group: this worker's place.
        evaluate: called on rank 0 alone.

    Returns:
        What ``evaluate`` returned; nothing on other ranks.
    """
    if group.size == 1:
        return evaluate(own)
    together = Together(own, group)
    if group.rank:
        together.serve()
        return {}
    try:
        return evaluate(together)
    finally:
        together.dismiss()


class Together:
    """What evaluators see on rank 0: it cuts what is asked into as many parts as there are workers.

    Args:
        own: this worker's model.
        group: its place.
    """

    def __init__(self, own: LlavaAnswerer, group: Group) -> None:
        self._own, self._group = own, group

    def answer(self, asked: Sequence[Asked]) -> list[Answer]:
        """Answer every question, in the order that they are asked in."""
        return self._answered(self._group.from_first(list(asked)))

    def nll(self, data: EvaluationSet, rows: Sequence[int]) -> Likelihoods:
        """Return how likely the captions of some rows are, given their images."""
        return self._weighed(*self._group.from_first((data, list(rows))))

    def dismiss(self) -> None:
        """Let the other workers go on with their training."""
        self._group.from_first(None)

    def serve(self) -> None:
        """Do this worker's part of whatever rank 0 is asked, until it is done."""
        while (job := self._group.from_first(None)) is not None:
            if isinstance(job, list):
                self._answered(job)
            else:
                self._weighed(*job)

    def _answered(self, asked: list[Asked]) -> list[Answer]:
        size = self._group.size
        parts = self._group.gathered(self._own.answer(asked[self._group.rank :: size]))
        return [parts[at % size][at // size] for at in range(len(asked))]

    def _weighed(self, data: EvaluationSet, rows: list[int]) -> Likelihoods:
        size = self._group.size
        parts = self._group.gathered(self._own.nll(data, rows[self._group.rank :: size]))
        nll, tokens = np.zeros(len(rows)), np.zeros(len(rows), np.int64)
        for rank, part in enumerate(parts):
            nll[rank::size], tokens[rank::size] = part.nll, part.tokens
        return Likelihoods(nll, tokens)

"""All workers of a trial answer: each its share of every batch, for the evaluators of rank 0."""

from __future__ import annotations

from collections.abc import Sequence

from djsandbox_ray.errors import SandboxError, require
from djsandbox_ray.evaluation.asking import Answer, Answerer, Asked
from djsandbox_ray.evaluation.suite import NotFinite
from djsandbox_ray.trials.family import Evaluate
from djsandbox_ray.trials.strategies.strategy import Group


class _Together:
    """Answers questions on all workers; rank 0 has one, while the others follow."""

    def __init__(self, group: Group, answerer: Answerer) -> None:
        self._group, self._answerer = group, answerer

    def answer(self, asked: Sequence[Asked]) -> list[Answer]:
        """See :meth:`Answerer.answer`."""
        return _share(self._group, self._answerer, list(asked)) or []


def evaluate_together(
    group: Group, answerer: Answerer, evaluate: Evaluate, samples: int
) -> dict[str, float]:
    """Evaluate a model that answers questions; called on all workers, each with the whole model.

    Item i of what is asked is answered by rank i % size; rank 0 keeps the answers, and scores.

    Args:
        group: the workers of the trial.
        answerer: the model on this worker.
        evaluate: of the trial.
        samples: seen in training so far.

    Returns:
        The metrics, on every worker.

    Raises:
        NotFinite: a metric is not; on every worker.
        SandboxError: what rank 0 or a worker raised; on every worker.
    """
    if group.size == 1:
        return evaluate(answerer, samples)
    if group.rank == 0:
        ending: tuple[dict[str, float], str, bool]
        try:
            ending = (evaluate(_Together(group, answerer), samples), "", False)
        except Exception as error:
            ending = ({}, f"{type(error).__name__}: {error}", isinstance(error, NotFinite))
        group.from_first(None)  # nothing more is asked
        metrics, error_text, diverged = group.from_first(ending)
    else:
        while _share(group, answerer, None) is not None:
            pass
        metrics, error_text, diverged = group.from_first(({}, "", False))
    if error_text:
        raise (NotFinite if diverged else SandboxError)(error_text)
    return metrics


def _share(group: Group, answerer: Answerer, asked: list[Asked] | None) -> list[Answer] | None:
    """Answer a share of what rank 0 asks, and return the answers of all; None at the end.

    What a worker raises is raised on all, so that none waits for it.
    """
    batch = group.from_first(asked)
    if batch is None:
        return None
    own: list[Answer] | str
    try:
        own = answerer.answer(batch[group.rank :: group.size])
    except Exception as error:
        own = f"rank {group.rank}: {type(error).__name__}: {error}"
    shares: list[list[Answer] | str | None] = [None] * group.size
    require("torch.distributed", "clip").all_gather_object(shares, own)
    if failures := [share for share in shares if isinstance(share, str)]:
        if group.rank == 0:
            raise SandboxError(failures[0])
        return []  # rank 0 ends it for all
    return [answer for share in shares if isinstance(share, list) for answer in share]

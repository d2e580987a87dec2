"""All workers of a trial answer, denoise or make videos: each its share, for rank 0."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import SandboxError
from djsandbox_ray.evaluation.asking import Answer, Answerer, Asked
from djsandbox_ray.evaluation.caption_nll import Likelihoods
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.denoising import Denoiser, Described
from djsandbox_ray.evaluation.suite import NotFinite
from djsandbox_ray.evaluation.video.video_files import Frames
from djsandbox_ray.evaluation.video.wanted import SamplingConfig, WantedVideo
from djsandbox_ray.trials.exporting import Exportable, Exported
from djsandbox_ray.trials.family import Evaluate
from djsandbox_ray.trials.strategies.strategy import Group


class Together:
    """Answers, denoises or makes videos on all workers; rank 0 has one, while the others follow."""

    def __init__(self, group: Group, answerer: Answerer | Denoiser) -> None:
        self._group, self._answerer = group, answerer

    def answer(self, asked: Sequence[Asked]) -> list[Answer]:
        """See :meth:`Answerer.answer`; in the order that they are asked in."""
        shares = self._shares("answer", [], asked)
        size = self._group.size
        return [shares[at % size][at // size] for at in range(len(asked))]

    def nll(self, data: EvaluationSet, rows: Sequence[int]) -> Likelihoods:
        """See :meth:`~djsandbox_ray.evaluation.caption_nll.CaptionScorer.nll`."""
        nll, tokens = np.zeros(len(rows)), np.zeros(len(rows), np.int64)
        for rank, share in enumerate(self._shares("nll", [data], rows)):
            part = slice(rank, None, self._group.size)
            nll[part], tokens[part] = share.nll, share.tokens
        return Likelihoods(nll, tokens)

    def losses(
        self,
        data: EvaluationSet,
        times: Sequence[float],
        seed: int,
        clips: Sequence[Described],
    ) -> NDArray[np.float32]:
        """See :meth:`~djsandbox_ray.evaluation.denoising.Denoiser.losses`."""
        found = np.zeros(len(clips), np.float32)
        for rank, share in enumerate(self._shares("losses", [data, times, seed], clips)):
            found[rank :: self._group.size] = share
        return found

    @property
    def cpus(self) -> float:
        """See :class:`~djsandbox_ray.evaluation.video.wanted.VideoMaker`."""
        return float(getattr(self._answerer, "cpus", 1.0))

    @property
    def gpus(self) -> float:
        """As :attr:`cpus`."""
        return float(getattr(self._answerer, "gpus", 0.0))

    def videos(self, wanted: Sequence[WantedVideo], sampling: SamplingConfig) -> list[Frames]:
        """See :class:`~djsandbox_ray.evaluation.video.wanted.VideoMaker`."""
        shares, size = self._shares("made", [sampling], wanted), self._group.size
        return [shares[at % size][at // size] for at in range(len(wanted))]

    def export(self, folder: Path) -> Exported:
        """Write the model: rank 0 has all of it."""
        if not isinstance(self._answerer, Exportable):
            raise SandboxError(f"a {type(self._answerer).__name__} has no way to be saved")
        return self._answerer.export(folder)

    def _shares(self, method: str, given: list[Any], items: Sequence[Any]) -> list[Any]:
        return _share(self._group, self._answerer, (method, given, list(items))) or []


def evaluate_together(
    group: Group, answerer: Answerer | Denoiser, evaluate: Evaluate, samples: int
) -> dict[str, float]:
    """Evaluate a model that answers or denoises; called on all workers, each with the whole model.

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
            ending = (evaluate(Together(group, answerer), samples), "", False)
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


def _share(
    group: Group, answerer: Answerer | Denoiser, job: tuple[str, list[Any], list[Any]] | None
) -> list[Any] | None:
    """Do this worker's share of what rank 0 asks, and return those of all; None at the end.

    What a worker raises is raised on all, so that none waits for it.

    Args:
        group: the workers of the trial.
        answerer: the model on this worker.
        job: of rank 0: the method of the model, what all are given, and what is shared out.
    """
    asked = group.from_first(job)
    if asked is None:
        return None
    method, given, items = asked
    own: tuple[Any, str]
    try:
        own = (getattr(answerer, method)(*given, items[group.rank :: group.size]), "")
    except Exception as error:
        own = (None, f"rank {group.rank}: {type(error).__name__}: {error}")
    shares = group.gathered(own)
    if failures := [failure for _, failure in shares if failure]:
        if group.rank == 0:
            raise SandboxError(failures[0])
        return []  # rank 0 ends it for all
    return [share for share, _ in shares]

"""How surely a model tells the caption of an image from others, and the image of a caption."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.evaluator import Encoder, Evaluator
from djsandbox_ray.evaluation.metric import Metric
from djsandbox_ray.records import Spoil
from djsandbox_ray.settings.sections import Component

_SHARPEST = 1000.0
"""Greatest factor of similarities; a trained CLIP has 100."""


class ContrastiveNllConfig(Component):
    """Among how many a caption is to be found."""

    candidates: int = Field(default=256, ge=2, strict=True)
    """So many pairs are told apart at once: groups of rows, made by chance, the same for every
    model."""
    limit: int | None = Field(default=None, ge=2, strict=True)
    """So many rows, chosen by chance, the same for every model; all by default."""


class ContrastiveNll(Evaluator):
    """The contrastive loss on the trusted pairs, in nats: a steady companion of accuracies.

    ``contrastive_nll/pair`` is CLIP's loss (Radford et al. 2021, figure 3), the mean over both ways
    of the negative log probability of what is right among the candidates. Similarities are
    multiplied by the factor that makes it least, one for all pairs (temperature scaling; Guo et al.
    2017, arXiv 1706.04599): how sharp a model's own temperature has become does not count. A model
    that knows nothing has the logarithm of the candidates, and none has more. In place of hits and
    misses every pair counts by how sure the model is, which is less noisy.
    """

    Config = ContrastiveNllConfig
    VERSION: ClassVar[int] = 1
    SEES: ClassVar[frozenset[Spoil]] = frozenset({"captions"})
    config: ContrastiveNllConfig

    def metrics(self) -> tuple[Metric, ...]:
        """Return the one there is."""
        return (Metric("contrastive_nll/pair", "less", low=0.0),)

    def check(self, data: EvaluationSet) -> None:
        """Look whether there are captions that differ in every group."""
        for rows in self._groups(data):
            if len({data.texts[row] for row in rows}) < 2:
                raise BadInput(
                    f"contrastive_nll: of {len(rows)} pairs of {data.id} that are to be told apart "
                    "all have one caption; more 'candidates' are needed"
                )

    def evaluate(self, model: Encoder, data: EvaluationSet) -> dict[str, float]:
        """Return the least loss over all factors of similarities."""
        from scipy import optimize

        groups = self._groups(data)
        captions = sorted({data.texts[row] for rows in groups for row in rows})
        place = {caption: number for number, caption in enumerate(captions)}
        images, texts = model.images(data), model.texts(captions)
        leads: list[NDArray[np.float64]] = []
        for rows in groups:
            own = np.array([place[data.texts[row]] for row in rows])
            leads += _leads(images[rows], texts, own)
        pairs = sum(map(len, groups))

        def loss(log_factor: float) -> float:
            factor = math.exp(log_factor)
            return math.fsum(_nll(factor * lead) for lead in leads) / (2 * pairs)

        # It is convex in the factor, so that there is one minimum.
        best = optimize.minimize_scalar(
            loss, bounds=(-math.log(_SHARPEST), math.log(_SHARPEST)), method="bounded"
        )
        return {"contrastive_nll/pair": float(best.fun)}

    def _groups(self, data: EvaluationSet) -> list[NDArray[np.int64]]:
        """Rows in groups as equal in size as can be, of ``candidates`` at most."""
        rows = np.array(data.some(self.config.limit), np.int64)
        if len(rows) < 2:
            raise BadInput(f"contrastive_nll: {len(rows)} pairs cannot be told apart")
        mixed = np.random.default_rng(len(rows)).permutation(rows)
        return np.array_split(mixed, math.ceil(len(rows) / self.config.candidates))


def _leads(
    images: NDArray[np.float32], texts: NDArray[np.float32], own: NDArray[np.int64]
) -> list[NDArray[np.float64]]:
    """By how much candidates are nearer than what is right, both ways, each (pairs, candidates).

    Another pair with the same caption is neither right nor wrong: -inf.

    Args:
        images: shape (pairs, dimensions).
        texts: of all captions, shape (captions, dimensions).
        own: place of each pair's caption, shape (pairs,).
    """
    similarity = images.astype(np.float64) @ texts[own].astype(np.float64).T
    same = (own[:, None] == own[None, :]) & ~np.eye(len(own), dtype=bool)
    return [
        np.where(same, -np.inf, table - np.diag(table)[:, None])
        for table in (similarity, similarity.T)
    ]


def _nll(leads: NDArray[np.float64]) -> float:
    """Return the sum over rows of log(sum(exp)), in which what is right has 0."""
    most = leads.max(axis=1, keepdims=True)
    sums = np.exp(leads - most).sum(axis=1)
    return float((most[:, 0] + np.log(sums)).sum())

"""Image-text retrieval: recall at k, both ways (Karpathy and Fei-Fei 2015, section 4.1)."""

from __future__ import annotations

from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.evaluator import Encoder, Evaluator
from djsandbox_ray.evaluation.metric import Metric
from djsandbox_ray.settings.sections import Component

_WAYS = ("image_to_text", "text_to_image")


class RetrievalConfig(Component):
    """Find the caption of an image among all captions, and the image of a caption."""

    k: list[Annotated[int, Field(ge=1)]] = Field(default=[1, 5, 10], min_length=1)
    """How many of the best may be looked at."""

    @field_validator("k")
    @classmethod
    def _distinct(cls, k: list[int]) -> list[int]:
        if len(set(k)) < len(k):
            raise ValueError("a number stands twice")
        return k


class Retrieval(Evaluator):
    """``retrieval/image_to_text_r<k>`` and ``retrieval/text_to_image_r<k>``, in 0..1.

    Captions that occur more than once count as one text with several images, as in the data sets
    with several captions per image: an image's true text is its caption, a text's true images are
    all that have it, and one of them among the first k is a hit.
    """

    Config = RetrievalConfig
    VERSION: ClassVar[int] = 1
    config: RetrievalConfig

    def check(self, data: EvaluationSet) -> None:
        """Check that there are more texts than may be looked at, or any model finds them all."""
        texts = len(set(data.texts))
        if max(self.config.k) >= texts:
            raise BadInput(
                f"retrieval: k = {max(self.config.k)} finds everything among the {texts} "
                "different texts of the split; it must be less than their number"
            )

    def metrics(self) -> tuple[Metric, ...]:
        """Name the recall at every k, both ways; what chance finds, the set decides."""
        return tuple(Metric(_name(way, k), low=0, high=1) for way in _WAYS for k in self.config.k)

    def evaluate(self, model: Encoder, data: EvaluationSet) -> dict[str, float]:
        """Rank all texts for every image and all images for every text."""
        texts = sorted(set(data.texts))
        index = {text: number for number, text in enumerate(texts)}
        truth = np.array([index[text] for text in data.texts])
        similarity = model.images(data) @ model.texts(texts).T
        relevant = truth[:, None] == np.arange(len(texts))[None, :]
        metrics = {}
        tables = ((similarity, relevant), (similarity.T, relevant.T))
        for way, (scores, hits) in zip(_WAYS, tables, strict=True):
            ranks = first_hit(scores, hits)
            for k in self.config.k:
                metrics[_name(way, k)] = float(np.mean(ranks < k))
        return metrics


def _name(way: str, k: int) -> str:
    return f"retrieval/{way}_r{k}"


def first_hit(scores: NDArray[np.float32], relevant: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return for every row the rank (0 = best) of its best relevant column.

    Equal scores count against the model, so that one that has collapsed to a point scores zero;
    so does NaN.

    Args:
        scores: similarity, shape (queries, gallery).
        relevant: which columns answer the query, shape (queries, gallery), at least one each.
    """
    best = np.where(relevant, scores, -np.inf).max(axis=1, keepdims=True)
    ranks: NDArray[np.int64] = (~(scores < best) & ~relevant).sum(axis=1)
    return ranks

"""The extension point: an evaluator turns a model into numbers, on an evaluation set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.dataset.media import Content
from djsandbox_ray.dataset.source import Source
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.metric import Metric
from djsandbox_ray.records import Spoil
from djsandbox_ray.settings.registry import Registry
from djsandbox_ray.settings.sections import Component


class Encoder(Protocol):
    """What a trained image-text model offers to evaluators. Rows have unit length."""

    def images(self, data: EvaluationSet) -> NDArray[np.float32]:
        """Embed the image of every row of a set; shape (rows, dimensions)."""

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed texts; shape (len(texts), dimensions)."""


@dataclass(frozen=True)
class Artefact:
    """A trained model as files, for programs that are given a folder."""

    folder: Path
    """What the training has left; to be read only."""
    cpus: float
    """That the trial has, for whoever runs the model."""
    gpus: float
    reported: Mapping[str, float] = field(default_factory=dict)
    """What the training itself has measured, by name."""


@runtime_checkable
class Saved(Protocol):
    """An encoder that can also be had as files."""

    def save(self, folder: Path) -> Artefact:
        """Write the model into an existing empty folder."""


Reads = Literal["embeddings", "answers", "likelihoods", "videos", "denoising", "files", "reports"]
"""What an evaluator looks at: an :class:`Encoder`, answers to its questions, how likely captions
are (:class:`~.caption_nll.CaptionScorer`), videos that it has asked for, errors of a denoiser, an
:class:`Artefact`'s folder, or what the training itself has reported in one."""


class Evaluator(ABC):
    """Measures a trained model on the trusted split, or on a benchmark of its own."""

    Config: ClassVar[type[Component]] = Component
    VERSION: ClassVar[int] = 1
    """Part of every trial's identity: to be raised when the same model would get other numbers."""
    READS: ClassVar[Reads] = "embeddings"
    """What :meth:`evaluate` is given."""
    CONTENT: ClassVar[tuple[Content, ...]] = ("pairs",)
    """What the samples of the trusted split may be."""

    SEES: ClassVar[frozenset[Spoil]] = frozenset({"captions", "frames"})
    """What self-tests do to samples (see :class:`~djsandbox_ray.records.Pool`) that its metrics
    show: by those alone such a pool is judged. What looks at frames one by one sees no motion that
    is gone, what ignores prompts no captions that are shuffled."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def identity(self) -> Any:
        """Return plain data that decides what is measured, beside the model and the set."""
        return self.config.model_dump(mode="json")

    def source(self) -> Source | None:
        """Return where the samples of a benchmark of its own come from; None: the trusted split.

        It is ingested once, by content, as the data in question is.
        """
        return None

    def needs_samples(self) -> bool:
        """Return whether it looks at samples at all, and not only at what the training reports.

        Where nothing does, the configuration needs no trusted split.
        """
        return True

    def check(self, data: EvaluationSet) -> None:  # noqa: B027 - optional
        """Raise :class:`BadInput` if this cannot run on the set; called before training."""

    def remarks(self, data: EvaluationSet) -> tuple[str, ...]:
        """Return what whoever reads its metrics is to know of the set: said before training."""
        return ()

    def label_keys(self) -> tuple[str, ...]:
        """Return keys of the metadata whose numbers are to have the names that the data gives them.

        Where it does, these are in ``EvaluationSet.classes``, and every sample has a number with a
        name.
        """
        return ()

    def metrics(self) -> tuple[Metric, ...] | None:
        """Return all metrics, if they are known before anything is measured.

        A score that names another metric is then an error of the configuration. Metrics that are
        not known are better when greater, of any range, and part of the score.
        """
        return None

    def sees(self, metric: Metric) -> frozenset[Spoil]:
        """Return which of what self-tests do to samples one of its metrics shows.

        By default what :attr:`SEES` says of all of them.
        """
        return self.SEES

    @abstractmethod
    def evaluate(self, model: Any, data: EvaluationSet) -> dict[str, float]:
        """Return the metrics, each under its full name such as ``retrieval/image_to_text_r5``.

        Args:
            model: an :class:`Encoder`, or what else ``READS`` says.
            data: the trusted split, or the samples of :meth:`source`.
        """


class Asker(Evaluator):
    """Asks a model for something that is stored, answers or videos, and scores that.

    Making takes the model, scoring only what it has made: a formula may change without a training.

    ``VERSION`` is that of the scoring: a trial of which all that was made is stored is scored
    again, not trained again, when it is raised, or when a user's class is edited.
    """

    ASKING: ClassVar[int] = 1
    """To be raised when a model would be asked something else: then it is trained and asked again.
    What was made for another question never counts, whatever this is."""

    @property
    def name(self) -> str:
        """What its metrics' names begin with: by default its type, of a user's class the class."""
        return str(self.config.type).rpartition(":")[2]

    def asking(self) -> Any:
        """Return plain data that decides what is asked, beside the set.

        By default all settings. Settings that decide only how it is scored are to be left out: with
        others, what is stored is scored again.
        """
        return self.config.model_dump(mode="json")


EVALUATORS: Registry[Evaluator] = Registry(
    "evaluator",
    Evaluator,  # type: ignore[type-abstract]
    {
        "caption_nll": "djsandbox_ray.evaluation.caption_nll:CaptionNll",
        "command": "djsandbox_ray.evaluation.programs:CommandEvaluator",
        "contrastive_nll": "djsandbox_ray.evaluation.contrastive_nll:ContrastiveNll",
        "denoising": "djsandbox_ray.evaluation.denoising:DenoisingLoss",
        "fvd": "djsandbox_ray.evaluation.video.fvd:Fvd",
        "mmbench": "djsandbox_ray.evaluation.vqa.mmbench:MmBench",
        "mme": "djsandbox_ray.evaluation.vqa.mme:Mme",
        "motion": "djsandbox_ray.evaluation.video.motion:Motion",
        "pope": "djsandbox_ray.evaluation.vqa.pope:Pope",
        "prompt_match": "djsandbox_ray.evaluation.denoising:PromptMatch",
        "reported": "djsandbox_ray.evaluation.programs:Reported",
        "retrieval": "djsandbox_ray.evaluation.retrieval:Retrieval",
        "textvqa": "djsandbox_ray.evaluation.vqa.textvqa:TextVqa",
        "vbench": "djsandbox_ray.evaluation.video.vbench:Vbench",
        "vqa": "djsandbox_ray.evaluation.vqa.vqa:Vqa",
        "zero_shot": "djsandbox_ray.evaluation.zero_shot:ZeroShot",
    },
)

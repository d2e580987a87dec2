"""How well a model tells noise from the trusted videos, and whether their captions help it to.

No video is made: that costs a forward pass per clip and time in place of dozens, and has the noise
of none. The loss sees what is wrong with pictures and motion; whether a model heeds captions, the
share of clips says whose own caption helps more than another one.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from djsandbox_ray.dataset.media import Content
from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.evaluator import Evaluator, Reads
from djsandbox_ray.evaluation.metric import Metric
from djsandbox_ray.records import Spoil
from djsandbox_ray.settings.sections import Component

Described = tuple[int, str]
"""A row of an evaluation set, and a caption that is told with its video."""


class Denoiser(Protocol):
    """What a trained model of noisy videos offers to evaluators."""

    def losses(
        self,
        data: EvaluationSet,
        times: Sequence[float],
        seed: int,
        clips: Sequence[Described],
    ) -> NDArray[np.float32]:
        """Return the mean squared errors of denoising, means over the times; shape (clips,).

        Args:
            data: the set.
            times: how much noise, as a share of all of it.
            seed: with its row, it decides the noise of a clip, whatever the caption.
            clips: which videos, told with which captions.
        """


Share = Annotated[float, Field(gt=0, lt=1)]


class DenoisingConfig(Component):
    """Which clips are looked at, and how noisy."""

    times: tuple[Share, ...] = Field(default=(0.3, 0.5, 0.7, 0.9), min_length=1, max_length=100)
    """How much noise, as a share of all of it."""
    seed: int = Field(default=0, ge=0, le=1 << 60, strict=True)
    """Decides the noise, the same for every model."""
    limit: int | None = Field(default=None, ge=1, strict=True)
    """So many rows, chosen by chance, the same for every model; all by default."""

    @field_validator("times")
    @classmethod
    def _rising(cls, times: tuple[float, ...]) -> tuple[float, ...]:
        if list(times) != sorted(set(times)):
            raise ValueError("times are to rise, each once")
        return times


class DenoisingEvaluator(Evaluator):
    """What both have in common: rows of a set with videos and captions."""

    Config = DenoisingConfig
    READS: ClassVar[Reads] = "denoising"
    CAPTIONS: ClassVar[int] = 1
    """That are told with each clip, one after the other."""
    CONTENT: ClassVar[tuple[Content, ...]] = ("videos",)
    config: DenoisingConfig

    def check(self, data: EvaluationSet) -> None:
        """Look whether there are captions."""
        if len(data.texts) != data.rows or not data.rows:
            raise BadInput(f"{self.config.type}: the set {data.id} has no captions")

    def rows(self, data: EvaluationSet) -> list[int]:
        """Return the rows whose videos are looked at, in order."""
        return data.some(self.config.limit)

    @abstractmethod
    def evaluate(self, model: Denoiser, data: EvaluationSet) -> dict[str, float]:
        """See :meth:`Evaluator.evaluate`."""

    def _losses(
        self, model: Denoiser, data: EvaluationSet, clips: Sequence[Described]
    ) -> NDArray[np.float64]:
        found = model.losses(data, self.config.times, self.config.seed, clips)
        return np.asarray(found, np.float64)


class DenoisingLoss(DenoisingEvaluator):
    """``denoising/loss``: the mean squared error on the trusted clips, told their captions.

    Of static, noisy or broken videos a model learns what makes it greater. Whether captions fit,
    it shows in one world and barely in another.
    """

    VERSION: ClassVar[int] = 1
    SEES: ClassVar[frozenset[Spoil]] = frozenset({"frames"})

    def metrics(self) -> tuple[Metric, ...]:
        """Return the loss."""
        return (Metric("denoising/loss", "less", low=0.0),)

    def evaluate(self, model: Denoiser, data: EvaluationSet) -> dict[str, float]:
        """Return the mean over the clips."""
        clips = [(row, data.texts[row]) for row in self.rows(data)]
        return {"denoising/loss": float(self._losses(model, data, clips).mean())}


class PromptMatchConfig(DenoisingConfig):
    """Which captions are the wrong ones."""

    attributes: tuple[str, ...] = ()
    """Keys of the meta data: a wrong caption is that of a row which differs in one of these only.
    By default it is that of any row with another text."""


class PromptMatch(DenoisingEvaluator):
    """``prompt_match/accuracy``: the share of clips with less loss told their own caption.

    That is less than told a wrong one, with the same noise; a tie counts half.
    """

    Config = PromptMatchConfig
    VERSION: ClassVar[int] = 1
    SEES: ClassVar[frozenset[Spoil]] = frozenset({"captions"})
    CAPTIONS: ClassVar[int] = 2
    config: PromptMatchConfig

    def metrics(self) -> tuple[Metric, ...]:
        """Return the share."""
        return (Metric("prompt_match/accuracy", low=0.0, high=1.0, chance=0.5),)

    def check(self, data: EvaluationSet) -> None:
        """Look whether every clip has a wrong caption."""
        super().check(data)
        self._wrong(data, self.rows(data))

    def evaluate(self, model: Denoiser, data: EvaluationSet) -> dict[str, float]:
        """Compare the losses of every clip."""
        rows = self.rows(data)
        own = [(row, data.texts[row]) for row in rows]
        wrong = list(zip(rows, self._wrong(data, rows), strict=True))
        losses = self._losses(model, data, [*own, *wrong])
        if not np.isfinite(losses).all():  # neither is less: the suite says that it has diverged
            return {"prompt_match/accuracy": float("nan")}
        true, false = losses[: len(rows)], losses[len(rows) :]
        return {"prompt_match/accuracy": float(np.mean((true < false) + 0.5 * (true == false)))}

    def _wrong(self, data: EvaluationSet, rows: Sequence[int]) -> list[str]:
        """Return a caption of another row for each, the same for every model."""
        near = self._neighbours(data)
        found = []
        for row in rows:
            text = data.texts[row]
            others = [other for other in near(row) if data.texts[other] != text]
            if not others:
                raise BadInput(
                    f"prompt_match: row {row} of the set {data.id} ({text!r:.60}) has no row with "
                    f"another caption{self._asked}; more rows may have"
                )
            random = np.random.Generator(np.random.Philox(key=[self.config.seed, row]))
            found.append(data.texts[others[int(random.integers(len(others)))]])
        return found

    @property
    def _asked(self) -> str:
        named = ", ".join(self.config.attributes)
        return f" that differs in one of {named} only" if named else ""

    def _neighbours(self, data: EvaluationSet) -> Any:
        """Return a function that gives the rows whose captions may be wrong ones of a row."""
        keys = self.config.attributes
        if not keys:
            return lambda row: range(data.rows)
        values = list(zip(*(data.labels(key) for key in keys), strict=True))
        alike: defaultdict[tuple[Any, ...], list[int]] = defaultdict(list)
        for row, value in enumerate(values):
            for place in range(len(keys)):
                alike[(place, *value[:place], *value[place + 1 :])].append(row)

        def near(row: int) -> list[int]:
            value = values[row]
            return [
                other
                for place in range(len(keys))
                for other in alike[(place, *value[:place], *value[place + 1 :])]
                if values[other] != value
            ]

        return near

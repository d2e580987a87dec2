"""Evaluators that have a model make videos, and measure them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Sequence
from typing import Any, ClassVar, Literal, final

from pydantic import Field

from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.data import EvaluationSet, least
from djsandbox_ray.evaluation.evaluator import Asker, Reads
from djsandbox_ray.evaluation.video.stored_videos import Videos
from djsandbox_ray.evaluation.video.wanted import SamplingConfig, WantedVideo
from djsandbox_ray.settings.sections import MOST_NAME, Component

SAMPLE = 16
"""Videos that stay for people to look at."""


class VideoEvaluatorConfig(Component):
    """What is said of videos whatever is measured of them."""

    name: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][\w.-]*$", max_length=MOST_NAME)
    """What the names of its metrics begin with; if left out, its type."""
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    """How the videos are made. Evaluators with the same sampling share those of the same prompt."""
    keep: Literal["none", "sample", "all"] = "sample"
    """Which videos stay once they are measured; a sample is 16. What was measured of each stays;
    for anything else to be measured of them, the model has to make them again."""


class VideoEvaluator(Asker):
    """Has a model make videos of prompts, and measures them."""

    READS: ClassVar[Reads] = "videos"
    NOT_ASKED: ClassVar[frozenset[str]] = frozenset({"name", "keep"})
    """Settings that do not decide what a model is asked for."""
    config: VideoEvaluatorConfig

    @property
    def name(self) -> str:
        """What its metrics' names begin with."""
        return self.config.name or super().name

    def asking(self) -> Any:
        """Return the settings that decide which videos are made."""
        return self.config.model_dump(mode="json", exclude=set(self.NOT_ASKED))

    @abstractmethod
    def wanted(self, data: EvaluationSet) -> Sequence[WantedVideo]:
        """Return the videos that it looks at, each once.

        Args:
            data: see :meth:`Evaluator.evaluate`.
        """

    @abstractmethod
    def measure(self, videos: Videos, data: EvaluationSet) -> dict[str, float]:
        """Return the metrics, each under its full name.

        Args:
            videos: where they are from; what was measured of them before is there.
            data: see :meth:`Evaluator.evaluate`.
        """

    @final
    def evaluate(self, model: Videos, data: EvaluationSet) -> dict[str, float]:
        """Measure the videos of a model.

        Args:
            model: where its videos are from.
            data: see :meth:`Evaluator.evaluate`.

        Raises:
            BadInput: the metrics are not those that it names.
        """
        found = {name: float(value) for name, value in self.measure(model, data).items()}
        promised = self.metrics()
        if promised is not None and set(found) != {metric.name for metric in promised}:
            names = ", ".join(sorted(metric.name for metric in promised))
            raise BadInput(
                f"{self.name}: it gives {', '.join(sorted(found)) or 'nothing'}, but names {names}"
            )
        return found

    def staying(self, keys: Collection[str]) -> set[str]:
        """Return which of its videos stay once they are measured, by key."""
        if self.config.keep == "all":
            return set(keys)
        return set(least(keys, SAMPLE)) if self.config.keep == "sample" else set()

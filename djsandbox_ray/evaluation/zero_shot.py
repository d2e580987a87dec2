"""Zero-shot classification with class names and templates (Radford et al. 2021, section 3.1)."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.evaluator import Encoder, Evaluator, Split
from djsandbox_ray.settings.sections import Component


class ZeroShotConfig(Component):
    """Classify the images of the split by the similarity to texts made from class names."""

    label: str = Field(min_length=1)
    """The key in the samples' metadata that holds the class name."""
    classes: list[str] | None = Field(default=None, min_length=2)
    """The class names; by default those that occur in the split, sorted."""
    templates: list[str] = Field(default=["a photo of a {}."], min_length=1)
    """Texts with one ``{}`` for the class name; their embeddings are averaged."""

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: list[str] | None) -> list[str] | None:
        if classes is not None and len(set(classes)) < len(classes):
            raise ValueError("a class stands twice")
        return classes

    @field_validator("templates")
    @classmethod
    def _one_hole(cls, templates: list[str]) -> list[str]:
        for template in templates:
            if template.count("{}") != 1:
                raise ValueError(f"template {template!r} needs exactly one {{}}")
        return templates


class ZeroShot(Evaluator):
    """``zero_shot_<label>/top1`` and ``zero_shot_<label>/mean_per_class``, in 0..1."""

    Config = ZeroShotConfig
    VERSION: ClassVar[int] = 1
    config: ZeroShotConfig

    def check(self, split: Split) -> None:
        """Check that every sample's label is one of the classes."""
        self._classes(split)

    def metric_names(self) -> tuple[str, ...]:
        """Name both metrics."""
        prefix = f"zero_shot_{self.config.label}"
        return f"{prefix}/top1", f"{prefix}/mean_per_class"

    def evaluate(self, encoder: Encoder, split: Split) -> dict[str, float]:
        """Classify every image of the split."""
        classes = self._classes(split)
        index = {name: number for number, name in enumerate(classes)}
        target = np.array([index[label] for label in split.labels(self.config.label)])
        templates = self.config.templates
        texts = [template.replace("{}", name) for name in classes for template in templates]
        weights = encoder.texts(texts).reshape(len(classes), len(templates), -1).mean(axis=1)
        weights /= np.linalg.norm(weights, axis=1, keepdims=True)
        predicted = (encoder.images(split) @ weights.T).argmax(axis=1)
        top1, per_class = self.metric_names()
        return {
            top1: float(np.mean(predicted == target)),
            per_class: mean_per_class(predicted, target),
        }

    def _classes(self, split: Split) -> list[str]:
        labels = set(split.labels(self.config.label))
        if self.config.classes is None:
            if len(labels) < 2:
                raise BadInput(f"zero_shot: label {self.config.label!r} has only one class")
            return sorted(labels)
        if unknown := sorted(labels - set(self.config.classes)):
            raise BadInput(
                f"zero_shot: the split has labels {unknown[:5]} under {self.config.label!r} "
                f"that are not among the classes {self.config.classes}"
            )
        return self.config.classes


def mean_per_class(predicted: NDArray[np.int64], target: NDArray[np.int64]) -> float:
    """Return the mean over the classes that occur in ``target`` of the recall of each."""
    correct = (predicted == target).astype(np.float64)
    counts = np.bincount(target)
    recalls = np.bincount(target, weights=correct)[counts > 0] / counts[counts > 0]
    return float(recalls.mean())

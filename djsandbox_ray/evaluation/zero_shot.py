"""Zero-shot classification with class names and templates (Radford et al. 2021, section 3.1)."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, field_validator

from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.evaluator import Encoder, Evaluator
from djsandbox_ray.evaluation.metric import Metric
from djsandbox_ray.settings.sections import MOST_NAME, Component
from djsandbox_ray.storage.filesystems import read_text

_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_SHOWN = 5


def _read_classes(given: Any) -> Any:
    """Read the file of a path; have the labels of a mapping as texts, in their order."""
    if isinstance(given, str):
        try:
            lines = read_text(given).strip().splitlines()
        except (OSError, UnicodeDecodeError, BadInput) as error:
            raise ValueError(f"the file {given!r} cannot be read: {error}") from error
        return [line.strip() for line in lines]
    if isinstance(given, dict):
        if odd := [key for key in given if isinstance(key, bool) or not isinstance(key, int | str)]:
            raise ValueError(f"a label is a number or a text, not {odd[0]!r}")
        ordered = sorted(given, key=lambda key: (isinstance(key, str), key))
        if len(named := {str(key): given[key] for key in ordered}) < len(given):
            raise ValueError("a label stands twice, as a number and as a text")
        return named
    return given


class ZeroShotConfig(Component):
    """Classify the images of the split by the similarity to texts made from class names."""

    label: str = Field(min_length=1, max_length=MOST_NAME)
    """The key in the samples' metadata that holds the class name, or what stands for it. It is a
    part of the metrics' names, which MLflow wants to be short."""
    classes: Annotated[
        Annotated[list[str], Field(min_length=2)]
        | Annotated[dict[str, str], Field(min_length=2)]
        | None,
        BeforeValidator(
            _read_classes, json_schema_input_type=str | list[str] | dict[str, str] | None
        ),
    ] = None
    """The class names; by default those that occur in the split, sorted. Where labels are numbers:
    the names from 0 on, or a mapping of labels to names; by default those of the data itself
    (``ClassLabel`` columns). A path is that of a text file with one name per line."""
    templates: list[str] = Field(default=["a photo of a {}."], min_length=1)
    """Texts with one ``{}`` for the class name; their embeddings are averaged."""

    @field_validator("classes")
    @classmethod
    def _distinct(cls, classes: list[str] | dict[str, str] | None) -> Any:
        names = list(classes.values()) if isinstance(classes, dict) else classes or []
        if blank := [index for index, name in enumerate(names) if not name.strip()]:
            raise ValueError(f"the class {blank[0]} (counted from 0) has no name")
        if len(set(names)) < len(names):
            twice = next(name for index, name in enumerate(names) if name in names[:index])
            raise ValueError(f"a class stands twice: {twice!r}")
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

    def check(self, data: EvaluationSet) -> None:
        """Check that every sample's label is one of the classes, and that these have names."""
        self._classes(data)

    def label_keys(self) -> tuple[str, ...]:
        """Ask for the names of numbers that the configuration does not name."""
        return (self.config.label,) if self.config.classes is None else ()

    def metrics(self) -> tuple[Metric, Metric]:
        """Name both metrics; what chance gets is known of classes that are given."""
        prefix = f"zero_shot_{self.config.label}"
        given = self.config.classes
        names = set(given.values() if isinstance(given, dict) else given or ())
        chance = 1 / len(names) if names else None
        top1, per_class = (
            Metric(f"{prefix}/{what}", low=0, high=1, chance=chance)
            for what in ("top1", "mean_per_class")
        )
        return top1, per_class

    def evaluate(self, model: Encoder, data: EvaluationSet) -> dict[str, float]:
        """Classify every image of the split."""
        names = self._classes(data)
        classes = list(dict.fromkeys(names.values()))
        index = {label: classes.index(name) for label, name in names.items()}
        target = np.array([index[label] for label in data.labels(self.config.label)])
        templates = self.config.templates
        texts = [template.replace("{}", name) for name in classes for template in templates]
        weights = model.texts(texts).reshape(len(classes), len(templates), -1).mean(axis=1)
        weights /= np.linalg.norm(weights, axis=1, keepdims=True)
        predicted = (model.images(data) @ weights.T).argmax(axis=1)
        top1, per_class = self.metrics()
        return {
            top1.name: float(np.mean(predicted == target)),
            per_class.name: mean_per_class(predicted, target),
        }

    def _classes(self, data: EvaluationSet) -> dict[str, str]:
        """Return the class names by label, those of labels that do not occur too."""
        labels, given = set(data.labels(self.config.label)), self.config.classes
        if given is None and (named := data.classes.get(self.config.label)):
            given = {str(number): name for number, name in enumerate(named)}
        if given is None:
            return self._own_names(data, labels)
        if isinstance(given, dict):
            return self._checked(given, labels, f"the labels {list(given)[:_SHOWN]}")
        by_name = {name: name for name in given}
        by_number = {str(number): name for number, name in enumerate(given)}
        if labels <= by_name.keys() and labels <= by_number.keys():
            if any(by_name[label] != by_number[label] for label in labels):
                raise BadInput(
                    f"zero_shot: the labels under {self.config.label!r} may be names of classes or "
                    "their numbers: give 'classes' as a mapping of labels to names"
                )
        elif labels <= by_number.keys():
            return by_number
        elif all(_NUMBER.fullmatch(label) for label in labels):
            known = f"the numbers 0 to {len(given) - 1} of the {len(given)} classes"
            return self._checked(by_number, labels, f"{known}; a mapping numbers them otherwise")
        return self._checked(by_name, labels, f"the classes {given}")

    def _own_names(self, data: EvaluationSet, labels: set[str]) -> dict[str, str]:
        """Let labels be names of classes, if they can be."""
        key = self.config.label
        if len(labels) < 2:
            raise BadInput(f"zero_shot: label {key!r} has only one class")
        numbers = [meta[key] for meta in data.metadata if not isinstance(meta[key], str)]
        if numbers or all(_NUMBER.fullmatch(label) for label in labels):
            found = sorted(labels, key=lambda label: (len(label), label))
            more = f", ... ({len(found)} in all)" if len(found) > _SHOWN else ""
            raise BadInput(
                f"zero_shot: the labels under {key!r} are no names, but "
                f"{', '.join(found[:_SHOWN])}{more}: a model reads "
                f"{self.config.templates[0].replace('{}', found[0])!r}. Give their names as "
                "'classes': a list, for the labels from 0 on; a mapping {0: ..., 1: ...}; or the "
                "path of a text file with one name per line. If the images show these very "
                f"numbers, list them as texts: classes: {[*found[:2], '...']}"
            )
        return {label: label for label in sorted(labels)}

    def _checked(self, names: dict[str, str], labels: set[str], known: str) -> dict[str, str]:
        if unknown := sorted(labels - names.keys()):
            raise BadInput(
                f"zero_shot: the split has labels {unknown[:_SHOWN]} under {self.config.label!r} "
                f"that are not among {known}"
            )
        return names


def mean_per_class(predicted: NDArray[np.int64], target: NDArray[np.int64]) -> float:
    """Return the mean over the classes that occur in ``target`` of the recall of each."""
    correct = (predicted == target).astype(np.float64)
    counts = np.bincount(target)
    recalls = np.bincount(target, weights=correct)[counts > 0] / counts[counts > 0]
    return float(recalls.mean())

"""The extension point: an evaluator turns a model into numbers, on a trusted split."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.dataset.media import Content
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.errors import BadInput
from djsandbox_ray.settings.registry import Registry
from djsandbox_ray.settings.sections import Component


@dataclass(frozen=True)
class Split:
    """An evaluation table: small enough that its captions and metadata are held in memory."""

    id: str
    """Id of the dataset."""
    uri: str
    """The Lance table with the images; ``row_id`` i belongs to ``texts[i]``."""
    texts: tuple[str, ...] = field(repr=False)
    metadata: tuple[dict[str, Any], ...] = field(repr=False)
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    """What the data itself calls the numbers under a key of the metadata, from 0 on, by key."""

    @classmethod
    def read(cls, id: str, uri: str, classes: Mapping[str, tuple[str, ...]]) -> Split:
        """Read the captions and the metadata of an ingested table, whose classes are known."""
        table = SampleTable(uri)
        columns = table.scan(0, table.rows, ["text", "meta"])
        texts = columns["text"].to_pylist()
        metadata = [json.loads(text) for text in columns["meta"].to_pylist()]
        return cls(id, uri, tuple(texts), tuple(metadata), classes)

    def labels(self, key: str) -> list[str]:
        """Return one label per row: the metadata value under ``key``, as text; 3.0 as 3.

        Raises:
            BadInput: a row has no such key, lists the keys that every row has; or its value is a
                list or an object.
        """
        for row, meta in enumerate(self.metadata):
            if isinstance(meta.get(key), list | dict):
                raise BadInput(
                    f"evaluation sample {row} has the label {meta[key]!r:.60} under {key!r}: one "
                    "text or one number is needed"
                )
            if meta.get(key) in (None, ""):
                common = set.intersection(
                    *(
                        {key for key in meta if meta[key] not in (None, "")}
                        for meta in self.metadata
                    )
                )
                raise BadInput(
                    f"evaluation sample {row} has no label {key!r}; "
                    f"every sample has: {', '.join(sorted(common)) or 'none'}"
                )
        return [_label(meta[key]) for meta in self.metadata]


def _label(value: Any) -> str:
    # Whole numbers become fractions where one is missing in the column that they come from.
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


class Encoder(Protocol):
    """What a trained image-text model offers to evaluators. Rows have unit length."""

    def images(self, split: Split) -> NDArray[np.float32]:
        """Embed every image of the split; shape (rows, dimensions)."""

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


Reads = Literal["embeddings", "files", "reports"]
"""What an evaluator looks at: an :class:`Encoder`, an :class:`Artefact`'s folder, or what the
training itself has reported in one."""


class Evaluator(ABC):
    """Measures a trained model on the trusted split; every metric is better when greater."""

    Config: ClassVar[type[Component]] = Component
    VERSION: ClassVar[int] = 1
    """Part of every trial's identity: to be raised when the same model would get other numbers."""
    READS: ClassVar[Reads] = "embeddings"
    """What :meth:`evaluate` is given."""
    CONTENT: ClassVar[tuple[Content, ...]] = ("pairs",)
    """What the samples of the trusted split may be."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def identity(self) -> Any:
        """Return plain data that decides what is measured, beside the model and the split."""
        return self.config.model_dump(mode="json")

    def check(self, split: Split) -> None:  # noqa: B027 - optional
        """Raise :class:`BadInput` if this cannot run on the split; called before training."""

    def label_keys(self) -> tuple[str, ...]:
        """Return keys of the metadata whose numbers are to have the names that the data gives them.

        Where it does, these are in ``Split.classes``, and every sample has a number with a name.
        """
        return ()

    def metric_names(self) -> tuple[str, ...] | None:
        """Return the names of all metrics, if they are known before anything is measured.

        A score that names another metric is then an error of the configuration.
        """
        return None

    @abstractmethod
    def evaluate(self, encoder: Any, split: Split) -> dict[str, float]:
        """Return the metrics, each under its full name such as ``retrieval/image_to_text_r5``.

        Args:
            encoder: an :class:`Encoder`; an :class:`Artefact` where ``READS`` says so.
            split: the trusted split.
        """


EVALUATORS: Registry[Evaluator] = Registry(
    "evaluator",
    Evaluator,  # type: ignore[type-abstract]
    {
        "command": "djsandbox_ray.evaluation.programs:CommandEvaluator",
        "reported": "djsandbox_ray.evaluation.programs:Reported",
        "retrieval": "djsandbox_ray.evaluation.retrieval:Retrieval",
        "zero_shot": "djsandbox_ray.evaluation.zero_shot:ZeroShot",
    },
)

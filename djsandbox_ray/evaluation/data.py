"""What models are measured on: the trusted split, or a benchmark with samples of its own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.errors import BadInput

_LIMIT = b"limit\0"


@dataclass(frozen=True)
class EvaluationSet:
    """An evaluation table: small enough that its texts and metadata are held in memory."""

    id: str
    """Id of the dataset."""
    uri: str
    """The Lance table with the media; ``row_id`` i belongs to ``texts[i]``."""
    rows: int
    texts: tuple[str, ...] = field(default=(), repr=False)
    """One per row, or none at all where nobody reads them."""
    metadata: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    """As ``texts``."""
    classes: Mapping[str, tuple[str, ...]] = field(default_factory=dict, repr=False)
    """What the data itself calls the numbers under a key of the metadata, from 0 on, by key."""

    def __post_init__(self) -> None:
        for name, values in (("texts", self.texts), ("metadata", self.metadata)):
            if values and len(values) != self.rows:
                raise ValueError(f"{self.id}: {len(values)} {name} of {self.rows} rows")

    @classmethod
    def read(
        cls, id: str, uri: str, classes: Mapping[str, tuple[str, ...]] | None = None
    ) -> EvaluationSet:
        """Read the texts and the metadata of an ingested table, whose classes are known."""
        table = SampleTable(uri)
        columns = table.scan(0, table.rows, ["text", "meta"])
        texts = columns["text"].to_pylist()
        metadata = [json.loads(text) for text in columns["meta"].to_pylist()]
        return cls(id, uri, table.rows, tuple(texts), tuple(metadata), classes or {})

    def take(self, rows: Sequence[int], columns: Sequence[str]) -> pa.Table:
        """Read some columns of some rows from the table, in the order of ``rows``.

        Args:
            rows: from 0 on; one may stand several times.
            columns: of the sample table: ``image``, ``text``, ``turns``, ...
        """
        return SampleTable(self.uri).take(rows, list(columns))

    def some(self, limit: int | None) -> list[int]:
        """Return at most so many rows, in order: chosen by chance, the same ones every time.

        Args:
            limit: None for all.
        """
        if limit is None or limit >= self.rows:
            return list(range(self.rows))
        random = np.random.default_rng(self.rows)
        return sorted(random.choice(self.rows, limit, replace=False).tolist())

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


NO_SET = EvaluationSet("", "", 0)
"""What evaluators are given that look at no samples, where there is no trusted split."""


def _label(value: Any) -> str:
    # Whole numbers become fractions where one is missing in the column that they come from.
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def least(groups: Iterable[str], count: int) -> list[str]:
    """Return so many groups: those of the least hash, the same ones everywhere."""
    return sorted(set(groups), key=_hashed)[:count]


def _hashed(group: str) -> tuple[bytes, str]:
    return hashlib.blake2b(_LIMIT + group.encode(), digest_size=8).digest(), group

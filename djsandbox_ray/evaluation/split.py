"""The trusted split that every trial is evaluated on."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from djsandbox_ray.dataset.table import SampleTable
from djsandbox_ray.errors import BadInput


@dataclass(frozen=True)
class Split:
    """An evaluation table: small enough that its captions and metadata are held in memory."""

    id: str
    """Id of the dataset."""
    uri: str
    """The Lance table with the images; ``row_id`` i belongs to ``texts[i]``."""
    texts: tuple[str, ...] = field(repr=False)
    metadata: tuple[dict[str, Any], ...] = field(repr=False)

    @classmethod
    def read(cls, id: str, uri: str) -> Split:
        """Read the captions and the metadata of an ingested table."""
        table = SampleTable(uri)
        columns = table.scan(0, table.rows, ["text", "meta"])
        texts = columns["text"].to_pylist()
        metadata = [json.loads(text) for text in columns["meta"].to_pylist()]
        return cls(id, uri, tuple(texts), tuple(metadata))

    def labels(self, key: str) -> list[str]:
        """Return one label per row: the metadata value under ``key``, as text.

        Raises:
            BadInput: a row has no such key; lists the keys that every row has.
        """
        for row, meta in enumerate(self.metadata):
            if meta.get(key) is None:
                common = set.intersection(
                    *({key for key in meta if meta[key] is not None} for meta in self.metadata)
                )
                raise BadInput(
                    f"evaluation sample {row} has no label {key!r}; "
                    f"every sample has: {', '.join(sorted(common)) or 'none'}"
                )
        return [str(meta[key]) for meta in self.metadata]

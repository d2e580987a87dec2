"""Where statistics lie: per operator a folder of Parquet parts, and a marker when it is complete.

A part holds ``row_id`` and one float64 column per statistic for one range of rows; how it was
computed is in its own footer, so that a killed run loses nothing and a resumed one reports all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from djsandbox_ray.storage import Storage

EXAMPLES = 5
"""Failures that are kept with their reason, per operator."""
THREADS = 8
"""Parts that are read at a time."""
_LEAST_ROWS = 512
_MOST_PARTS = 2048
_FOOTER = b"djsandbox_ray"


@dataclass(frozen=True)
class PartReport:
    """How one part came about."""

    rows: int
    missing: dict[str, int]
    """Per statistic: rows without a value."""
    failed: int
    """Rows at which the operator raised an error; they are among the missing."""
    examples: tuple[tuple[int, str], ...]
    """The first failures: (row_id, reason)."""
    seconds: float
    """Computing time of the operator, in seconds of one actor."""
    flops_per_sample: float | None = None
    """Floating-point operations of the operator's model, if this is the part they are counted in
    and they can be."""

    def __add__(self, other: PartReport) -> PartReport:
        """Return the report of two parts together."""
        return replace(
            self,
            rows=self.rows + other.rows,
            missing={key: self.missing[key] + other.missing[key] for key in self.missing},
            failed=self.failed + other.failed,
            examples=(self.examples + other.examples)[:EXAMPLES],
            seconds=self.seconds + other.seconds,
            flops_per_sample=(
                other.flops_per_sample if self.flops_per_sample is None else self.flops_per_sample
            ),
        )


def ranges(rows: int) -> Iterator[tuple[int, int]]:
    """Cut a table into ranges (start, stop), the same for every run on it; at most 2,048."""
    step = _LEAST_ROWS * max(1, -(-rows // (_LEAST_ROWS * _MOST_PARTS)))
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


def folder(dataset_id: str, operator: str) -> str:
    """Return the folder of an operator's parts."""
    return f"datasets/{dataset_id}/stats/{operator}.parquet"


def marker(dataset_id: str, operator: str) -> str:
    """Return the path of what says that an operator is complete."""
    return f"datasets/{dataset_id}/stats/{operator}.json"


def part(parts: str, start: int) -> str:
    """Return the path of the part that begins with row ``start``; sorted by name, by row."""
    return f"{parts}/part-{start:012d}.parquet"


def files(storage: Storage, parts: str) -> list[str]:
    """Return the paths of the parts in a folder, by row; of a single file, that file."""
    names = [name for name in storage.names(parts) if name.startswith("part-")]
    return [f"{parts}/{name}" for name in names] or [parts]


def write_part(
    storage: Storage,
    path: str,
    row_ids: NDArray[np.int64],
    columns: dict[str, NDArray[np.float64]],
    report: PartReport,
) -> None:
    """Write a part whole, with its report in the footer."""
    data: dict[str, Any] = {"row_id": row_ids, **columns}
    footer = {_FOOTER: json.dumps(asdict(report)).encode()}
    storage.write_table(path, pa.table(data).replace_schema_metadata(footer))


def read_report(storage: Storage, path: str) -> PartReport | None:
    """Return how a part came about, or None if there is no such part."""
    if not storage.exists(path):
        return None
    metadata = storage.read_table(path, columns=[]).schema.metadata or {}
    if _FOOTER not in metadata:
        return None
    found = json.loads(metadata[_FOOTER])
    found["examples"] = tuple((row, reason) for row, reason in found["examples"])
    return PartReport(**found)

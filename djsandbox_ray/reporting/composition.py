"""How pools are made up, by a label that the samples carry."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray


def label_shares(
    labels: Iterable[list[str]], membership: Iterable[NDArray[np.bool_]]
) -> tuple[list[str], NDArray[np.float64]]:
    """Return what share of every pool has which label.

    Args:
        labels: the label of every row, in chunks.
        membership: per chunk, which rows are in which pool; shape (pools, rows of the chunk).

    Returns:
        The different labels, the most frequent first, and the shares, shape (pools, labels).
    """
    counts: Counter[str] = Counter()
    in_pools: list[Counter[str]] = []
    for chunk, mask in zip(labels, membership, strict=True):
        in_pools = in_pools or [Counter() for _ in mask]
        values = np.array(chunk, dtype=object)
        counts.update(chunk)
        for counter, members in zip(in_pools, mask, strict=True):
            counter.update(values[members])
    names = [name for name, _ in counts.most_common()]
    table = np.array([[counter[name] for name in names] for counter in in_pools], dtype=np.float64)
    totals = table.sum(axis=1, keepdims=True)
    return names, np.divide(table, totals, out=np.zeros_like(table), where=totals > 0)


def read_labels(meta: Iterable[list[str]], key: str) -> Iterator[list[str]]:
    """Yield the label under ``key`` of every row from chunks of metadata in JSON."""
    for chunk in meta:
        yield [str(json.loads(text).get(key, "(none)")) for text in chunk]

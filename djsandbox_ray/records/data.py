"""The samples and what is known of each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Dataset:
    """A sample table: image-text pairs, ingested once, random access by ``row_id``."""

    id: str
    """Fingerprint of the content of the samples, in order, and of where shards begin."""
    table: str
    """The Lance table; a sample's ``row_id`` is its position in it."""
    rows: int
    rejected: int
    """Samples that were set aside; ``rejected.parquet`` beside the table says why."""
    use: str = "training"
    """What the run reads it for: ``training`` or ``evaluation``."""


@dataclass(frozen=True)
class Leak:
    """Evaluation samples that also occur among the training samples."""

    id: str
    path: str
    """Parquet with ``row_id`` (training) and ``evaluation_row_id``, by exact hash of the pair."""
    rows: int
    """Training rows concerned."""
    removed: bool
    """Whether these rows are kept out of every pool."""


@dataclass(frozen=True)
class Scorer:
    """A CLIP trained on a trusted subset, saved as a Hugging Face folder."""

    id: str
    path: str


@dataclass(frozen=True)
class Statistic:
    """One number per sample, computed by a Data-Juicer operator."""

    name: str
    """Unique in a run: the key that Data-Juicer writes, with parameters where two would collide."""
    key: str
    """The key that Data-Juicer writes; the column in ``path``."""
    operator: str
    operator_id: str
    path: str
    """Parquet folder with ``row_id`` and one column per statistic of the operator."""


@dataclass(frozen=True)
class Statistics:
    """The statistics of one dataset."""

    id: str
    statistics: tuple[Statistic, ...]

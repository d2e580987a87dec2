"""The samples, what is known of each, and sets of them: how studies draw from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal


@dataclass(frozen=True)
class Dataset:
    """A sample table: texts with their media, ingested once, random access by ``row_id``."""

    id: str
    """Fingerprint of the content of the samples, in order, and of where shards begin."""
    table: str
    """The Lance table; a sample's ``row_id`` is its position in it."""
    rows: int
    rejected: int
    """Samples that were set aside; ``rejected.parquet`` in the dataset's folder says why."""
    use: str = "training"
    """What the run reads it for: ``training`` or ``evaluation``."""
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """What the source itself calls the numbers under a key of the meta data, from 0 on, by key;
    of the keys that were asked for."""
    modalities: tuple[str, ...] = ("text", "image")
    """What samples have: ``text``, and ``image``, ``video`` or ``turns`` where any has."""
    pairs: bool = True
    """Whether each is one image and its caption, and nothing else."""


@dataclass(frozen=True)
class SharedMedium:
    """An image or a video that is in evaluation samples and in many training samples."""

    kind: str
    """``image`` or ``video``."""
    rows: int
    """Training rows that have it."""
    row_id: int
    """The first of them."""
    evaluation_row_id: int
    """The first evaluation row that has it."""


@dataclass(frozen=True)
class Evaluation:
    """What models are measured on: the trusted split, and benchmarks with samples of their own."""

    id: str
    sets: tuple[Dataset, ...]
    """Sample tables, each once, whoever reads it: the trusted split is the first one."""
    measured: tuple[str, ...]
    """Per evaluator, in the order of the configuration, the id of its set; empty for none."""


@dataclass(frozen=True)
class Leak:
    """Evaluation samples that also occur among the training samples."""

    id: str
    path: str
    """Parquet with ``row_id`` (training), ``evaluation_row_id`` and ``shared``: the ``sample``, or
    only an ``image`` or a ``video`` of it; all by exact hash."""
    rows: int
    """Training rows concerned."""
    removed: bool
    """Whether these rows are kept out of every pool."""
    by_medium: int = 0
    """How many of them share no whole sample, only an image or a video."""
    widespread: tuple[SharedMedium, ...] = ()
    """What each is in more than a hundredth of all training rows, and in two at least; the most
    frequent first."""


@dataclass(frozen=True)
class Scorer:
    """A CLIP trained on a trusted subset, saved as a Hugging Face folder."""

    id: str
    path: str


@dataclass(frozen=True)
class Foundation:
    """What all trials of a model start from, and the data of the stages that are the same for all.

    Of a model that needs neither, everything is empty.
    """

    id: str
    """Part of the id of every trial that stands on it."""
    base: str
    """Folder of what trials start from and never change."""
    fixed: Mapping[str, Dataset]
    """By the names that the model has for them."""


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


Spoil = Literal["captions", "frames"]
"""How a self-test spoils samples: every caption of a draw is replaced by another one of it, or
every video by its first frame, repeated."""


class PoolKind(StrEnum):
    """What a pool is for."""

    BUCKET = "bucket"
    """Low, middle or high part of a statistic, or a combination: what the run asks about."""
    CONTROL = "control"
    """A random bucket, built like a pool: what pools are compared with."""
    SELF_TEST = "self_test"
    """A pool whose verdict is known beforehand."""


@dataclass(frozen=True)
class Pool:
    """A set of rows, all pools of a run of one size. Its rows: ``assignments[column] == code``."""

    id: str
    """``<statistic>/<bucket>``, ``control/<n>`` (of some studies ``control/<study>/<n>``) or
    ``self_test/<name>``."""
    kind: PoolKind
    column: str
    """Column of ``assignments.parquet``."""
    code: int
    """The value of that column for the rows of this pool."""
    size: int
    hash: str
    """Hash of the row ids (and of what is done to the samples, if anything)."""
    statistic: str | None = None
    bucket: str | None = None
    operator: str | None = None
    """The operator that computes the statistic."""
    low: float | None = None
    """Least value of the statistic in the pool."""
    high: float | None = None
    """Greatest value of the statistic in the pool."""
    ties: int = 0
    """Rows of the dataset whose value equals a cut of this bucket: the hash placed them."""
    spoil: Spoil | None = None
    """What is done to the samples of a draw, so that they must be worse (self-test)."""
    expected: str | None = None
    """Self-tests: the verdict that must come out."""
    parts: tuple[str, ...] = ()
    """Combinations: the pools whose rows it has in common; it has no statistic of its own."""
    draw_size: int | None = None
    """Rows that one trial trains on, where it is not :attr:`Pools.draw_size`."""
    breaks: tuple[str, ...] = ()
    """Policies that its rows break, a sentence each: such a pool is trained, but never exported."""


@dataclass(frozen=True)
class NotTestable:
    """A statistic that gets no pools and costs no trial."""

    statistic: str
    reason: str


@dataclass(frozen=True)
class StudyPlan:
    """How the pools of a study are trained and judged: what makes one study another than the next.

    The first study of a run, ``trials``, trains all its pools; later ones look again at some.
    """

    name: str
    """Names the study: in the ledger, in the tracker, on the terminal, and its files of trials."""
    seeds: tuple[int, ...]
    """A trial of each pool with each of these."""
    ranking: str = ""
    """The file with its verdicts; by default the study's name begins it."""
    race: bool = False
    """Whether pools may be given up early, as ``trials.early_stopping`` says; else never."""
    optional: bool = True
    """Whether the run goes on even if every trial fails."""


@dataclass(frozen=True)
class Pools:
    """All pools of a study, of one size, and how seeds draw from them."""

    id: str
    assignments: str
    """Parquet: ``row_id`` and one int8 column per statistic, control and self-test."""
    pools: tuple[Pool, ...]
    size: int
    """Rows of every pool."""
    draw_size: int
    """Rows that one trial trains on."""
    eligible: int
    """Rows of the dataset that pools are made of; the others are kept out of every pool."""
    seed: int
    study: StudyPlan | None = None
    """How they are trained and judged; None: as those of the first study of a run."""
    not_testable: tuple[NotTestable, ...] = ()
    contrast: dict[str, float] = field(default_factory=dict)
    """Per statistic: probability that a row of the high bucket exceeds a row of the low one."""
    missing: dict[str, int] = field(default_factory=dict)
    """Per statistic: rows without a value."""

"""What crosses the borders between stages: read this first.

Frozen dataclasses of plain values, so that every one has a JSON form. Paths are relative to the
storage. A record's ``id`` stands for its content: two records with one id describe the same thing.

In the order of a run: ``data``, ``pools``, ``trials``, ``verdicts``, ``outcome``.
"""

from djsandbox_ray.records.data import Dataset, Leak, Scorer, Statistic, Statistics
from djsandbox_ray.records.outcome import Cost, Ledger, Report
from djsandbox_ray.records.pools import NotTestable, Pool, PoolKind, Pools
from djsandbox_ray.records.trials import RungReport, TrialRecord, Trials, TrialSpec, TrialState
from djsandbox_ray.records.verdicts import (
    Confirmation,
    ConfirmationRow,
    FlipRow,
    LearningRateCheck,
    Noise,
    Ranking,
    RankingRow,
)

__all__ = [
    "Confirmation",
    "ConfirmationRow",
    "Cost",
    "Dataset",
    "FlipRow",
    "Leak",
    "LearningRateCheck",
    "Ledger",
    "Noise",
    "NotTestable",
    "Pool",
    "PoolKind",
    "Pools",
    "Ranking",
    "RankingRow",
    "Report",
    "RungReport",
    "Scorer",
    "Statistic",
    "Statistics",
    "TrialRecord",
    "TrialSpec",
    "TrialState",
    "Trials",
]

"""What crosses the borders between stages: read this first.

Frozen dataclasses of plain values, so that every one has a JSON form. Paths are relative to the
storage. A record's ``id`` stands for its content: two records with one id describe the same thing.

In the order of a run: ``data`` (samples, statistics, pools), ``trials``, ``verdicts``,
``combinations`` (and what they are worth at scale), ``recipes`` (and what the run shows).
"""

from djsandbox_ray.records.combinations import (
    Choice,
    Diversity,
    DiversityRow,
    InteractionRow,
    Interactions,
    Repetition,
    RepetitionRow,
    Scaling,
    ScalingRow,
    SurrogateRow,
)
from djsandbox_ray.records.data import (
    Dataset,
    Evaluation,
    Foundation,
    Leak,
    NotTestable,
    Pool,
    PoolKind,
    Pools,
    Scorer,
    Spoil,
    Statistic,
    Statistics,
    StudyPlan,
)
from djsandbox_ray.records.recipes import (
    Acceptance,
    Cost,
    Insights,
    Ledger,
    Range,
    Recipe,
    Report,
    Thresholds,
)
from djsandbox_ray.records.trials import RungReport, TrialRecord, Trials, TrialSpec, TrialState
from djsandbox_ray.records.verdicts import (
    Aggregate,
    Confirmation,
    ConfirmationRow,
    FlipRow,
    LearningRateCheck,
    Noise,
    Ranking,
    RankingRow,
)

__all__ = [
    "Acceptance",
    "Aggregate",
    "Choice",
    "Confirmation",
    "ConfirmationRow",
    "Cost",
    "Dataset",
    "Diversity",
    "DiversityRow",
    "Evaluation",
    "FlipRow",
    "Foundation",
    "Insights",
    "InteractionRow",
    "Interactions",
    "Leak",
    "LearningRateCheck",
    "Ledger",
    "Noise",
    "NotTestable",
    "Pool",
    "PoolKind",
    "Pools",
    "Range",
    "Ranking",
    "RankingRow",
    "Recipe",
    "Repetition",
    "RepetitionRow",
    "Report",
    "RungReport",
    "Scaling",
    "ScalingRow",
    "Scorer",
    "Spoil",
    "Statistic",
    "Statistics",
    "StudyPlan",
    "SurrogateRow",
    "Thresholds",
    "TrialRecord",
    "TrialSpec",
    "TrialState",
    "Trials",
]

"""What becomes of good pools together, with repetition, more data and compute, and in a chain."""

from __future__ import annotations

import math
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Choice:
    """Pools of the single-operator stage that are worth combining, best first; maybe none."""

    id: str
    pools: tuple[str, ...]
    path: str
    """JSON: how they were chosen."""
    figure: str | None = None
    """PNG: the heat map with its dendrogram, where they were chosen by clustering."""


@dataclass(frozen=True)
class InteractionRow:
    """One quantity of the factorial model of a pyramid of combinations."""

    kind: str
    """main, interaction or shapley."""
    parts: str
    """The pools concerned, joined by " & "."""
    order: int
    """How many pools are concerned."""
    effect: float
    """In the unit of the ranking. main: mean over the other factors of adding this one;
    interaction of two: what they do together beyond what they do apart; of more: beyond what the
    effects of fewer of them add up to; shapley: a pool's fair share of the effect of all."""
    low: float
    high: float
    """Simultaneous interval over all rows."""
    verdict: str
    """undecided where the interval holds 0; else helps or hurts. Of three and more pools: more or
    less, for they may help each other and still do less than their pairs let expect."""
    contexts: int
    """Sets of the other pools that the effect is averaged over: those that were trained."""
    all_contexts: int
    """All sets of the other pools, none of them included."""


@dataclass(frozen=True)
class SurrogateRow:
    """A combination as the model of main and pairwise effects predicts it."""

    pool: str
    predicted: float
    low: float
    high: float
    measured: float = math.nan
    """NaN for one that was not trained."""
    held_out: bool = False
    """Whether its own measurement had no part in the prediction."""


@dataclass(frozen=True)
class Interactions:
    """Which pools help or hurt each other."""

    id: str
    path: str
    """CSV: one :class:`InteractionRow` per quantity."""
    surrogate: str
    """CSV: one :class:`SurrogateRow` per combination."""
    notes: tuple[str, ...] = ()
    """What was left out, or rests on a part of the combinations."""


@dataclass(frozen=True)
class RepetitionRow:
    """A strategy to fill a training of so many samples, with its effect over seeds."""

    strategy: str
    """repeat (the top pool again), expand (the next layers, each row once) or random."""
    factor: int
    """Samples seen over rows of the top pool's draw."""
    samples: int
    """Samples seen: equal for all strategies of one factor."""
    rows: int
    """Different rows among them."""
    effect: float
    """Mean over seeds of the score less that of ``random`` at the same factor and seed, in the unit
    of the ranking: 0 for ``random`` itself, the baseline."""
    low: float
    high: float
    """95 % interval of the effect over seeds: of these rows, not of others of the same kind. NaN
    for ``random``."""
    seeds: int
    """Those in which both have a result."""
    score: float = math.nan
    """Mean over seeds of the change against the controls of the single-operator stage. These saw
    another number of samples: it says nothing by itself, only beside the scores of other rows."""


@dataclass(frozen=True)
class Repetition:
    """Repetition against diversity."""

    id: str
    path: str
    """CSV: one :class:`RepetitionRow` per strategy and factor."""
    law: str
    """JSON: the fit of the effective-data law, where repetition stops paying, or why neither."""
    figure: str


@dataclass(frozen=True)
class ScalingRow:
    """An arm at one budget and one model size."""

    arm: str
    model: str
    budget: int
    flops: float
    """Of the whole training."""
    error: float
    """1 - mean of the metrics of the score, mean over seeds."""
    low: float
    high: float
    """95 % interval over seeds."""
    seeds: int


@dataclass(frozen=True)
class Scaling:
    """How errors fall with compute."""

    id: str
    path: str
    """CSV: one :class:`ScalingRow` per arm, model and budget."""
    law: str
    """JSON: power laws with intervals, the predicted effect, crossings, or why none."""
    figure: str


@dataclass(frozen=True)
class DiversityRow:
    """How varied a pool is, beside what it does."""

    pool: str
    measure: str
    """word_entropy, distinct_1, distinct_2, distinct_3 or embedding."""
    value: float
    low: float
    high: float
    """95 % jackknife interval over rows."""
    change: float
    """The pool's effect; NaN where it has none."""


@dataclass(frozen=True)
class Diversity:
    """How varied the pools are."""

    id: str
    path: str
    """CSV: one :class:`DiversityRow` per pool and measure."""


@dataclass(frozen=True)
class EvolutionRow:
    """A stage of self-evolution, in the form of the paper's Table 10."""

    stage: str
    pool: str
    rows: int
    """That a trial draws from the pool."""
    init: str
    """What training began with: ``base`` or a stage."""
    teacher: str
    """Whose steps were learnt: ``base`` or a stage; empty where none were."""
    self_distillation: bool
    """Whether the teacher was a stage."""
    real_loss: bool
    """Whether the loss had a term for the videos of the pool."""
    self_evolution: bool
    """Whether that teacher had been taught by a stage in its turn."""
    samples: int
    """Seen in training."""
    seeds: int
    """Trials that came to their end."""
    quality: float = math.nan
    """VBench's, the mean over seeds; NaN where it was not measured, as the next two."""
    semantic: float = math.nan
    total: float = math.nan


@dataclass(frozen=True)
class EvolutionMetric:
    """A metric of a stage over seeds."""

    stage: str
    metric: str
    value: float
    """The mean."""
    low: float
    high: float
    """95 % interval over seeds: of these rows; NaN with one seed."""
    change: float
    """The mean difference to the stage before, within seeds; NaN for the first."""
    change_low: float
    change_high: float
    seeds: int


@dataclass(frozen=True)
class Evolution:
    """A chain of trainings that go on from each other."""

    id: str
    path: str
    """CSV: one :class:`EvolutionRow` per stage."""
    metrics: str
    """CSV: one :class:`EvolutionMetric` per stage and metric."""
    text: str
    """Markdown: the table, and where the models of the stages are."""
    models: dict[str, str]
    """By stage, the folder in the storage with what was trained, by seed, as peft writes it."""
    seeds: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """By stage, those whose training came to its end; empty where an earlier version wrote it."""

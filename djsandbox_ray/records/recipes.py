"""What a run hands over: thresholds and a recipe for Data-Juicer, what it cost, what it shows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """The values of a statistic that are kept, bounds included."""

    statistic: str
    low: float | None
    high: float | None

    @property
    def text(self) -> str:
        """As a reader would write it: ``text_len in [10, 64]``."""
        low = "-inf" if self.low is None else f"{self.low:g}"
        high = "inf" if self.high is None else f"{self.high:g}"
        return f"{self.statistic} in [{low}, {high}]"


@dataclass(frozen=True)
class Thresholds:
    """What to keep: rows that are inside every range."""

    id: str
    ranges: tuple[Range, ...]
    source: str
    """Who proposed them: the refiner and what it looked at, in one line."""
    pool: str
    """The pool whose effect stands behind them; empty where none was trained for it."""
    path: str
    """JSON: these, and how they came about."""


@dataclass(frozen=True)
class Recipe:
    """A Data-Juicer recipe and the evidence for it."""

    id: str
    path: str
    """YAML for Data-Juicer."""
    evidence: str
    """JSON: dataset, versions, pool, effect with interval, retention, cost, caveats."""
    retention: float
    """Share of the dataset's rows that it keeps, by the statistics table."""
    effect: float
    """The measured change of the pool behind it; NaN where none was measured."""
    confirmed: bool = False
    """Whether the effect is that of a second look, which had no part in the choice."""
    broken_policies: tuple[str, ...] = ()
    """Limits that it breaks: such a recipe is not exported."""


@dataclass(frozen=True)
class Acceptance:
    """Whether Data-Juicer itself keeps the rows that the statistics promised."""

    id: str
    path: str
    """JSON: counts, and the first rows that differ."""
    rows: int
    kept: int
    differing: int
    """Without those of ``several``."""
    several: int = 0
    """Rows that differ as their values say: an operator compares each of several media, and keeps a
    row without any, or without the second text that it compares theirs with."""
    apart: str = ""
    """Their table; empty without any."""


@dataclass(frozen=True)
class Insights:
    """What was observed, in sentences that the tables bear out."""

    id: str
    path: str
    """``insights.md``."""


@dataclass(frozen=True)
class Cost:
    """What one stage of a run cost."""

    stage: str
    samples: int
    """Samples that went through a model or operator."""
    flops: float | None
    """Floating-point operations; None where nobody counted."""
    cpu_seconds: float
    """Seconds times CPUs that the stage held."""
    gpu_seconds: float
    wall_seconds: float
    fixed_samples: int = 0
    """Of the samples, those of trials' stages on fixed data, the same for every pool."""
    fixed_flops: float | None = 0.0
    """Of the operations, those of these stages; None where nobody counted."""


@dataclass(frozen=True)
class Ledger:
    """What the run cost."""

    id: str
    path: str
    """JSON: one :class:`Cost` per stage, and the total."""


@dataclass(frozen=True)
class Report:
    """What a run shows."""

    id: str
    path: str
    """The page, ``report.html``."""
    figure: str
    """The bar chart, PNG."""
    summary: tuple[str, ...] = ()
    """What to know beside the ranking, in plain words."""
    answer: tuple[tuple[str, str], ...] = ()
    """What to keep, what that is worth, how sure it is and what to do next: sentences, each with
    the word that says which of them it is."""
    videos: str = ""
    """Frames of what models made, PNG; empty where none made any that stayed."""

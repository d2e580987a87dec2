"""What a run cost, and what it shows."""

from __future__ import annotations

from dataclasses import dataclass


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

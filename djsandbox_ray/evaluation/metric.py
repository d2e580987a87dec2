"""What a metric is called, and how its numbers are to be read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One number that an evaluator gives for a model."""

    name: str
    """Its full name, such as ``retrieval/image_to_text_r5``."""
    better: Literal["greater", "less"] = "greater"
    """Which of two models with different numbers is the better one."""
    low: float | None = None
    """The least number there can be; None where there is none."""
    high: float | None = None
    """The greatest number there can be; None where there is none."""
    chance: float | None = None
    """What a model that knows nothing gets on average."""
    scored: bool = True
    """Whether it is part of the score by default; sub-scores and shares of unreadable answers are
    shown beside it."""

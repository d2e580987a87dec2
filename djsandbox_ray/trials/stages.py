"""The stages of a trial: the probed budget first, behind it what is the same for every pool.

The pool feeds the stage that is probed, whose samples are ``trials.budget``. A family may add
stages on fixed data, without which its model cannot be judged: a projector alone answers no
question. Rungs lie only where the model can be judged, and samples are counted through all stages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from djsandbox_ray.errors import BadInput


@dataclass(frozen=True)
class Stage:
    """A part of a training, with data, schedule and optimizer of its own."""

    name: str
    samples: int
    """Samples seen in it."""
    judged: bool = True
    """Whether the model can be evaluated while it is trained in this stage."""
    flops_per_sample: float | None = None
    """Floating-point operations of training on one sample; None where nobody has counted."""


def total(stages: Sequence[Stage]) -> int:
    """Return the samples seen in all stages."""
    return sum(stage.samples for stage in stages)


def judged_from(stages: Sequence[Stage]) -> int:
    """Return how many samples are seen before a model can be evaluated at any later moment.

    Behind the last stage a model can always be evaluated: without any stage that is judged, that is
    the total.
    """
    seen, start = 0, 0
    for stage in stages:
        seen += stage.samples
        start = start if stage.judged else seen
    return start


def check_rungs(stages: Sequence[Stage], rungs: Sequence[int]) -> None:
    """Look whether a model can be judged at rungs.

    Args:
        stages: of a trial.
        rungs: samples seen at them; the last is the whole training, where it always can.

    Raises:
        BadInput: it cannot at one of them; names its stage and the first rung that is possible.
    """
    start = judged_from(stages)
    early = [rung for rung in rungs[:-1] if rung <= start]
    if early:
        stage = next(
            stage for stage, end in zip(stages, ends(stages), strict=True) if early[0] <= end
        )
        first = f"the first possible one is {start + 1:,}" if start < total(stages) else "at none"
        raise BadInput(
            f"a rung at {early[0]:,} samples lies in or before the stage {stage.name!r}, where the "
            f"model cannot be judged; {first}"
        )


def ends(stages: Sequence[Stage]) -> list[int]:
    """Return the samples seen in all when each stage ends."""
    return list(accumulate(stage.samples for stage in stages))


def flops(stages: Sequence[Stage], samples: int) -> float | None:
    """Return the operations of training up to so many samples, stage after stage.

    None where a stage that was begun was not counted: a part would look like the whole.
    """
    spent, left = 0.0, samples
    for stage in stages:
        seen = min(left, stage.samples)
        if seen and stage.flops_per_sample is None:
            return None
        spent += seen * (stage.flops_per_sample or 0.0)
        left -= seen
    return spent

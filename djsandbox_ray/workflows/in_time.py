"""A study that ends in time: how large a model, a budget and a pool this machine has time for.

What a study takes is counted as if nothing was given up early; a calibration says how fast each
model is here. The largest model is taken whose budget teaches it something.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from djsandbox_ray.config import RunConfig
from djsandbox_ray.errors import BadInput, require
from djsandbox_ray.hooks.hook import Planned
from djsandbox_ray.hooks.plans import confirmation_plan, first_pools
from djsandbox_ray.trials.clip.family import ClipConfig

_TRAINING, _READING = 0.6, 0.2
"""Shares of the time: for all trainings with their evaluations, and for reading the data and their
statistics. What is left starts processes, and is for the machine to be busy otherwise."""
_START = 30.0
"""Seconds that Ray and its first workers take."""
_BETWEEN = 0.5
"""Seconds between two trials."""
_READ = 300.0
"""Rows of pairs that one CPU reads in a second, with the statistics of five filters: a careful
guess, as pictures differ in size."""
_FORWARD = 1 / 3
"""What it takes to evaluate a sample, of what it takes to train on one."""
_PASSES = 4
"""How often a training sees each sample of its draw, where there are more data than time."""
_MOST_PASSES = 20
"""Beyond that, a model learns its draw by heart."""
_STEPS, _LEAST_STEPS = 200, 50
"""In which a model learns something, and without which the smallest does not, either."""
_LEAST_BATCH = 4


@dataclass(frozen=True)
class Machine:
    """What there is to train on."""

    cpus: int
    gpus: int = 0

    @classmethod
    def here(cls) -> Machine:
        """Return what this process may use."""
        torch = require("torch", "clip")
        return cls(len(os.sched_getaffinity(0)), int(torch.cuda.device_count()))

    @property
    def workers(self) -> int:
        """How many trials run at once."""
        return self.gpus or self.cpus

    @property
    def each(self) -> tuple[int, int]:
        """CPUs and GPUs of a trial."""
        return (max(1, min(4, self.cpus // self.gpus)), 1) if self.gpus else (1, 0)

    @property
    def text(self) -> str:
        """In words."""
        counts = ((self.cpus, "CPU"), (self.gpus, "GPU"))
        return " and ".join(f"{count} {name}{'s' * (count > 1)}" for count, name in counts if count)

    def models(self) -> Sequence[tuple[str, int]]:
        """Return architectures and sizes of batches, the largest first."""
        shipped = [("small", 128), ("tiny", 64)]
        return [("ViT-B-32", 256), *shipped] if self.gpus else shipped


@dataclass(frozen=True)
class Fit:
    """What a machine has time for."""

    arch: str
    batch: int
    speed: float
    """Samples that a worker trains on in a second."""
    budget: int
    """Samples seen by every trial."""
    rows: int | None
    """So many rows of the data are read: pools are cut from these; None for all."""
    minutes: float
    """That the run takes by that, at most."""


def fit(
    config: RunConfig,
    rows: int | None,
    minutes: float,
    machine: Machine,
    speed: Callable[[str, int], float],
) -> Fit:
    """Return the study that a machine has time for.

    Args:
        config: with its operators, pools, seeds and evaluation; its model and budget do not count.
        rows: of the data; None where nobody knows.
        minutes: for all of the run.
        machine: what there is.
        speed: returns how many samples of a model with batches of a size one worker trains on in a
            second.

    Raises:
        BadInput: there is no time for anything.
    """
    seconds = max(60 * minutes - _START, 0.0)
    reads = _READING * seconds * machine.cpus * _READ
    within = reads if rows is None else min(rows, reads)
    part = config.pools.draw_share / config.pools.buckets
    trials, evaluated = _trials(config), _evaluated(config)
    held = _TRAINING * seconds * machine.workers / trials
    """Seconds of a trial."""
    needed: list[float] = []
    models = machine.models()
    for arch, largest in models:
        batch = min(largest, max(_LEAST_BATCH, int(within * part / 2)))
        try:
            pace = speed(arch, batch)
        except MemoryError:  # a smaller one may have room
            continue
        is_last = arch == models[-1][0]
        least = batch * (_LEAST_STEPS if is_last else _STEPS)
        budget = int((held - _BETWEEN) * pace - evaluated)
        used = max(0.0, min(within, budget / _PASSES / part))
        unspoilt = round(_MOST_PASSES * used * part)
        if budget >= least and (is_last or unspoilt >= least):
            budget = min(budget, max(unspoilt, least))
            training = trials * ((budget + evaluated) / pace + _BETWEEN) / machine.workers
            takes = training + used / _READ / machine.cpus + _START
            read = None if rows is not None and used >= rows else round(used)
            return Fit(arch, batch, pace, budget, read, takes / 60)
        needed.append((least + evaluated) / pace + _BETWEEN)
    if not needed:
        raise BadInput(f"--minutes: {machine.text} has no room for any model")
    takes = min(needed) * trials / machine.workers / _TRAINING + _START
    raise BadInput(
        f"--minutes {minutes:g} is too short for {trials} trials on {machine.text}: "
        f"{math.ceil(takes / 60)} are needed, or fewer operators"
    )


def calibrated(machine: Machine) -> Callable[[str, int], float]:
    """Return what measures how fast a worker of this machine trains a model."""
    from djsandbox_ray.trials.clip.calibration import samples_per_second

    cpus, gpus = machine.each

    def speed(arch: str, batch: int) -> float:
        config = ClipConfig(type="clip", arch=arch, batch_size=batch)
        try:
            return samples_per_second(config, cpus, gpus)
        except require("torch", "clip").OutOfMemoryError as error:
            raise MemoryError(str(error)) from None

    return speed


def _trials(config: RunConfig) -> int:
    """Return how many trials a run of single operators has at most, with its second look."""
    again = (config.confirm.top + config.confirm.controls) if config.confirm.top else 0
    first = first_pools(Planned(), config) * len(config.trials.seed_numbers)
    return first + again * len(confirmation_plan(config).seeds)


def _evaluated(config: RunConfig) -> float:
    """Return what evaluating a trial takes, in samples that it would train on."""
    rows = getattr(config.evaluation.dataset, "rows", None) or (0, 0)
    times = len(config.trials.early_stopping.rungs) + 1
    return times * (rows[1] - rows[0]) * _FORWARD

"""Models whose error follows the law of effective data, on the planted rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from planted_world import worth

from djsandbox_ray.analysis.scale.effective_data import effective_rows
from djsandbox_ray.records import RungReport
from djsandbox_ray.settings.sections import Component
from djsandbox_ray.trials.family import Diverged, ModelFamily, TrialTask

HALF_LIFE = 3.0
FLOPS = {"small": 1e6, "large": 4e6}


class Settings(Component):
    """Two sizes."""

    arch: Literal["small", "large"] = "small"
    batch_size: int = 20
    hopeless: bool = False


class Decaying(ModelFamily):
    """Its error falls with the rows that the training is worth, and with their quality."""

    Config = Settings

    def flops_per_sample(self) -> float:
        return FLOPS[self.config.arch]

    def train(self, task: TrialTask, shared: Any) -> Iterator[RungReport]:
        if self.config.hopeless and task.rungs[-1] != 300:
            raise Diverged("the training loss is nan")
        noise = np.random.default_rng([task.seed, int(task.rows[0])]).normal(0, 0.001)
        seen = np.array([float(task.rungs[-1])])
        rows = effective_rows(np.array([float(len(task.rows))]), seen, HALF_LIFE)[0]
        quality = float(worth()[task.rows].mean())
        floor = 0.1 if self.config.arch == "small" else 0.05
        error = floor + (0.5 - 0.1 * quality) * (rows / 100) ** -0.5 + noise
        for rung in task.rungs:
            yield RungReport(rung, 1.0, {"worth": 1 - error}, 0.1, 0.0, 1_700_000_000_000)

"""A model family that trains nothing, prints what it does, and fails on some draws."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from djsandbox_ray.records import RungReport
from djsandbox_ray.trials.family import ModelFamily, TrialTask


def fails(seed: int, first_row: int) -> bool:
    """Say whether the trial of a draw fails."""
    return seed == 1 and first_row % 5 == 0


class Talker(ModelFamily):
    """Its score is the mean row id of the draw, with some noise."""

    def train(self, task: TrialTask, shared: Any) -> Iterator[RungReport]:
        """Print on stdout, on stderr and in a child process, then report or fail."""
        print(f"seed {task.seed} on rank {task.group.rank}")
        subprocess.run(["echo", "a child process says hello"], check=True)
        if fails(task.seed, int(task.rows[0])):
            print("it will end badly: token=PLANTED", file=sys.stderr)
            raise KeyError("no such thing")
        noise = float(np.random.default_rng(int(task.rows[0])).normal(0, 0.01))
        for rung in task.rungs:
            score = 0.5 + float(task.rows.mean()) / 1e4 + noise
            yield RungReport(rung, 1.0, {"m": score}, rung / 100, 0.1, time.time_ns() // 10**6)

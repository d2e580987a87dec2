"""A family that goes on from what an earlier stage has kept, and a chain of three stages of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from planted_world import EVALUATION, TRAIN, context_of, first_pools, worth

from djsandbox_ray.hooks.evolve import Evolve
from djsandbox_ray.records import Evolution, RungReport
from djsandbox_ray.settings.sections import Component
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.family import Diverged, ModelFamily, TrialTask
from djsandbox_ray.trials.lora import AdapterFolder
from djsandbox_ray.trials.t2v.distil import ConsistencyConfig

LEARNT = "learnt.json"
TRAINED: list[tuple[int, float]] = []
"""Seed and level of every training."""
TOLD: list[str] = []
"""What every training was told."""


class Settings(Component):
    """What a chain changes from stage to stage."""

    init: Literal["base"] | AdapterFolder = "base"
    objective: ConsistencyConfig = ConsistencyConfig(
        type="consistency", weights={"image": 0, "video": 0}
    )
    gain: float = 1.0
    told: str = ""
    diverges: int = -1
    """The seed that does."""


class Evolving(ModelFamily):
    """What it is worth grows with that of its rows, from where it begins."""

    Config = Settings

    def identity(self) -> Any:
        config = self.config
        init = config.init if config.init == "base" else config.init.identity()
        return [init, config.objective.identity(), config.gain, config.diverges]

    def keeps(self) -> bool:
        return True

    def flops_per_sample(self) -> float:
        return 5.0

    def train(self, task: TrialTask, shared: Any) -> Iterator[RungReport]:
        config, level = self.config, 0.0
        if task.seed == config.diverges:
            raise Diverged("the training loss is nan")
        if config.init != "base":
            folder = Path(config.init.path.replace("{seed}", str(task.seed)))
            level = json.loads((folder / LEARNT).read_text())["level"]
        level += config.gain * float(worth()[task.rows].mean())
        TRAINED.append((task.seed, level))
        TOLD.append(config.told)

        def fill(folder: Path) -> dict[str, Any]:
            (folder / LEARNT).write_text(json.dumps({"level": level}))
            return {}

        assert task.keep is not None
        task.keep(fill)
        yield RungReport(task.rungs[-1], 1.0, {"worth": level}, 0.1, 0.0, 1_700_000_000_000)


STAGES: list[dict[str, Any]] = [
    {"name": "first", "pool": "control/0", "budget": 40},
    {
        "name": "second",
        "pool": "a/high",
        "init": "previous",
        "teacher": "previous",
        "model": {"objective": {"weights": {"cd": 0.5, "real": 0.5}}},
    },
    {"name": "third", "pool": "a/high", "init": "second", "teacher": "previous"},
]


def hook_of(
    storage: Storage,
    stages: list[dict[str, Any]] | None = None,
    metrics: tuple[str, ...] = (),
    **model: Any,
) -> Evolve:
    trials = {"model": {"type": f"{__name__}:Evolving", **model}, "budget": 20, "seeds": 2}
    evolution = {"stages": STAGES if stages is None else stages, "metrics": metrics}
    return Evolve(context_of(storage, trials=trials, evolution=evolution)[0])


def run(hook: Evolve, **given: Any) -> Evolution:
    pools = first_pools(hook.context)
    return hook.run(TRAIN, EVALUATION, pools, **given)

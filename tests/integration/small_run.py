"""A run small enough for tests, and families and hooks of our own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import yaml

from djsandbox_ray.config import RunConfig, load_config
from djsandbox_ray.nodes.kinds import NodeKind
from djsandbox_ray.records import RungReport
from djsandbox_ray.trials.clip.family import Clip
from djsandbox_ray.trials.family import Diverged, Prepared, TrialTask

SMALL: dict[str, Any] = {
    "name": "small",
    "dataset": {
        "type": "shapes",
        "samples": 900,
        "defects": {"mismatched": 0.4, "special_characters": 0.2},
    },
    "scorer": {
        "dataset": {"type": "shapes", "samples": 300, "seed": 1},
        "model": {"type": "clip"},
        "budget": 600,
    },
    "operators": [
        {"image_text_similarity_filter": {"hf_clip": "${scorer}"}},
        "special_characters_filter",
        "image_aspect_ratio_filter",
    ],
    "pools": {"controls": 5, "size": 250},
    "trials": {
        "model": {"type": "clip", "batch_size": 32},
        "budget": 128,
        "seeds": 2,
        "early_stopping": {"type": "none", "rungs": [0.5]},
    },
    "confirm": {"top": 0},
    "evaluation": {
        "dataset": {"type": "shapes", "samples": 100, "seed": 2},
        "metrics": [{"type": "retrieval", "k": [5]}, {"type": "zero_shot", "label": "colour"}],
    },
    "report": {"labels": ["defect"]},
}


class Flaky(Clip):
    """Diverges on some draws."""

    def train(self, task: TrialTask, shared: Any) -> Iterator[RungReport]:
        if int(task.rows[0]) % 7 == 0:
            raise Diverged("the training loss is inf after 32 samples")
        yield from super().train(task, shared)


class Hopeless(Clip):
    """Never trains."""

    def train(self, task: TrialTask, shared: Any) -> Iterator[RungReport]:
        raise RuntimeError("there is no hope")


class Stumbling(Clip):
    """Fails on some draws while a file ``stumble`` lies beside the storage."""

    def prepare(self, train: str, evaluation: str, nodes: NodeKind) -> Prepared:
        made = super().prepare(train, evaluation, nodes)
        stone = Path(train.split("/storage/")[0]) / "stumble"
        return replace(made, value=(made.value, stone))

    def train(self, task: TrialTask, shared: Any) -> Iterator[RungReport]:
        prepared, stone = shared
        if stone.exists() and task.seed == 1 and int(task.rows[0]) % 3 == 0:
            raise RuntimeError("stumbled")
        yield from super().train(task, prepared)


def write(folder: Path, changes: dict[str, Any] | None = None) -> Path:
    """Write the configuration, with its storage in ``folder``."""
    path = folder / "config.yaml"
    storage = str(folder / "storage")
    path.write_text(yaml.safe_dump({**SMALL, "storage": storage, **(changes or {})}))
    return path


def load(folder: Path, changes: dict[str, Any] | None = None) -> RunConfig:
    """Return the configuration, with its storage in ``folder``."""
    return load_config(str(write(folder, changes)))


def mlflow_runs(folder: Path) -> list[Any]:
    """Return all runs of the storage's MLflow store."""
    client = mlflow.MlflowClient(f"sqlite:///{folder}/storage/mlflow.db")
    experiment = client.get_experiment_by_name("djsandbox")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], max_results=1000))

"""A family whose trials start from a base, and see data that are the same for all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from planted_world import Planted, context_of
from tasks_here import Here

from djsandbox_ray.dataset.shapes import ShapesConfig, ShapesSource
from djsandbox_ray.dataset.source import Source
from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.records import Dataset
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials import foundation, shared_folder
from djsandbox_ray.trials.base import Base, BaseTask

MADE: list[str] = []
"""A name for every base that was made."""


class Named(Base):
    """A base that holds the names of the tables that it is made of."""

    def sources(self) -> dict[str, Source]:
        return {"trusted": ShapesSource(ShapesConfig(type="shapes", samples=30))}

    def identity(self) -> Any:
        return "named"

    def make(self, task: BaseTask) -> dict[str, float]:
        (task.folder / "tables.json").write_text(json.dumps(sorted(task.tables)))
        MADE.append("named")
        return {"tables": float(len(task.tables))}


class Grounded(Planted):
    """Its trials start from a base, and see data that are the same for all."""

    def base(self) -> Base:
        return Named()

    def sources(self) -> dict[str, Source]:
        return {"fixed": ShapesSource(ShapesConfig(type="shapes", samples=20))}


def grounded_context(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Context:
    """Return what hooks use where nothing is ingested, and tasks are done in this process."""

    def read(source: Any, *_: object, **__: object) -> Dataset:
        return Dataset("dataset-read", "datasets/read.lance", source.config.samples, 0)

    monkeypatch.setattr(foundation, "ingest", read)
    monkeypatch.setattr(foundation, "outcome", lambda *_: "read")
    monkeypatch.setattr(Context, "await_room", lambda *_: None)
    for module in (foundation, shared_folder):
        monkeypatch.setattr(module, "ray", Here())
    trials = {"model": {"type": f"{__name__}:Grounded"}, "budget": 20, "seeds": 2}
    return context_of(storage, trials=trials)[0]

"""A program: one of two workers that train a small image-to-text model together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from llava_world import write_mixed
from two_workers import take_part
from vlm_world import VlmTables, config, task, write_vlm

from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.trials.family import TrialData
from djsandbox_ray.trials.strategies.strategy import Group
from djsandbox_ray.trials.vlm.family import Vlm

MODEL, MIXED = "internvl", "mixed"
KINDS: Mapping[str, Mapping[str, Any]] = {"full": {"train": "full"}, "lora": {"train": "lora"}}
"""What is trained."""


def write_world(folder: Path) -> None:
    """Write a model, and conversations of which some are about no image."""
    write_vlm(folder / MODEL, MODEL)
    write_mixed(folder / MIXED)


def work(group: Group, folder: Path, case: str) -> None:
    """Train, and write what rank 0 has seen of the model at its end.

    Args:
        group: this worker's place.
        folder: as :func:`write_world` has left it.
        case: how they share it, and one of :data:`KINDS`: ``fsdp-lora``.
    """
    tables, table = VlmTables(folder, MODEL), SampleTable(str(folder / MIXED / "x.lance"))

    def evaluate(model: Any, samples: int | None = None) -> dict[str, float]:
        own = getattr(model, "_answerer", model)
        weights = {name: value.clone() for name, value in own._model.state_dict().items()}
        torch.save(weights, folder / f"{case}.pt")
        return {"samples": float(samples or 0)}

    # One by one, so that each is with or without an image.
    settings = config(tables, micro_batch=1, **KINDS[case.partition("-")[2]])
    rows = np.arange(table.rows, dtype=np.int64)
    storage = folder / "storage" / case
    trial = task(tables, storage, evaluate, group=group, rows=rows, captions=rows)
    data = TrialData(table.uri, {}, base=str(tables.base))
    list(Vlm(settings).resolved(0).train(trial, data))


if __name__ == "__main__":
    take_part(work)

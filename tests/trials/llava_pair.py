"""A program: one of several workers that train a small LLaVA together, and answer together.

Arguments: rank, workers, port, a folder, and the strategy.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from llava_world import Tables, asked, config, task
from torch import distributed

from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.trials.llava.family import Llava
from djsandbox_ray.trials.strategies.strategy import Group


def work(group: Group, folder: Path) -> None:
    """Train, and write what rank 0 has seen."""
    torch.set_num_threads(1)
    tables = Tables(folder)
    weights: dict[str, Any] = {}

    def evaluate(model: Any, samples: int) -> dict[str, float]:
        answers = model.answer(asked(tables)[:7])
        data = EvaluationSet.read("trusted", tables.trusted.uri)
        nll = model.nll(data, range(5))
        own = getattr(model, "_answerer", model)
        weights.update({name: value.clone() for name, value in own._model.state_dict().items()})
        said = [[one.key, one.text, one.tokens, one.cut] for one in answers]
        told = {"said": said, "nll": nll.nll.tolist(), "tokens": nll.tokens.tolist()}
        (folder / f"{group.size}.json").write_text(json.dumps(told))
        return {"nll": float(nll.nll.sum())}

    family = Llava(config(tables)).resolved(0)
    trial = task(tables, folder / f"storage{group.size}", evaluate, group=group)
    reports = list(family.train(trial, tables.data()))
    assert [report.metrics.keys() for report in reports] == [{"nll"}]
    if group.rank == 0:
        torch.save(weights, folder / f"{group.size}.pt")


if __name__ == "__main__":
    rank, size, port = map(int, sys.argv[1:4])
    store = distributed.TCPStore("127.0.0.1", port, size, is_master=rank == 0)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=size)
    work(Group(rank, size, sys.argv[5]), Path(sys.argv[4]))
    distributed.destroy_process_group()

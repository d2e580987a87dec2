"""A program: one of two workers that train a small LLaVA together, and answer together."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from llava_world import Tables, asked, config, task, words_of, write_base, write_mixed
from two_workers import take_part

from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.trials.llava.family import Llava
from djsandbox_ray.trials.strategies.strategy import Group

MIXED = "mixed"
KINDS: Mapping[str, Mapping[str, Any]] = {
    "full": {},
    "lora": {"train": "lora", "lora": {"rank": 4, "alpha": 4}},
    "tied": {},
}
"""What the second stage trains of the language model; a tied one has one matrix for the words that
it reads and for those that it foretells."""


def write_world(folder: Path) -> None:
    """Write what is trained on and judged on, and the bases."""
    tables = Tables.write(folder)
    write_mixed(folder / MIXED)
    write_base(folder / "tied", words_of(tables.pairs, tables.talk, tables.trusted), tied=True)


def work(group: Group, folder: Path, case: str) -> None:
    """Train, and write what rank 0 has seen of the model at its end.

    Args:
        group: this worker's place.
        folder: as :func:`write_world` has left it.
        case: how they share it, and one of :data:`KINDS`: ``fsdp-lora``.
    """
    tables, kind = Tables(folder), case.partition("-")[2]
    tables.base = folder / ("tied" if kind == "tied" else "base")

    def evaluate(model: Any, samples: int | None = None) -> dict[str, float]:
        answers = model.answer(asked(tables)[:7])
        nll = model.nll(EvaluationSet.read("trusted", tables.trusted.uri), range(5))
        own = getattr(model, "_answerer", model)
        weights = {name: value.clone() for name, value in own._model.state_dict().items()}
        torch.save(weights, folder / f"{case}.pt")
        said = [[one.key, one.text, one.tokens, one.cut] for one in answers]
        told = {"said": said, "nll": nll.nll.tolist(), "tokens": nll.tokens.tolist()}
        (folder / f"{case}.json").write_text(json.dumps(told))
        return {"nll": float(nll.nll.sum())}

    # One by one, so that each is with or without an image.
    settings = config(tables, {"micro_batch": 1, **KINDS[kind]}, micro_batch=3)
    trial = task(tables, folder / "storage" / case, evaluate, group=group)
    data = tables.data(fixed={"finetune": str(folder / MIXED / "x.lance")})
    (report,) = Llava(settings).resolved(0).train(trial, data)
    assert report.metrics.keys() == {"nll"}


if __name__ == "__main__":
    take_part(work)

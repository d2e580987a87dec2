"""A language model of a few thousand parameters that learns answers, alone or among workers.

As a program it is one worker of several, which train case after case and leave what they found in a
folder: ``python sentences.py RANK SIZE PORT FOLDER CASE...``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlamaConfig, LlamaForCausalLM

from djsandbox_ray.trials.loop import AdditiveConfig, AdditiveTraining
from djsandbox_ray.trials.objective import noise
from djsandbox_ray.trials.strategies.strategy import Group

ROWS, WORDS, SEED = 30, 24, 5
RUNGS = (20, 47)
"""The last batch has 7 samples: two workers have 4 and 3 of them."""
CONFIG = AdditiveConfig(batch_size=10, learning_rate=1e-3, precision="fp32")
Sentence = tuple[list[int], list[int]]
"""Tokens, and what is to be learnt of them: -100 at the question."""


def small_llama(**changes: Any) -> Any:
    """Return a Llama with weights of a seed; its embeddings are frozen."""
    settings: dict[str, Any] = {
        "vocab_size": WORDS,
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 32,
        **changes,
    }
    torch.manual_seed(3)
    model: Any = LlamaForCausalLM(LlamaConfig(**settings))
    model.model.embed_tokens.requires_grad_(False)
    return model


class Sentences:
    """Questions of 2 to 6 tokens, one of them lost at random, and answers of 1 to 10."""

    def __init__(self, model: Any | None = None, device: str = "cpu") -> None:
        self.model = small_llama() if model is None else model
        self.model.to(device)
        self._device = device
        rng = np.random.default_rng(8)
        self._asked = [rng.integers(1, WORDS, rng.integers(2, 7)).tolist() for _ in range(ROWS)]
        self._said = [rng.integers(1, WORDS, rng.integers(1, 11)).tolist() for _ in range(ROWS)]

    def collate(self, positions: NDArray[np.int64], order: NDArray[np.int64]) -> list[Sentence]:
        return [self._one(*pair) for pair in zip(positions.tolist(), order.tolist(), strict=True)]

    def _one(self, position: int, number: int) -> Sentence:
        asked, said = list(self._asked[position]), self._said[position]
        asked[int(noise(SEED, number).integers(len(asked)))] = 0
        return [*asked, *said], [*[-100] * len(asked), *said]

    def weight(self, batch: list[Sentence]) -> float:
        return float(sum(label >= 0 for _, labels in batch for label in labels))

    def split(self, batch: list[Sentence], size: int) -> list[list[Sentence]]:
        ordered = sorted(batch, key=lambda sentence: len(sentence[0]))
        return [ordered[start : start + size] for start in range(0, len(ordered), size)]

    def loss(
        self, forward: Callable[..., Any], batch: list[Sentence]
    ) -> tuple[Any, dict[str, Any]]:
        longest = max(len(tokens) for tokens, _ in batch)
        tokens, labels = (
            torch.tensor([line + [fill] * (longest - len(line)) for line in lines])
            for lines, fill in (([t for t, _ in batch], 0), ([labels for _, labels in batch], -100))
        )
        mask = torch.tensor([[1] * len(t) + [0] * (longest - len(t)) for t, _ in batch])
        inputs = {"input_ids": tokens, "attention_mask": mask}
        found = forward(**{name: value.to(self._device) for name, value in inputs.items()})
        logits = found.logits[:, :-1].float()
        targets = labels[:, 1:].to(self._device)
        each = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), targets, ignore_index=-100, reduction="none"
        )
        right = (logits.argmax(2) == targets).sum()
        return each.sum(), {"right": right.detach(), "nll": each.sum().detach()}


class MeanOfMeans(Sentences):
    """What must not be done: the mean over micro-batches of their means."""

    def __init__(self, micro: int) -> None:
        super().__init__()
        self._micro = micro

    def weight(self, batch: list[Sentence]) -> float:
        return float(-(-len(batch) // self._micro))

    def loss(
        self, forward: Callable[..., Any], batch: list[Sentence]
    ) -> tuple[Any, dict[str, Any]]:
        total, terms = super().loss(forward, batch)
        return total / super().weight(batch), terms


def training(objective: Sentences, group: Group | None = None, **changes: Any) -> AdditiveTraining:
    """Return the training of an objective with some settings changed."""
    config = CONFIG.model_copy(update=changes)
    return AdditiveTraining(objective, ROWS, config, SEED, "cpu", group, threads=2)


def trained(objective: Sentences, group: Group | None = None, **changes: Any) -> dict[str, Any]:
    """Train to the end; return what was learnt and told."""
    work = training(objective, group, **changes)
    try:
        states = list(work.run(RUNGS))
        return {
            "weights": {name: value.numpy() for name, value in work.weights().items()},
            "told": [[state.samples, state.loss, state.terms] for state in states],
        }
    finally:
        work.close()


def resumed(
    folder: Path, group: Group | None = None, make: Callable[[], Sentences] = Sentences
) -> dict[str, Any]:
    """Train to the first rung, save, and go on in a training of its own."""
    work = training(make(), group, micro_batch=3)
    first = next(iter(work.run(RUNGS)))
    folder.mkdir(exist_ok=True)
    if group is not None:
        group.barrier()
    work.save(folder)
    work.close()
    again = training(make(), group, micro_batch=3)
    if group is not None:
        group.barrier()
    assert again.load(folder)
    states = [first, *again.run(RUNGS)]
    weights = {name: value.numpy() for name, value in again.weights().items()}
    whole = again.whole()
    again.close()
    return {
        "weights": weights,
        "told": [[state.samples, state.loss, state.terms] for state in states],
        "whole": whole,
    }


CASES: Mapping[str, Mapping[str, Any]] = {
    "ddp": {"strategy": "ddp"},
    "fsdp": {"strategy": "fsdp"},
    "zero2": {"strategy": "deepspeed", "settings": {"zero_optimization": {"stage": 2}}},
    "zero3": {"strategy": "deepspeed", "settings": {"zero_optimization": {"stage": 3}}},
}
MICRO = (None, 1, 3)


def _write(path: Path, found: dict[str, Any]) -> None:
    np.savez(path.with_suffix(".npz"), **found["weights"])
    path.with_suffix(".json").write_text(json.dumps(found["told"]))


def read(path: Path) -> dict[str, Any]:
    """Return what a worker has left of a case."""
    with np.load(path.with_suffix(".npz")) as found:
        weights = {name: found[name] for name in found.files}
    return {"weights": weights, "told": json.loads(path.with_suffix(".json").read_text())}


def main(rank: int, size: int, port: int, folder: Path, cases: Sequence[str]) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size
    )
    for case in cases:
        group = Group(rank, size, **CASES[case])
        for micro in MICRO:
            found = trained(Sentences(), group, micro_batch=micro)
            _write(folder / f"{case}-{micro}-{rank}", found)
        found = resumed(folder / f"{case}-checkpoint", group)
        if rank == 0:  # the plain model holds what was trained, and all that is frozen
            plain = {
                name: value.detach().numpy() for name, value in found["whole"].named_parameters()
            }
            np.savez(folder / f"{case}-whole.npz", **plain)
        _write(folder / f"{case}-resumed-{rank}", found)
        print(f"{case} is done", flush=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4]), sys.argv[5:])

"""Between a run and a trainer of ModelScope: gives it the samples, trains, reads back its loss.

Runs in ModelScope's environment, not in that of djsandbox_ray. What to change for another trainer:
its name and settings, and the keys under which its preprocessor looks for image and text.
"""

from __future__ import annotations

import json
import os
import random
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from run_files import Pair, arguments, mean_of_last, pairs, report, steps

WORDS = ("model", "trainer", "image-key", "text-key")


class Samples:
    """A dataset as torch's loader wants it: a dictionary for every place."""

    def __init__(self, samples: Sequence[Pair], places: Sequence[int], keys: tuple[str, str]):
        self.samples, self.places, self.keys = samples, places, keys

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, place: int) -> dict[str, Any]:
        from PIL import Image

        pair = self.samples[self.places[place]]
        with Image.open(pair.image) as image:
            return {self.keys[0]: image.convert("RGB"), self.keys[1]: pair.caption}


def order(count: int, samples: int, seed: int) -> list[int]:
    """Return which sample comes when: all of them in a random order, then all again.

    One epoch of it is the budget. The seed alone decides it: trials of pools of one size go through
    the same places.
    """
    shuffle, found = random.Random(seed), []
    while len(found) < samples:
        found += shuffle.sample(range(count), count)
    return found[:samples]


def build(given: Namespace, settings: dict[str, Any], **own: Any) -> Any:
    """Build ModelScope's trainer.

    Args:
        given: with the name of the trainer.
        settings: for its configuration, over what the model's own says: ``train.max_epochs``.
        **own: further arguments of the trainer.
    """
    from modelscope.trainers import build_trainer

    written = json.loads(given.settings.read_text(encoding="utf-8"))

    def changed(configuration: Any) -> Any:
        configuration.merge_from_dict(written)
        configuration.merge_from_dict(settings)
        return configuration

    return build_trainer(name=given.trainer, default_args={"cfg_modify_fn": changed, **own})


def logged_losses(work_dir: Path) -> list[float]:
    """Return the losses that the text logger has left, in the order of the steps."""
    lines = [line for log in work_dir.glob("*.log.json") for line in log.read_text().splitlines()]
    entries = [json.loads(line) for line in lines]
    return [one["loss"] for one in entries if one.get("mode") == "train" and "loss" in one]


def main() -> None:
    """Train on ``--samples`` samples, in one process or in each of those that torchrun started."""
    given, others = arguments(
        ("pool", "output", "metrics", "settings"), ("samples", "seed", "batch-size"), WORDS
    )
    if others:
        raise SystemExit(f"not known: {' '.join(others)}; the trainer is told by --settings")
    together = int(os.environ.get("WORLD_SIZE", "1"))
    per_process = given.batch_size // together
    steps(given.samples, given.batch_size, max(1, per_process) * together)
    samples = pairs(given.pool)
    places = order(len(samples), given.samples, given.seed)
    settings = {
        "train.max_epochs": 1,
        "train.dataloader.batch_size_per_gpu": per_process,
        "train.dataloader.shuffle": False,
        "train.dataloader.drop_last": False,
    }
    if together > 1:
        settings["train.launcher"] = "pytorch"
    trainer = build(
        given,
        settings,
        model=given.model,
        train_dataset=Samples(samples, places, (given.image_key, given.text_key)),
        work_dir=str(given.output),
        seed=given.seed,
    )
    trainer.train()
    if os.environ.get("RANK", "0") == "0":
        seen = trainer.iter * given.batch_size
        report(given.metrics, seen, mean_of_last(logged_losses(given.output)))


if __name__ == "__main__":
    main()

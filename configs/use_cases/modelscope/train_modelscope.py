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

WORDS = ("trainer", "image-key", "text-key")


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


def build(given: Namespace, model: Path, settings: dict[str, Any], **own: Any) -> Any:
    """Build ModelScope's trainer.

    Args:
        given: with the name of the trainer, and ``settings``: a file to lay over the configuration.
        model: its folder, with a ``configuration.json``.
        settings: to be laid over both.
        **own: further arguments of the trainer.
    """
    from modelscope.trainers import build_trainer

    written: dict[str, Any] = {}
    for file in (model / "configuration.json", given.settings):
        written = _over(written, json.loads(file.read_text(encoding="utf-8")))
    # A file, as the trainer reads it twice; each process has its own.
    path = Path(f"configuration-{os.environ.get('RANK', '0')}.json").absolute()
    path.write_text(json.dumps(_over(written, settings)), encoding="utf-8")
    given_too = {"model": str(model), "cfg_file": str(path), **own}
    return build_trainer(name=given.trainer, default_args=given_too)


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Lay dictionaries over one another; a list, like a number, takes the place of what was."""
    found = dict(below)
    for name, value in above.items():
        both = isinstance(value, dict) and isinstance(found.get(name), dict)
        found[name] = _over(found[name], value) if both else value
    return found


def logged_losses(work_dir: Path) -> list[float]:
    """Return the losses that the text logger has left, in the order of the steps."""
    lines = [line for log in work_dir.glob("*.log.json") for line in log.read_text().splitlines()]
    entries = [json.loads(line) for line in lines]
    return [one["loss"] for one in entries if one.get("mode") == "train" and "loss" in one]


def main() -> None:
    """Train on ``--samples`` samples, in one process or in each of those that torchrun started."""
    given, others = arguments(
        ("pool", "output", "metrics", "settings", "model"), ("samples", "seed", "batch-size"), WORDS
    )
    if others:
        raise SystemExit(f"not known: {' '.join(others)}; the trainer is told by --settings")
    together = int(os.environ.get("WORLD_SIZE", "1"))
    per_process = given.batch_size // together
    steps(given.samples, given.batch_size, max(1, per_process) * together)
    samples = pairs(given.pool)
    places = order(len(samples), given.samples, given.seed)
    loader = {"batch_size_per_gpu": per_process, "shuffle": False, "drop_last": False}
    settings: dict[str, Any] = {"max_epochs": 1, "dataloader": loader}
    if together > 1:
        settings["launcher"] = "pytorch"
    trainer = build(
        given,
        given.model,
        {"train": settings},
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

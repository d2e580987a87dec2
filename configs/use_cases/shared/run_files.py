"""What a run hands to a program, and what it wants back; for the scripts of the folders here.

A configuration names this folder in ``files`` beside that of the script, so that both lie in one
working directory. It knows the standard library alone, of Python 3.9: it runs in other projects'
environments.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SPECIAL_TOKENS = ("<__dj__image>", "<|__dj__eoc|>")
"""Of Data-Juicer; in a caption they say only that it has an image."""


@dataclass(frozen=True)
class Pair:
    """An image with its caption."""

    image: Path
    caption: str


def captions(folder: Path) -> list[str]:
    """Return the captions of ``{pool}`` or ``{evaluation}`` in their order, without tokens."""
    return [_plain(row["text"]) for row in _rows(folder)]


def pairs(folder: Path) -> list[Pair]:
    """Return the samples of ``{pool}`` or ``{evaluation}`` in their order.

    Ends the program where there is none, or one that has not exactly one image.
    """
    found = []
    for number, row in enumerate(_rows(folder)):
        images = row.get("images", [])
        if len(images) != 1:
            sys.exit(f"{folder}: sample {number} has {len(images)} images, not one")
        found.append(Pair(folder / images[0], _plain(row["text"])))
    if not found:
        sys.exit(f"{folder}: no samples in *.jsonl")
    return found


def arguments(
    paths: Sequence[str], numbers: Sequence[str] = (), words: Sequence[str] = ()
) -> tuple[argparse.Namespace, list[str]]:
    """Read the command line: options that are needed, and the words that are for the program.

    Args:
        paths: names of options, without the dashes.
        numbers: of those that are positive whole numbers, or zero for ``seed``.
        words: of those that are texts.
    """
    # Without abbreviations: `--seed_of_data` is another project's, not ours cut short.
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for names, kind in ((paths, Path), (numbers, int), (words, str)):
        for name in names:
            parser.add_argument(f"--{name}", type=kind, required=True)
    given, others = parser.parse_known_args()
    for name in numbers:
        value = getattr(given, name.replace("-", "_"))
        if value < (name != "seed"):
            parser.error(f"--{name}: {value}: at least {int(name != 'seed')} is needed")
    return given, others


def processes() -> int:
    """Return how many processes to start: one for each GPU that Ray gave, and one without any."""
    devices = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return max(1, len([one for one in devices.split(",") if one]))


def call(words: Sequence[str | Path], **variables: str) -> None:
    """Run another program to its end; what it says last stays last, for the message of the trial.

    Args:
        words: the program and its arguments.
        **variables: of its environment, beside ours.

    Ends this program as that one ended, if that was not well.
    """
    code = subprocess.run(words, env={**os.environ, **variables}, check=False).returncode
    if code < 0:
        sys.exit(f"{words[0]} was ended by signal {-code}")
    if code:
        sys.exit(code)


def torchrun(script: Sequence[str]) -> list[str]:
    """Return the words that start a script once per GPU, at a port that nobody else has."""
    return ["torchrun", "--standalone", f"--nproc_per_node={processes()}", *script]


def steps(samples: int, batch_size: int, per_step: int) -> int:
    """Return the optimizer's steps that see so many samples.

    Args:
        samples: to be seen.
        batch_size: samples of one step of the optimizer, on all GPUs.
        per_step: those of them that are on the GPUs at once; the rest is accumulated.

    Ends the program where that leaves a rest: trials that are compared see the same.
    """
    if samples % batch_size or batch_size % per_step:
        sys.exit(
            f"{samples} samples in batches of {batch_size}, {per_step} at once on {processes()} "
            "GPUs: a rest is left; let each be a multiple of the next"
        )
    return samples // batch_size


def trainer_state(model: Path) -> dict[str, Any]:
    """Return what the Trainer of transformers has left in its output folder."""
    path = model / "trainer_state.json"
    if not path.is_file():
        sys.exit(f"the trainer ended well, but left no {path}")
    state: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return state


def last_loss(model: Path) -> float:
    """Return the mean of the last tenth of the losses that the Trainer of transformers logged."""
    history = trainer_state(model)["log_history"]
    return mean_of_last([entry["loss"] for entry in history if "loss" in entry])


def mean_of_last(losses: Sequence[float]) -> float:
    """Return the mean of the last tenth: one step's loss is that of a few samples."""
    if not losses:
        sys.exit("the trainer logged no loss")
    last = losses[-max(1, len(losses) // 10) :]
    return float(sum(last) / len(last))


def report(metrics: Path, samples: int, loss: float) -> None:
    """Write what a training has to tell; a loss that is not finite is told as it is."""
    metrics.write_text(json.dumps({"samples": samples, "loss": loss}), encoding="utf-8")


def _rows(folder: Path) -> Iterator[dict[str, Any]]:
    for file in sorted(folder.glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            yield json.loads(line)


def _plain(text: str) -> str:
    for token in SPECIAL_TOKENS:
        text = text.replace(token, "").strip()
    return text

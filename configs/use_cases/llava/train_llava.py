"""Between a run and LLaVA's own training: writes its JSON, starts it, reads back its loss.

Runs in LLaVA's environment, not in that of djsandbox_ray. What to change for another repository:
the conversations that are made of a caption, and the words of the command.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

QUESTION = "<image>\nDescribe the image."
SPECIAL_TOKENS = ("<__dj__image>", "<|__dj__eoc|>")


def conversations(pool: Path) -> list[dict[str, Any]]:
    """Return the samples of a pool in LLaVA's form; images by absolute paths."""
    found = []
    for file in sorted(pool.glob("*.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            caption = row["text"]
            for token in SPECIAL_TOKENS:
                caption = caption.replace(token, "").strip()
            image = pool / row["images"][0]
            turns = [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": caption}]
            found.append({"id": image.stem, "image": str(image), "conversations": turns})
    return found


def last_loss(model: Path) -> float:
    """Return the mean of the last tenth of the losses that the trainer logged."""
    history = json.loads((model / "trainer_state.json").read_text())["log_history"]
    losses = [entry["loss"] for entry in history if "loss" in entry]
    last = losses[-max(1, len(losses) // 10) :]
    return float(sum(last) / len(last))


def main() -> None:
    """Train on ``--samples`` samples; words that are not known here go to LLaVA."""
    parser = argparse.ArgumentParser()
    for name in ("pool", "output", "metrics"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    for name in ("samples", "seed", "batch-size"):
        parser.add_argument(f"--{name}", type=int, required=True)
    given, options = parser.parse_known_args()
    gpus = max(1, len([one for one in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if one]))
    if given.samples % given.batch_size or given.batch_size % gpus:
        sys.exit(f"{given.samples} samples in batches of {given.batch_size} on {gpus} GPUs: a rest")
    data = Path("data.json").absolute()
    data.write_text(json.dumps(conversations(given.pool)), encoding="utf-8")
    words = [
        "torchrun",
        "--standalone",
        f"--nproc_per_node={gpus}",
        "--module",
        "llava.train.train",
    ]
    words += [f"--data_path={data}", "--image_folder=/", f"--seed={given.seed}"]
    words += [f"--max_steps={given.samples // given.batch_size}", f"--output_dir={given.output}"]
    words += [f"--per_device_train_batch_size={given.batch_size // gpus}", "--logging_steps=1"]
    subprocess.run([*words, "--save_strategy=no", "--report_to=none", *options], check=True)
    report = {"samples": given.samples, "loss": last_loss(given.output)}
    given.metrics.write_text(json.dumps(report))


if __name__ == "__main__":
    main()

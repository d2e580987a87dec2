"""Between a run and LLaVA's own training: writes its JSON, starts it, reads back its loss.

Runs in LLaVA's environment, not in that of djsandbox_ray. What to change for another repository:
the conversations that are made of a caption, and the words of the command.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from run_files import (
    arguments,
    call,
    last_loss,
    pairs,
    processes,
    report,
    steps,
    torchrun,
    trainer_state,
)

QUESTION = "<image>\nDescribe the image."


def conversations(pool: Path) -> list[dict[str, Any]]:
    """Return the samples of a pool in LLaVA's form; images by absolute paths."""
    found = []
    for pair in pairs(pool):
        turns = [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": pair.caption}]
        found.append({"id": pair.image.stem, "image": str(pair.image), "conversations": turns})
    return found


def main() -> None:
    """Train on ``--samples`` samples; words that are not known here go to LLaVA."""
    given, options = arguments(("pool", "output", "metrics"), ("samples", "seed", "batch-size"))
    per_gpu = given.batch_size // processes()
    wanted = steps(given.samples, given.batch_size, max(1, per_gpu) * processes())
    data = Path("data.json").absolute()
    data.write_text(json.dumps(conversations(given.pool)), encoding="utf-8")
    words = torchrun(["--module", "llava.train.train"])
    words += [f"--data_path={data}", "--image_folder=/", f"--seed={given.seed}"]
    words += [f"--max_steps={wanted}", f"--output_dir={given.output}"]
    words += [f"--per_device_train_batch_size={per_gpu}", "--logging_steps=1"]
    # A loss that is NaN is to be seen: by default the trainer logs the mean of the others instead.
    words += ["--logging_nan_inf_filter=False", "--save_strategy=no", "--report_to=none"]
    call([*words, *options])
    seen = trainer_state(given.output)["global_step"] * given.batch_size
    report(given.metrics, seen, last_loss(given.output))


if __name__ == "__main__":
    main()

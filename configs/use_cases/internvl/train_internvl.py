"""Between a run and InternVL's fine-tuning: writes its dataset, starts it, reads back its loss.

Runs in InternVL's environment, not in that of djsandbox_ray, on a clone of its repository. What to
change for another task than captions: the question, and the words of the command.
"""

from __future__ import annotations

import json
from pathlib import Path

from run_files import (
    Pair,
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

QUESTION = "<image>\nProvide a one-sentence caption for the provided image."
"""That of InternVL's own evaluation of captions."""
TRAINER = "internvl/train/internvl_chat_finetune.py"


def write_dataset(samples: list[Pair], folder: Path) -> Path:
    """Write the samples as a dataset of InternVL's; return its meta file."""
    annotation, meta = folder / "pool.jsonl", folder / "meta.json"
    with annotation.open("w", encoding="utf-8") as file:
        for number, pair in enumerate(samples):
            turns = [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": pair.caption}]
            sample = {"id": number, "image": str(pair.image), "conversations": turns}
            file.write(json.dumps(sample) + "\n")
    dataset = {
        "root": "/",  # images are named by absolute paths
        "annotation": str(annotation),
        "data_augment": False,
        "repeat_time": 1,
        "length": len(samples),
    }
    meta.write_text(json.dumps({"pool": dataset}), encoding="utf-8")
    return meta


def main() -> None:
    """Train on ``--samples`` samples; words that are not known here go to InternVL."""
    given, options = arguments(
        ("pool", "output", "metrics", "internvl"),
        ("samples", "seed", "batch-size", "batch-per-gpu"),
    )
    per_step = given.batch_per_gpu * processes()
    wanted = steps(given.samples, given.batch_size, per_step)
    meta = write_dataset(pairs(given.pool), Path.cwd())
    words = torchrun([str(given.internvl / TRAINER)])
    words += [f"--meta_path={meta}", f"--output_dir={given.output}", f"--seed={given.seed}"]
    words += [f"--max_steps={wanted}", f"--per_device_train_batch_size={given.batch_per_gpu}"]
    words += [f"--gradient_accumulation_steps={given.batch_size // per_step}", "--do_train=True"]
    # A loss that is NaN is to be seen: by default the trainer logs the mean of the others instead.
    words += ["--logging_steps=1", "--logging_nan_inf_filter=False", "--report_to=none"]
    words += ["--evaluation_strategy=no", "--save_strategy=no", *options]
    # Without LAUNCHER it asks Slurm; the package `internvl` is that of the clone.
    call(words, LAUNCHER="pytorch", PYTHONPATH=str(given.internvl), TF_CPP_MIN_LOG_LEVEL="3")
    seen = trainer_state(given.output)["global_step"] * given.batch_size
    report(given.metrics, seen, last_loss(given.output))


if __name__ == "__main__":
    main()

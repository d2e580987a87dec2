"""Between a run and a trainer of ModelScope: has it evaluate a model on the trusted split."""

from __future__ import annotations

import json
from pathlib import Path

from run_files import arguments, pairs
from train_modelscope import WORDS, Samples, build


def main() -> None:
    """Write what the trainer's own metrics say, under their names."""
    given, others = arguments(("model", "samples", "metrics", "settings"), (), WORDS)
    if others:
        raise SystemExit(f"not known: {' '.join(others)}; the trainer is told by --settings")
    samples = pairs(given.samples)
    split = Samples(samples, range(len(samples)), (given.image_key, given.text_key))
    work_dir = Path("work_dir").absolute()
    work_dir.mkdir()
    trainer = build(
        given,
        given.model / "output",  # where its checkpoints lie as models
        {"train": {"max_epochs": 1}},
        train_dataset=split,  # never trained on here: a trainer asks how long it is
        eval_dataset=split,
        work_dir=str(work_dir),
    )
    found = {name: float(value) for name, value in trainer.evaluate().items()}
    given.metrics.write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()

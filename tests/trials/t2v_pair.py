"""A program: one of two workers that adapt or distil a small video model together, and judge it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from t2v_world import random_base, write_clips
from two_workers import take_part

from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.trials.checkpoint import Checkpoint
from djsandbox_ray.trials.family import TrialData, TrialTask
from djsandbox_ray.trials.strategies.strategy import Group
from djsandbox_ray.trials.t2v.config import T2vModelConfig
from djsandbox_ray.trials.t2v.family import T2v
from djsandbox_ray.trials.t2v.rewards import Reward

FRAMES, SIDE, ROWS, BUDGET = 5, 16, 20, 24
LIGHT = {"type": "t2v_pair:Light"}
OBJECTIVES: Mapping[str, Mapping[str, Any]] = {
    "denoise": {"type": "denoise"},
    "distil": {
        "type": "consistency",
        "weights": {"cd": 0.5, "real": 0.5, "image": 1, "video": 2},
        "rewards": {"image": LIGHT, "video": LIGHT},
        "solver_steps": 10,
        "image_frames": 3,
    },
}
CASES = [(share, what) for what in OBJECTIVES for share in ("ddp", "fsdp", "zero2")]


class Light(Reward):
    """How light frames are."""

    def __call__(self, frames: Any, prompts: Sequence[str]) -> Any:
        return frames.flatten(1).mean(dim=1)


def write_world(folder: Path) -> None:
    """Write what is trained on, what is judged on, and a base."""
    clip = {"frames": FRAMES, "size": SIDE}
    train = write_clips(folder / "train", ROWS, seed=1, **clip)
    write_clips(folder / "judged", 5, seed=2, **clip)
    random_base(folder / "base", train.column("text").to_pylist())


def work(group: Group, folder: Path, case: str) -> None:
    """Train, and write what rank 0 has seen of the model at its end."""
    train, judged = (str(next((folder / name).glob("*.lance"))) for name in ("train", "judged"))
    data = EvaluationSet.read("judged", judged)

    def evaluate(model: Any, samples: int | None = None) -> dict[str, float]:
        clips = list(enumerate(data.texts))
        losses = model.losses(data, [0.3, 0.7], 0, clips).tolist()
        own = getattr(model, "_answerer", model)
        weights = {name: value.clone() for name, value in own._model.state_dict().items()}
        torch.save(weights, folder / f"{case}.pt")
        (folder / f"{case}.json").write_text(json.dumps(losses))
        return {"loss": float(np.mean(losses))}

    config = T2vModelConfig(
        type="t2v",
        base={"path": str(folder / "base")},
        frames=FRAMES,
        size=(SIDE, SIDE),
        stride=1,
        prompt_tokens=16,
        batch_size=8,
        micro_batch=3,
        learning_rate=1e-3,
        eps=1e-8,
        lora={"rank": 4, "alpha": 4},
        objective=OBJECTIVES[case.partition("-")[2]],
        precision="fp32",
        frozen="fp32",
        evaluation_batch=2,
    )
    rows = np.arange(ROWS, dtype=np.int64)
    task = TrialTask(
        seed=3,
        rows=rows,
        captions=rows,
        rungs=(BUDGET,),
        cpus=1,
        gpus=0,
        checkpoint=Checkpoint(str(folder / "storage"), case, group),
        group=group,
        evaluate=evaluate,
    )
    tables = TrialData(train, {"judged": judged}, base=str(folder / "base"))
    reports = list(T2v(config).resolved(0).train(task, tables))
    assert [report.samples for report in reports] == [BUDGET]


if __name__ == "__main__":
    take_part(work)

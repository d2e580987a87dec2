"""A small text-to-video model must show what is wrong with videos: each defect by its metric."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from t2v_world import write_clips

from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.denoising import DenoisingConfig, PromptMatchConfig
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.trials.base import BaseTask
from djsandbox_ray.trials.checkpoint import Checkpoint
from djsandbox_ray.trials.family import TrialData, TrialTask
from djsandbox_ray.trials.strategies.strategy import Group
from djsandbox_ray.trials.t2v.base import T2vBase, VideoBaseConfig
from djsandbox_ray.trials.t2v.config import T2vModelConfig
from djsandbox_ray.trials.t2v.family import T2v

SEEDS, ROWS, BUDGET = 3, 700, 1920
DEFECTS = ("static", "noise", "mismatched")
LAYERS = ("to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2")


def dprime(good: list[float], bad: list[float]) -> float:
    """Return the distance of two means in units of the mean deviation within them."""
    spread = (np.var(good, ddof=1) + np.var(bad, ddof=1)) / 2
    return float((np.mean(good) - np.mean(bad)) / np.sqrt(spread))


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_each_defect_is_seen_by_the_metric_that_is_made_for_it(tmp_path: Path) -> None:
    trusted = write_clips(tmp_path / "trusted", ROWS, seed=7)
    judged = write_clips(tmp_path / "judged", 200, seed=8)
    base = tmp_path / "base"
    base.mkdir()
    train = {"dataset": {"type": "clips", "samples": ROWS, "seed": 7}}
    T2vBase(VideoBaseConfig(build="tiny", train=train)).make(
        BaseTask({"clips": trusted.uri}, base, lambda part: Checkpoint(str(tmp_path), part), 1, 0)
    )
    config = T2vModelConfig(
        type="t2v",
        base={"path": str(base)},
        frames=9,
        size=(32, 32),
        stride=1,
        prompt_tokens=16,
        lora={"rank": 16, "alpha": 16, "targets": LAYERS},
        batch_size=32,
        learning_rate=4e-3,
        weight_decay=0.0,
        eps=1e-8,
        evaluation_batch=64,
        precision="fp32",
        frozen="fp32",
    )
    data = EvaluationSet.read("judged", judged.uri)
    attributes = ("colour", "direction", "background")
    suite = Suite(
        [
            DenoisingConfig(type="denoising"),
            PromptMatchConfig(type="prompt_match", attributes=attributes),
        ],
        [data, data],
    )
    found: dict[str, list[dict[str, float]]] = {}
    for defect in ("", *DEFECTS):
        table = write_clips(tmp_path / f"pool {defect}", ROWS, defects=(defect,) if defect else ())
        tables = TrialData(table.uri, {"judged": judged.uri}, base=str(base))
        rows = np.arange(ROWS)
        for seed in range(SEEDS):
            task = TrialTask(
                seed=seed,
                rows=rows,
                captions=rows,
                rungs=(BUDGET,),
                cpus=1,
                gpus=0,
                checkpoint=Checkpoint(str(tmp_path), f"{defect}-{seed}"),
                group=Group(),
                evaluate=lambda model, samples=None: suite.run(model),
            )
            (report,) = T2v(config).train(task, tables)
            found.setdefault(defect, []).append(report.metrics)
            print(defect or "clean", seed, report.loss, report.metrics, flush=True)

    def values(defect: str, metric: str) -> list[float]:
        return [metrics[metric] for metrics in found[defect]]

    loss, match = "denoising/loss", "prompt_match/accuracy"
    clean = values("", loss)
    assert dprime([-one for one in clean], [-one for one in values("static", loss)]) > 4
    assert dprime([-one for one in clean], [-one for one in values("noise", loss)]) > 4
    assert dprime(values("", match), values("mismatched", match)) > 2
    assert min(values("", match)) > 0.6

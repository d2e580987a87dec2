"""The shipped small text-to-video model must show what is wrong with videos: that is all it is for.

Each defect is seen by the metrics that are made for it, by some of them only.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from factories import dprime
from small_runs import ROOT
from t2v_world import write_clips

from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.evaluation.answer_store import AnswerStore
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.evaluator import EVALUATORS
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.base import BaseTask
from djsandbox_ray.trials.checkpoint import Checkpoint
from djsandbox_ray.trials.family import TrialData, TrialTask
from djsandbox_ray.trials.strategies.strategy import Group
from djsandbox_ray.trials.t2v.base import T2vBase, VideoBaseConfig
from djsandbox_ray.trials.t2v.config import T2vModelConfig
from djsandbox_ray.trials.t2v.family import T2v

SEEDS, ROWS = 3, 700
CLEAN, DEFECTS = "clean", ("static", "noise", "mismatched")
LOSS, MATCH, ENERGY = "denoising/loss", "prompt_match/accuracy", "motion/energy"


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_each_defect_is_seen_by_the_metrics_that_are_made_for_it(tmp_path: Path) -> None:
    document = yaml.safe_load((ROOT / "configs" / "t2v.yaml").read_text())
    settings, evaluation = document["trials"], document["evaluation"]

    def clips(name: str, source: dict[str, Any], defects: Sequence[str] = ()) -> SampleTable:
        config = {key: value for key, value in source.items() if key not in ("type", "samples")}
        return write_clips(tmp_path / name, source["samples"], defects=defects, **config)

    trusted = clips("trusted", settings["model"]["base"]["train"]["dataset"])
    base, kept = tmp_path / "base", partial(Checkpoint, str(tmp_path))
    base.mkdir()
    recipe = VideoBaseConfig.model_validate(settings["model"]["base"])
    T2vBase(recipe).make(BaseTask({"clips": trusted.uri}, base, kept, cpus=1, gpus=0))
    model = T2vModelConfig.model_validate({**settings["model"], "base": {"path": str(base)}})
    judged = clips("judged", evaluation["dataset"])
    data = EvaluationSet.read("judged", judged.uri)
    metrics = [
        EVALUATORS.get(one["type"]).Config.model_validate(one) for one in evaluation["metrics"]
    ]
    suite = Suite(metrics, [data] * len(metrics), evaluation["score"])
    found: dict[str, list[dict[str, float]]] = {}
    for pool in (CLEAN, *DEFECTS):
        table = clips(pool, {"samples": ROWS}, () if pool == CLEAN else (pool,))
        rows = np.arange(ROWS)
        for seed in range(SEEDS):

            def evaluate(seen: Any, samples: int | None = None, name: str = "") -> dict[str, float]:
                return suite.run(seen, AnswerStore(Storage(str(tmp_path)), name, samples or 0))

            task = TrialTask(
                seed=seed,
                rows=rows,
                captions=rows,
                rungs=(settings["budget"],),
                cpus=1,
                gpus=0,
                checkpoint=Checkpoint(str(tmp_path), f"{pool}-{seed}"),
                group=Group(),
                evaluate=partial(evaluate, name=f"{pool}-{seed}"),
            )
            tables = TrialData(table.uri, {data.id: data.uri}, base=str(base))
            (report,) = T2v(model).resolved(0).train(task, tables)
            found.setdefault(pool, []).append(dict(report.metrics))
            print(pool, seed, report.loss, report.metrics, flush=True)

    def told(pool: str, metric: str) -> float:
        """Return how much more of a metric clean clips give than a pool."""
        return dprime(*([one[metric] for one in found[name]] for name in (CLEAN, pool)))

    assert -told("static", LOSS) > 4, found
    assert -told("noise", LOSS) > 4, found
    assert told("mismatched", MATCH) > 2, found
    assert told("static", ENERGY) > 2, found
    assert min(one[MATCH] for one in found[CLEAN]) > 0.6

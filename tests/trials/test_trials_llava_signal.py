"""The shipped small LLaVA must show data quality: that is all it is for."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from factories import dprime
from llava_world import write_shapes
from small_runs import ROOT

from djsandbox_ray.analysis.verdicts.scores import Yardstick
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.evaluation.answer_evaluator import AnswerEvaluator
from djsandbox_ray.evaluation.asking import Answer, Asked
from djsandbox_ray.evaluation.config import EvaluationConfig
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.evaluator import EVALUATORS
from djsandbox_ray.trials.base import BaseTask
from djsandbox_ray.trials.checkpoint import Checkpoint
from djsandbox_ray.trials.family import FAMILIES, TrialData, TrialTask
from djsandbox_ray.trials.llava.base import LlavaBase
from djsandbox_ray.trials.llava.family import Llava
from djsandbox_ray.trials.strategies.strategy import Group

SEEDS, ROWS = 3, 1500
DEFECTS = {"clean": {}, "mismatched": {"mismatched": 0.4}}
LEAST = 4.0
"""Of the distance between the two."""


class Asking:
    """Answers of a model that are not kept."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def answers(self, asked: list[Asked]) -> dict[str, Answer]:
        return {answer.key: answer for answer in self._model.answer(asked)}


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_mismatched_captions_are_seen_by_the_declared_score(tmp_path: Path) -> None:
    document = yaml.safe_load((ROOT / "configs" / "llava.yaml").read_text())
    settings = document["trials"]
    evaluation = EvaluationConfig.model_validate(document["evaluation"])
    train = settings["model"]["base"]["train"]
    make = partial(write_shapes, tmp_path)
    trusted = {"pairs": make(train["dataset"]).uri, "questions": make(train["questions"]).uri}
    family = FAMILIES.get("llava")
    config = family.Config.model_validate(settings["model"])
    base = tmp_path / "base"
    base.mkdir()
    kept = partial(Checkpoint, str(tmp_path))
    LlavaBase(config.base).make(BaseTask(trusted, base, kept, cpus=1, gpus=0))

    evaluators = [EVALUATORS.get(one.type)(one) for one in evaluation.metrics]
    sets = {}
    for place, evaluator in enumerate(evaluators):
        source = evaluator.source()
        table = make(evaluation.dataset) if source is None else make(source.config)
        sets[evaluator] = EvaluationSet.read(f"set {place}", table.uri)

    def evaluate(model: Any, samples: int) -> dict[str, float]:
        found: dict[str, float] = {}
        for evaluator, data in sets.items():
            asks = isinstance(evaluator, AnswerEvaluator)
            found |= evaluator.evaluate(Asking(model) if asks else model, data)
        return found

    fixed = make(settings["model"]["finetune"]["dataset"])
    scores: dict[str, list[dict[str, float]]] = {}
    for name, defects in DEFECTS.items():
        pool: SampleTable = make({"type": "shapes", "samples": 2 * ROWS, "defects": defects})
        data = TrialData(
            pool.uri,
            {data.id: data.uri for data in sets.values()},
            {"finetune": fixed.uri},
            str(base),
        )
        for seed in range(SEEDS):
            drawn = np.random.default_rng(seed).choice(pool.rows, ROWS, replace=False)
            task = TrialTask(
                seed=seed,
                rows=drawn,
                captions=drawn,
                rungs=(settings["budget"] + settings["model"]["finetune"]["samples"],),
                budget=settings["budget"],
                cpus=1,
                gpus=0,
                checkpoint=Checkpoint(str(tmp_path), f"{name}-{seed}"),
                group=Group(),
                evaluate=evaluate,
            )
            (report,) = Llava(config).resolved(0).train(task, data)
            scores.setdefault(name, []).append(dict(report.metrics))
    # As a run does it: changes against the controls, which here are trials on either pool.
    trials = {(name, seed): one for name in scores for seed, one in enumerate(scores[name])}
    yardstick = Yardstick.from_controls(trials, evaluation.score_metrics(), evaluation.aggregate)
    clean, bad = ([yardstick.change(one) for one in scores[name]] for name in DEFECTS)
    told = {
        name: dprime(*([one[name] for one in scores[pool]] for pool in DEFECTS))
        for name in yardstick.metrics
    }
    assert dprime(clean, bad) >= LEAST, (dprime(clean, bad), told, scores)
    # Both of its metrics see it: the one that is better when less falls.
    assert told["caption_nll/token"] < 0 < told["textvqa/accuracy"], (told, scores)

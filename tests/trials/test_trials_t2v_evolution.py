"""Chains of trainings: what goes on from what, whose settings are changed, and what cannot be."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from djsandbox_ray.errors import BadInput
from djsandbox_ray.trials.clip.family import ClipConfig
from djsandbox_ray.trials.lora import AdapterFolder
from djsandbox_ray.trials.t2v.config import T2vModelConfig
from djsandbox_ray.trials.t2v.distil import ConsistencyConfig
from djsandbox_ray.trials.t2v.evolution import EvolutionConfig, contradictions_of, stage_model

CONSISTENCY = {
    "type": "consistency",
    "weights": {"image": 1, "video": 0},
    "rewards": {"image": {"type": "clip", "path": "${scorer}"}},
}
MODEL = T2vModelConfig(
    type="t2v", base={"path": "/nowhere"}, lora={"rank": 8, "alpha": 8}, objective=CONSISTENCY
)
FIRST: dict[str, Any] = {"name": "distilled", "pool": "motion/high"}
SECOND = {
    **FIRST,
    "name": "taught",
    "teacher": "previous",
    "init": "previous",
    "model": {"objective": {"weights": {"cd": 0.5, "real": 0.5}}, "learning_rate": 1e-6},
}
THIRD = {**FIRST, "name": "evolved", "teacher": "taught", "init": "previous"}
FOLDERS = {name: {"path": f"/{name}/{{seed}}", "id": name} for name in ("distilled", "taught")}


def chain(*stages: dict[str, Any]) -> EvolutionConfig:
    return EvolutionConfig(stages=stages)


def test_a_chain_says_what_is_taught_by_whom() -> None:
    links = chain(FIRST, SECOND, THIRD).links()
    assert [(one.init, one.teacher) for one in links] == [
        ("base", "base"),
        ("distilled", "distilled"),
        ("taught", "taught"),
    ]
    assert [(one.taught, one.evolved) for one in links] == [
        (False, False),
        (True, False),
        (True, True),
    ]
    branch = chain(FIRST, SECOND, {**THIRD, "teacher": "distilled"}).links()[2]
    assert (branch.taught, branch.evolved) == (True, False)


def test_a_stage_changes_single_settings_and_knows_where_it_goes_on() -> None:
    evolution = chain(FIRST, SECOND)
    first, second = (
        stage_model(MODEL, stage, link, FOLDERS, {"${scorer}": "/models/scorer"})
        for stage, link in zip(evolution.stages, evolution.links(), strict=True)
    )
    assert isinstance(first, T2vModelConfig)
    assert isinstance(second, T2vModelConfig)
    assert first.init == "base"
    assert isinstance(first.objective, ConsistencyConfig)
    assert first.objective.teacher == "base"
    assert first.objective.weights.cd == 1.0
    assert first.objective.rewards.image.path == "/models/scorer"
    assert second.init == AdapterFolder(path="/distilled/{seed}", id="distilled")
    assert isinstance(second.objective, ConsistencyConfig)
    assert second.objective.teacher == second.init
    weights = second.objective.weights
    assert (weights.cd, weights.real, weights.image) == (0.5, 0.5, 1)
    assert (second.learning_rate, second.lora.rank) == (1e-6, 8)


def test_another_type_replaces_all_of_a_mapping() -> None:
    evolution = chain({**FIRST, "model": {"objective": {"type": "denoise"}}})
    found = stage_model(MODEL, evolution.stages[0], evolution.links()[0], {})
    assert isinstance(found, T2vModelConfig)
    assert found.objective.type == "denoise"


@pytest.mark.parametrize(
    ("stages", "what"),
    [
        ([], "at least 1 item"),
        ([SECOND], "init: there is no 'previous' before it; allowed: base"),
        ([FIRST, {**SECOND, "teacher": "distiled"}], "did you mean 'distilled'"),
        ([FIRST, {**FIRST}], "the name 'distilled' is taken"),
        ([{**FIRST, "name": "base"}], "the name 'base' is taken"),
        ([{**FIRST, "budget": 0}], "greater than 0"),
    ],
)
def test_what_is_no_chain_is_said(stages: list[dict[str, Any]], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        chain(*stages)


@pytest.mark.parametrize(
    ("second", "lines"),
    [
        ({"model": {}}, []),
        ({"model": {"learning_rat": 1}}, ["evolution.stages[1].model.learning_rat: "]),
        (
            {"model": {"objective": {"type": "denoise"}}},
            ["evolution.stages[1].model.objective.type: a teacher needs 'consistency'"],
        ),
        (
            {"model": {"lora": {"rank": 4}}},
            ["evolution.stages[1].model.lora: they are others than those of 'distilled', its init"],
        ),
        ({"model": {"type": "clip"}}, ["evolution.stages[1].model.type: 'clip'; all stages are"]),
        (
            {
                "teacher": "base",
                "init": "base",
                "model": {"train": "full", "objective": {"type": "denoise"}},
            },
            ["evolution.stages[1].model.type: a model of 't2v', so trained, is not kept"],
        ),
        (
            {"model": {"objective": {"solver_steps": 1}, "batch_size": 0}},
            ["evolution.stages[1].model.", "evolution.stages[1].model."],
        ),
    ],
)
def test_every_contradiction_of_a_stage_has_its_place(
    second: dict[str, Any], lines: list[str]
) -> None:
    found = contradictions_of(chain(FIRST, {**SECOND, **second}), MODEL)
    assert len(found) == len(lines), found
    for line, wanted in zip(found, lines, strict=True):
        assert line.startswith(wanted), line


def test_a_model_that_keeps_nothing_has_no_stages() -> None:
    evolution = chain(FIRST)
    with pytest.raises(BadInput, match="is not kept for later stages"):
        stage_model(ClipConfig(type="clip"), evolution.stages[0], evolution.links()[0], {})

"""Several workers compute what one does, and go on where they were cut off."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from gang_world import HOT, PLAIN, RUNGS, lead, shared_by
from trial_world import World

from djsandbox_ray.errors import BadInput
from djsandbox_ray.trials.config import Resources
from djsandbox_ray.trials.strategies.deepspeed import complete
from djsandbox_ray.trials.strategies.strategy import STRATEGIES, Group, Setup, share

CASES = {
    "ddp": {"strategy": "ddp"},
    "fsdp": {"strategy": "fsdp"},
    **{
        f"zero{stage}": {
            "strategy": "deepspeed",
            "deepspeed": {"zero_optimization": {"stage": stage}},
        }
        for stage in (1, 2, 3)
    },
}


def _trials(world: World, folder: Path, resources: Resources) -> dict[str, list[dict[str, Any]]]:
    """Train a trial whole, cut it off and go on, and train one with a hot start."""
    actor, placement = lead(shared_by(world, folder, resources, RUNGS))
    try:
        whole = ray.get(actor.run.remote("whole", PLAIN, 2), timeout=600)
        before = ray.get(actor.run.remote("cut", PLAIN, 1), timeout=600)
        after = ray.get(actor.run.remote("cut", PLAIN, 1, reported=_samples(before[0])))
        hot = ray.get(actor.run.remote("hot", HOT, 2), timeout=600)
        return {"whole": whole, "cut": before + after, "hot": hot}
    finally:
        ray.kill(actor)
        ray.util.remove_placement_group(placement)


def _samples(result: dict[str, Any]) -> int:
    assert "report" in result, result
    return int(result["report"]["samples"])


def _numbers(result: dict[str, Any]) -> dict[str, float]:
    assert "report" in result, result["failure"]["traceback"]
    report = result["report"]
    return {"samples": report["samples"], "loss": report["loss"], **report["metrics"]}


@pytest.fixture(scope="module")
def alone(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    return _trials(world, tmp_path_factory.mktemp("alone"), Resources())  # type: ignore[return-value]


def _check_cut(trials: dict[str, list[dict[str, Any]]]) -> None:
    for whole, cut in zip(trials["whole"], trials["cut"], strict=True):
        assert _numbers(cut) == _numbers(whole), "a cut-off trial is not bit for bit the same"
    first, last = (result["report"] for result in trials["cut"])
    assert last["train_seconds"] > first["train_seconds"]
    assert last["evaluation_seconds"] > first["evaluation_seconds"]
    assert [result["done"] for result in trials["cut"]] == [False, True]


def test_one_worker_goes_on_bit_for_bit(alone: dict[str, list[dict[str, Any]]]) -> None:
    _check_cut(alone)
    assert [_samples(result) for result in alone["whole"]] == [126, 330]


@pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=() if c in ("ddp", "zero2") else pytest.mark.slow) for c in CASES],
)
def test_two_workers_compute_what_one_does(
    case: str, world: World, tmp_path: Path, alone: dict[str, list[dict[str, Any]]]
) -> None:
    trials = _trials(world, tmp_path, Resources(workers=2, **CASES[case]))  # type: ignore[arg-type]
    _check_cut(trials)
    for kind in ("whole", "hot"):
        for ours, theirs in zip(trials[kind], alone[kind], strict=True):
            # One of 200 queries may fall on the other side of a tie.
            assert _numbers(ours) == pytest.approx(_numbers(theirs), rel=1e-4, abs=0.0051)
            assert ours["report"]["loss"] == pytest.approx(theirs["report"]["loss"], rel=1e-4)
    scales = [result["report"]["metrics"]["scale"] for result in trials["hot"]]
    assert max(scales) <= math.log(100) * (1 + 1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"zero_optimization": {"stage": 7}},
            "DeepSpeed says: .*stage; Input should be 0, 1, 2, 3",
        ),
        ({"zero_optimization": {"stagee": 2}}, "stagee; Extra inputs are not permitted"),
        ({"zero_optimization": 2}, r"zero_optimization: a mapping such as \{stage: 2\}"),
        ({"zero_optimisation": {}}, "no such setting; did you mean 'zero_optimization'"),
        ({"train_batch_size": 8}, "train_batch_size: this is decided by trials.model.batch_size"),
        ({"optimizer": {"type": "Adam"}}, "optimizer: this is decided by trials.model"),
        ({"bf16": {"enabled": True}}, "bf16: this is decided by trials.model.precision"),
        ({"zero_force_ds_cpu_optimizer": True}, "zero_force_ds_cpu_optimizer: must be false"),
        ({"curriculum_learning": {"enabled": True}}, "would change what is trained"),
    ],
)
def test_bad_deepspeed_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=f"trials.resources.deepspeed.*{message}"):
        STRATEGIES.get("deepspeed").check(settings, gpus=0)


def test_deepspeed_settings_are_passed_through() -> None:
    user = {
        "zero_optimization": {"stage": 1, "reduce_bucket_size": 1000},
        "flops_profiler": {"enabled": False},
        "communication_data_type": "fp32",
    }
    config = complete(user, clip_norm=0.5, half=True, device="cpu")
    assert config["zero_optimization"] == {"stage": 1, "reduce_bucket_size": 1000}
    assert config["flops_profiler"] == {"enabled": False}
    assert config["communication_data_type"] == "fp32"
    assert config["gradient_clipping"] == 0.5
    assert config["torch_autocast"] == {"enabled": True, "dtype": "bfloat16"}
    assert complete({}, 1.0, False, "cpu")["zero_optimization"] == {"stage": 2}


@pytest.mark.parametrize("layer", [torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.1)])
def test_models_that_mix_samples_or_draw_lots_are_for_one_worker(layer: Any) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), layer)
    recipe = Setup(lambda model: torch.optim.SGD(model.parameters(), lr=0.1), clip_norm=1.0)
    share(model, recipe, Group())
    with pytest.raises(BadInput, match=f"1 is a {type(layer).__name__}"):
        share(model, recipe, Group(0, 2))


def test_dropout_of_nothing_is_no_dropout() -> None:
    recipe = Setup(lambda model: torch.optim.SGD(model.parameters(), lr=0.1), clip_norm=1.0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.0))
    with pytest.raises(ValueError, match="process group has not been initialized"):
        share(model, recipe, Group(0, 2))

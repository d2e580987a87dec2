"""Two workers adapt or distil a video model as one does, however they share it, and judge it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from t2v_pair import CASES, OBJECTIVES, work, write_world
from two_workers import ALONE, run_together

from djsandbox_ray.trials.strategies.strategy import Group

TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def folder(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one worker and two have left of every case."""
    found = tmp_path_factory.mktemp("t2v_pair")
    write_world(found)
    for objective in OBJECTIVES:
        work(Group(), found, f"{ALONE}-{objective}")
    run_together("t2v_pair.py", found, list(map("-".join, CASES)))
    return found


@pytest.mark.parametrize(("share", "objective"), CASES)
def test_two_workers_learn_what_one_does(folder: Path, share: str, objective: str) -> None:
    names = [f"{who}-{objective}" for who in (ALONE, share)]
    alone, found = (torch.load(folder / f"{name}.pt", weights_only=True) for name in names)
    assert found.keys() == alone.keys()
    adapters = [name for name in alone if ".lora_" in name]
    assert any(alone[name].abs().max() > 0 for name in adapters if ".lora_B" in name)
    for name, value in alone.items():
        assert torch.allclose(value, found[name], rtol=0, atol=TOLERANCE), name
    told, together = (json.loads((folder / f"{name}.json").read_text()) for name in names)
    assert together == pytest.approx(told, rel=1e-3)

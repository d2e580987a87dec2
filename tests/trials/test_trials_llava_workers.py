"""Two workers train a LLaVA as one does, however they share it, and answer what one does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from llava_pair import KINDS, work, write_world
from two_workers import ALONE, SHARES, run_together

from djsandbox_ray.trials.strategies.strategy import Group

TOLERANCE = 1e-5
CASES = [(share, kind) for share in SHARES if share != ALONE for kind in KINDS]
QUICK = ("ddp", "full")


@pytest.fixture(scope="module")
def world(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What trials read, and what one worker has left of each kind."""
    folder = tmp_path_factory.mktemp("llava_pair")
    write_world(folder)
    for kind in KINDS:
        work(Group(), folder, f"{ALONE}-{kind}")
    return folder


@pytest.fixture(scope="module")
def quick(world: Path) -> Path:
    """What two workers have left of one case beside it."""
    run_together("llava_pair.py", world, ["-".join(QUICK)])
    return world


@pytest.fixture(scope="module")
def whole(world: Path) -> Path:
    """Of all others."""
    run_together("llava_pair.py", world, ["-".join(case) for case in CASES if case != QUICK])
    return world


@pytest.mark.parametrize(
    ("share", "kind"),
    [pytest.param(*case, marks=[] if case == QUICK else pytest.mark.slow) for case in CASES],
)
def test_two_workers_learn_and_answer_as_one_does(
    share: str, kind: str, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue("quick" if (share, kind) == QUICK else "whole")
    alone, found = (
        torch.load(folder / f"{name}-{kind}.pt", weights_only=True) for name in (ALONE, share)
    )
    assert found.keys() == alone.keys()
    for name, value in alone.items():
        assert torch.allclose(value, found[name], rtol=0, atol=TOLERANCE), name
    told, together = (
        json.loads((folder / f"{name}-{kind}.json").read_text()) for name in (ALONE, share)
    )
    assert together["said"] == told["said"]
    assert together["tokens"] == told["tokens"]
    assert together["nll"] == pytest.approx(told["nll"], rel=1e-3)


def test_each_kind_trains_what_it_should(world: Path) -> None:
    """Else workers that leave the same parts as they were would pass, too."""
    states = {kind: torch.load(world / f"{ALONE}-{kind}.pt", weights_only=True) for kind in KINDS}
    head, table = "llava.lm_head.weight", "llava.model.language_model.embed_tokens.weight"
    assert torch.equal(states["tied"][head], states["tied"][table])
    assert not torch.equal(states["full"][head], states["full"][table])
    ups = [value for name, value in states["lora"].items() if ".lora_B." in name]
    assert ups
    assert all(value.abs().max() > 0 for value in ups)

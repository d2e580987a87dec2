"""Two workers train an image-to-text model as one does, however they share it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from two_workers import ALONE, SHARES, run_together
from vlm_pair import KINDS, work, write_world

from djsandbox_ray.trials.strategies.strategy import Group

pytestmark = pytest.mark.slow

TOLERANCE = 1e-5
CASES = [(share, kind) for share in SHARES if share != ALONE for kind in KINDS]


@pytest.fixture(scope="module")
def folder(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one worker and two have left of every case."""
    found = tmp_path_factory.mktemp("vlm_pair")
    write_world(found)
    for kind in KINDS:
        work(Group(), found, f"{ALONE}-{kind}")
    run_together("vlm_pair.py", found, ["-".join(case) for case in CASES])
    return found


@pytest.mark.parametrize(("share", "kind"), CASES)
def test_two_workers_learn_what_one_does(folder: Path, share: str, kind: str) -> None:
    alone, found = (
        torch.load(folder / f"{name}-{kind}.pt", weights_only=True) for name in (ALONE, share)
    )
    assert found.keys() == alone.keys()
    for name, value in alone.items():
        # A bias of keys changes no softmax: all that AdamW sees of it is rounding.
        if not name.endswith("k_proj.bias"):
            assert torch.allclose(value, found[name], rtol=0, atol=TOLERANCE), name

"""What killed writers have left in a storage: gone when the next run begins, wherever it lay."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from djsandbox_ray.storage.store import Storage
from djsandbox_ray.workflows.leftovers import cleared

_KILLED = """
import os, sys
from djsandbox_ray.storage.store import Storage
with Storage(sys.argv[1]).open_write(sys.argv[2]) as file:
    os.kill(os.getpid(), 9)
"""


def _left(storage: Storage, path: str) -> Path:
    """Have a writer of a file be killed; return what is left of it."""
    subprocess.run([sys.executable, "-c", _KILLED, storage.url, path], check=False)
    (part,) = Path(storage.uri(path)).parent.iterdir()
    return part


@pytest.mark.parametrize(
    "path",
    [
        "runs/mine/jobs/pools.json",
        "trials/trial-1.json",
        "datasets/dataset-1/stats/op-1.json",
        "models/scorer-1/model.safetensors",
        "answers/training-1/100/asking-1.parquet/1.parquet",
        "videos/training-1/100/sampling-1/1.mp4",
    ],
)
def test_what_a_killed_writer_left_is_removed(storage: Storage, path: str) -> None:
    part = _left(storage, path)
    with cleared(storage, "mine"):
        assert not part.exists()


def test_other_runs_look_after_their_own(storage: Storage) -> None:
    part = _left(storage, "runs/other/jobs/pools.json")
    with cleared(storage, "mine"):
        pass
    assert part.exists()

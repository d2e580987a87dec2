"""Two workers adapt a text-to-video model as one does, however they share it, and judge it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from t2v_pair import CASES, work, write_world

from djsandbox_ray.trials.strategies.strategy import Group

PATIENCE = 1800
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one worker and two have left of every case."""
    found = tmp_path_factory.mktemp("t2v_pair")
    write_world(found)
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    work(Group(), found, "alone")
    torch.set_num_threads(before)
    _together(found, [case for case in CASES if case != "alone"])
    return found


def _together(folder: Path, cases: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    program, path = Path(__file__).with_name("t2v_pair.py"), os.pathsep.join(sys.path)
    workers = []
    for rank in range(2):
        command = [sys.executable, str(program), str(rank), "2", str(port), str(folder), *cases]
        with (folder / f"{rank}.log").open("w") as log:
            env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
            workers.append(subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT))
    end = time.monotonic() + PATIENCE
    try:
        while any(worker.poll() is None for worker in workers) and time.monotonic() < end:
            if any(worker.poll() for worker in workers):
                break  # the other one would wait for ever
            time.sleep(0.2)
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    logs = [(folder / f"{rank}.log").read_text() for rank in range(2)]
    assert all(worker.returncode == 0 for worker in workers), "\n".join(logs)[-4000:]


@pytest.mark.parametrize("case", [case for case in CASES if case != "alone"])
def test_two_workers_learn_what_one_does(folder: Path, case: str) -> None:
    alone, found = (
        torch.load(folder / f"{name}.pt", weights_only=True) for name in ("alone", case)
    )
    assert found.keys() == alone.keys()
    adapters = [name for name in alone if ".lora_" in name]
    assert any(alone[name].abs().max() > 0 for name in adapters if ".lora_B" in name)
    for name, value in alone.items():
        assert torch.allclose(value, found[name], rtol=0, atol=TOLERANCE), name
    told, together = (json.loads((folder / f"{name}.json").read_text()) for name in ("alone", case))
    assert together == pytest.approx(told, rel=1e-3)

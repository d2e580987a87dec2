"""Two workers of one training, each a process: how they are started, and what they are."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from djsandbox_ray.trials.strategies.strategy import Group

ALONE = "alone"
SHARES: Mapping[str, Mapping[str, Any]] = {
    ALONE: {},
    "ddp": {"strategy": "ddp"},
    "fsdp": {"strategy": "fsdp"},
    "zero2": {"strategy": "deepspeed", "settings": {"zero_optimization": {"stage": 2}}},
    "zero3": {"strategy": "deepspeed", "settings": {"zero_optimization": {"stage": 3}}},
}
"""How workers share a model."""
PATIENCE = 1800
"""Seconds after which workers that wait for each other are ended."""


def run_together(program: str, folder: Path, cases: Sequence[str]) -> None:
    """Run a program of this folder with a rank, the number of workers, a port, a folder and cases.

    Raises:
        AssertionError: a worker fails; has what both have said.
    """
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    path = str(Path(__file__).with_name(program))
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    workers = []
    for rank in range(2):
        command = [sys.executable, path, str(rank), "2", str(port), str(folder), *cases]
        with (folder / f"{rank}.log").open("w") as log:
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


def take_part(work: Callable[[Group, Path, str], None]) -> None:
    """Be one of the workers that :func:`run_together` starts, for one case after the other.

    Args:
        work: given this worker's place, the folder and a case, whose name begins with one of
            :data:`SHARES` (``fsdp``, ``fsdp-lora``).
    """
    rank, size, port = map(int, sys.argv[1:4])
    torch.set_num_threads(1)
    store = distributed.TCPStore("127.0.0.1", port, size, is_master=rank == 0)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=size)
    for case in sys.argv[5:]:
        work(Group(rank, size, **SHARES[case.partition("-")[0]]), Path(sys.argv[4]), case)
        print(f"{case} is done", flush=True)
    distributed.destroy_process_group()

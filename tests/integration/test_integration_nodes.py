"""Stages on nodes of their own kind, and nodes that come late, go, or never come."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from growing_cluster import (
    CPU_NODE,
    TRIAL_NODE,
    autoscaling_cluster,
    growing_cluster,
    own_environment,
)
from small_run import write

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1200)]

ON_CPU_NODES = {"resources": {"custom": {"cpu_node": 0.001}}}
CHANGES: dict[str, Any] = {
    "dataset": {"type": "shapes", "samples": 600},
    "scorer": None,
    "operators": ["text_length_filter"],
    "pools": {"controls": 5, "self_tests": False},
    "confirm": {"top": 0},
    "tracking": {"type": "none"},
    "ingest": ON_CPU_NODES,
    "statistics": ON_CPU_NODES,
    "trials": {
        "model": {"type": "reader:Reader"},
        "budget": 40,
        "seeds": 2,
        "early_stopping": {"type": "none", "rungs": [0.5]},
        "resources": {"cpus_per_worker": 0.5, "custom": {"trial_node": 0.001}},
    },
}
# Nodes that are gone are waited for at once: half a minute of patience is for processes that start.
PROGRAM = """
import sys
from djsandbox_ray.cli import main
from djsandbox_ray.trials import reporter
reporter._PATIENCE = 3.0
sys.argv = ["djsandbox", *sys.argv[1:]]
main()
"""
WAITING = "waiting for nodes for 1 x (0.5 CPUs, 0.001 trial_node)"


class Driver:
    """The command line in a process of its own."""

    def __init__(self, folder: Path, address: str, *settings: str) -> None:
        self._out = folder / f"out-{time.time_ns()}.txt"
        command = [sys.executable, "-c", PROGRAM, "run", str(folder / "config.yaml")]
        for setting in settings:
            command += ["--set", setting]
        here = str(Path(__file__).parent)
        with self._out.open("w") as out:
            self._process = subprocess.Popen(
                command,
                env=own_environment(RAY_ADDRESS=address, PYTHONPATH=here, OMP_NUM_THREADS="1"),
                cwd=folder,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    @property
    def out(self) -> str:
        return self._out.read_text()

    def until(self, there: Callable[[], bool]) -> None:
        """Wait for something while the driver is at work."""
        while not there():
            assert self._process.poll() is None, self.out
            time.sleep(0.1)

    def end(self) -> int:
        try:
            return self._process.wait(500)
        finally:
            self._process.kill()


def notes(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in folder.glob(f"notes/{kind}-*.json")]


def actors(address: str) -> list[tuple[str, str]]:
    """Return the class and the node of every actor that the cluster has had."""
    code = (
        f"import json, ray; ray.init({address!r}, log_to_driver=False, logging_level='ERROR')\n"
        "found = ray._private.state.actors().values()\n"
        "print(json.dumps([(a['ActorClassName'], a['Address']['NodeID']) for a in found]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=own_environment(), capture_output=True, check=True
    )
    return [(name, node) for name, node in json.loads(done.stdout.splitlines()[-1])]


def test_stages_run_on_their_kind_of_nodes_whenever_those_come(tmp_path: Path) -> None:
    write(tmp_path, CHANGES)
    with growing_cluster(tmp_path) as cluster:
        cpu_node = cluster.join(**CPU_NODE)["node"]

        at_once = Driver(tmp_path, cluster.address)
        assert at_once.end() == 2
        assert "trials.resources asks for 1 x (0.5 CPUs, 0.001 trial_node)" in at_once.out
        assert "ingest" not in at_once.out  # nothing was begun

        never = Driver(tmp_path, cluster.address, "cluster.wait=3")
        assert never.end() == 2
        assert "which no nodes have yet; its stage will wait for them, 3 s at most" in never.out
        assert "no others came in 3 s (cluster.wait)" in never.out
        assert "statistics: text_len" in never.out  # all that had nodes was done

        late = Driver(tmp_path, cluster.address, "cluster.wait=120")
        late.until(lambda: WAITING in late.out)
        assert "statistics: done before" in late.out
        first = cluster.join(**TRIAL_NODE)
        late.until(lambda: bool(notes(tmp_path, "behind")))
        said = late.out.count(WAITING)
        os.kill(first["pid"], signal.SIGKILL)  # as a provider takes back what was cheap
        late.until(lambda: late.out.count(WAITING) > said)
        second = cluster.join(**TRIAL_NODE)
        assert late.end() == 0, late.out

        trained_on = {note["node"] for note in notes(tmp_path, "start")}
        assert trained_on == {first["node"], second["node"]}
        placed = actors(cluster.address)
        assert {node for name, node in placed if "StatisticsWorker" in name} == {cpu_node}
        assert {node for name, node in placed if "Trial" in name} <= trained_on


def test_an_autoscaler_is_asked_for_the_nodes_of_every_stage(tmp_path: Path) -> None:
    write(tmp_path, CHANGES)
    kinds = {"cpu": {"CPU": 1.0, "cpu_node": 1.0}, "trial": {"CPU": 1.0, "trial_node": 1.0}}
    with autoscaling_cluster(kinds) as address:
        driver = Driver(tmp_path, address)
        assert driver.end() == 0, driver.out
        assert "its stage will wait for them, 10 min at most (cluster.wait)" in driver.out
        nodes = {note["node"] for note in notes(tmp_path, "start")}
        assert len(nodes) == 1

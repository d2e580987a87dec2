"""Stages on nodes of their own kind, and nodes that come late, go, or never come."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil
import pytest
from factories import wait_until
from machines import BIN, machines
from ports import free_ports
from ray.util import get_node_ip_address
from small_family import notes
from small_runs import SMALL, environment, write

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]

ON_CPU_NODES = {"resources": {"custom": {"cpu_node": 0.001}}}
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


def _write(folder: Path) -> None:
    model = {"type": "small_family:Taster", "pause": 0.6, "place": str(folder / "notes")}
    resources = {"cpus_per_worker": 0.5, "custom": {"trial_node": 0.001}}
    changes = {
        "tracking": {"type": "none"},
        "ingest": ON_CPU_NODES,
        "statistics": ON_CPU_NODES,
        "trials": {**SMALL["trials"], "model": model, "resources": resources},
    }
    write(folder, changes)


class Driver:
    """The command line in a process of its own."""

    def __init__(self, folder: Path, own: Mapping[str, str], *settings: str) -> None:
        self._out = folder / f"out-{time.time_ns()}.txt"
        command = [sys.executable, "-c", PROGRAM, "run", str(folder / "config.yaml")]
        command += [word for setting in settings for word in ("--set", setting)]
        with self._out.open("w") as out:
            self._process = subprocess.Popen(
                command, env=own, cwd=folder, stdout=out, stderr=subprocess.STDOUT
            )

    @property
    def out(self) -> str:
        return self._out.read_text()

    def until(self, there: Callable[[], bool]) -> None:
        """Wait for something while the driver is at work."""

        def working() -> bool:
            assert self._process.poll() is None, self.out
            return there()

        wait_until(working, lambda: self.out)

    def end(self) -> int:
        try:
            return self._process.wait(900)
        finally:
            self._process.kill()


def _actors(own: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the class and the node of every actor that the cluster has had."""
    code = (
        "import json, ray; ray.init(log_to_driver=False, logging_level='ERROR')\n"
        "found = ray._private.state.actors().values()\n"
        "print(json.dumps([(a['ActorClassName'], a['Address']['NodeID']) for a in found]))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=own, capture_output=True, check=True)
    return [(name, node) for name, node in json.loads(done.stdout.splitlines()[-1])]


def test_stages_run_on_their_kind_of_nodes_whenever_those_come(tmp_path: Path) -> None:
    _write(tmp_path)
    with machines() as cluster:
        cluster.join("cpu", cpu_node=1)

        at_once = Driver(tmp_path, cluster.driver)
        assert at_once.end() == 2
        assert "trials.resources asks for 1 x (0.5 CPUs, 0.001 trial_node)" in at_once.out
        assert "statistics" not in at_once.out  # nothing was begun

        never = Driver(tmp_path, cluster.driver, "cluster.wait=3")
        assert never.end() == 2
        assert "which no nodes have yet; its stage will wait for them, 3 s at most" in never.out
        assert "no others came in 3 s (cluster.wait)" in never.out
        assert "statistics: special_char" in never.out  # all that had nodes was done

        late = Driver(tmp_path, cluster.driver, "cluster.wait=600")
        late.until(lambda: WAITING in late.out)
        assert "statistics: done before" in late.out
        first = cluster.join("first", trial_node=1)
        late.until(lambda: bool(notes(tmp_path / "notes", "behind")))
        told = late.out.count(WAITING)
        first.kill()  # as a provider takes back what was cheap
        late.until(lambda: late.out.count(WAITING) > told)
        cluster.join("second", trial_node=1)
        assert late.end() == 0, late.out

        starts = notes(tmp_path / "notes", "start")
        assert {note["machine"] for note in starts} == {"first", "second"}
        trained_on, placed = {note["node"] for note in starts}, _actors(cluster.driver)
        computed_on = {node for name, node in placed if "StatisticsWorker" in name}
        assert len(computed_on) == 1
        assert not computed_on & trained_on
        assert {node for name, node in placed if "Trial" in name} <= trained_on


_STORE = 100 * 1024**2


@contextmanager
def _autoscaling_cluster(kinds: dict[str, dict[str, float]]) -> Iterator[str]:
    """Start a head without CPUs and Ray's autoscaler, which has one node of each kind to add.

    Ray's own provider of pretended nodes starts them as raylets of this machine. (Its
    ``AutoscalingCluster`` would end all other clusters of the machine.)
    """
    ports = free_ports(3)
    names = ("port", "dashboard-agent-listen-port", "ray-client-server-port")
    address = f"{get_node_ip_address()}:{ports[0]}"
    with TemporaryDirectory(prefix="ray") as short:  # the path of a socket is limited
        config = Path(short, "autoscaler.json")
        config.write_text(json.dumps(_autoscaler(address, kinds)))
        command = [str(BIN / "ray"), "start", "--head", "--block"]
        command += ["--num-cpus=0", f"--object-store-memory={_STORE}", "--include-dashboard=false"]
        command += [f"--{name}={port}" for name, port in zip(names, ports, strict=True)]
        command += [f"--temp-dir={short}", f"--autoscaling-config={config}"]
        own = environment(AUTOSCALER_UPDATE_INTERVAL_S="1", RAY_FAKE_CLUSTER="1")
        with Path(short, "log").open("wb") as log:
            head = subprocess.Popen(command, env=own, stdout=log, stderr=log)

        def is_open() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", ports[0])) == 0

        try:
            wait_until(is_open, Path(short, "log").read_text)
            yield address
        finally:
            head.terminate()
            head.wait(120)
            # Nobody ends the nodes that the autoscaler has started.
            for process in psutil.process_iter(["cmdline"]):
                if any(short in word for word in process.info["cmdline"] or []):
                    process.kill()


def _autoscaler(address: str, kinds: dict[str, dict[str, float]]) -> dict[str, Any]:
    one_each = {
        name: {
            "resources": {**resources, "object_store_memory": _STORE},
            "node_config": {},
            "min_workers": 0,
            "max_workers": 1,
        }
        for name, resources in kinds.items()
    }
    head = {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}
    lists = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray")
    return {
        "cluster_name": "pretended",
        "max_workers": len(kinds),
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": 5,
        "provider": {
            "type": "fake_multinode",
            "gcs_address": address,
            "use_node_id_as_ip": True,  # all nodes share one address
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "auth": {},
        "available_node_types": {"ray.head.default": head, **one_each},
        "head_node_type": "ray.head.default",
        "file_mounts": {},
        "cluster_synced_files": [],
        **{f"{name}_commands": [] for name in (*lists, "worker_start_ray")},
    }


def test_an_autoscaler_is_asked_for_the_nodes_of_every_stage(tmp_path: Path) -> None:
    _write(tmp_path)
    kinds = {"cpu": {"CPU": 1.0, "cpu_node": 1.0}, "trial": {"CPU": 1.0, "trial_node": 1.0}}
    with _autoscaling_cluster(kinds) as address:
        driver = Driver(tmp_path, environment(RAY_ADDRESS=address))
        assert driver.end() == 0, driver.out
        assert "its stage will wait for them, 10 min at most (cluster.wait)" in driver.out
        assert len({note["node"] for note in notes(tmp_path / "notes", "start")}) == 1

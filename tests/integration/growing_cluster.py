"""Clusters whose nodes are of several kinds and come and go while a driver is at work.

As a program: a cluster of raylets in a process of its own. It adds a node for every file
``join-<n>.json`` that appears in its folder, and answers with ``joined-<n>.json``.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

CPU_NODE = {"num_cpus": 1, "resources": {"cpu_node": 1}}
TRIAL_NODE = {"num_cpus": 1, "resources": {"trial_node": 1}}
_SECONDS = 120
_STORE = 100 * 1024**2


@dataclass
class Growing:
    """A cluster that nodes are added to."""

    folder: Path
    address: str
    nodes: list[dict[str, Any]] = field(default_factory=list)
    """Of those that were added, the id (``node``) and the process (``pid``)."""

    def join(self, **node: Any) -> dict[str, Any]:
        """Add a node and return it."""
        number = len(self.nodes)
        write(self.folder / f"join-{number}.json", node)
        self.nodes.append(read(self.folder / f"joined-{number}.json"))
        return self.nodes[-1]


def write(path: Path, content: Any) -> None:
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(content))
    unfinished.rename(path)


def read(path: Path) -> Any:
    """Read a file as soon as it is there."""
    for _ in range(_SECONDS * 10):
        if path.exists():
            return json.loads(path.read_text())
        time.sleep(0.1)
    raise TimeoutError(path)


def own_environment(**settings: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return {**kept, "RAY_AUTH_MODE": "disabled", **settings}


@contextmanager
def growing_cluster(folder: Path) -> Iterator[Growing]:
    """Start a head without CPUs; others join when they are told to."""
    with (folder / "cluster.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, __file__, str(folder)],
            env=own_environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            yield Growing(folder, read(folder / "head.json"))
        finally:
            process.terminate()
            process.wait(timeout=60)


@contextmanager
def autoscaling_cluster(kinds: dict[str, dict[str, float]]) -> Iterator[str]:
    """Start a head without CPUs and Ray's autoscaler, which has one node of each kind to add.

    Ray's own provider of pretended nodes starts them as raylets of this machine. (Its
    ``AutoscalingCluster`` would end all other clusters of the machine.)
    """
    from ports import free_ports  # which is not in reach where this file is the program
    from ray.util import get_node_ip_address

    ports = free_ports(3)
    names = ("port", "dashboard-agent-listen-port", "ray-client-server-port")
    address = f"{get_node_ip_address()}:{ports[0]}"
    with TemporaryDirectory(prefix="ray") as short:  # the path of a socket is limited
        config = Path(short, "autoscaler.json")
        config.write_text(json.dumps(_autoscaler(address, kinds)))
        command = [str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"]
        command += ["--num-cpus=0", f"--object-store-memory={_STORE}", "--include-dashboard=false"]
        command += [f"--{name}={port}" for name, port in zip(names, ports, strict=True)]
        command += [f"--temp-dir={short}", f"--autoscaling-config={config}"]
        environment = own_environment(AUTOSCALER_UPDATE_INTERVAL_S="1", RAY_FAKE_CLUSTER="1")
        with Path(short, "log").open("wb") as log:
            head = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            _when_open(ports[0])
            yield address
        finally:
            head.terminate()
            head.wait(60)
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


def _when_open(port: int) -> None:
    for _ in range(_SECONDS * 10):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(port)


def main(folder: Path) -> None:
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": _STORE}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    write(folder / "head.json", cluster.address)
    try:
        for number in range(100):
            while not (wanted := folder / f"join-{number}.json").exists():
                time.sleep(0.1)
            node = cluster.add_node(object_store_memory=_STORE, **read(wanted))
            pid = node.all_processes["raylet"][0].process.pid
            write(folder / f"joined-{number}.json", {"node": node.node_id, "pid": pid})
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

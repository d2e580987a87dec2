"""A cluster as several machines would make it, on one: every node is a ``ray start`` of its own.

Each has its own working folder, home and temporary folder, so that nothing passes between nodes but
what Ray and the shared storage carry; what a node leaves anywhere can be looked at afterwards.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType

from factories import wait_until
from ports import free_port
from small_runs import environment

BIN = Path(sys.executable).parent
_TRIES = 10


@dataclass
class Machine:
    """One node: a raylet with its workers, and the head's servers on the head."""

    name: str
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def work(self) -> Path:
        return self.folder / "work"

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def temporary(self) -> Path:
        return self.folder / "tmp"

    def log(self) -> str:
        return (self.folder / "node.log").read_text(errors="replace")

    def said(self, *words: str) -> str | None:
        """Return which of some words its log has; it may not have ended without one of them."""
        ended, log = self.process.poll() is not None, self.log()
        found = next((one for one in words if one in log), None)
        assert found or not ended, log
        return found

    def kill(self) -> None:
        """End it as a power cut would: every process of it, at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(timeout=120)


@dataclass
class Machines:
    """A head, and the nodes that have joined it."""

    folder: Path
    environment: Mapping[str, str]
    nodes: dict[str, Machine] = field(default_factory=dict)
    port: int = field(default_factory=free_port)
    dashboard_port: int = field(default_factory=free_port)

    @property
    def dashboard(self) -> str:
        return f"http://127.0.0.1:{self.dashboard_port}"

    @property
    def driver(self) -> dict[str, str]:
        """Return the environment of a driver on this machine."""
        return environment(**self.environment, RAY_ADDRESS=f"127.0.0.1:{self.port}")

    @property
    def sessions(self) -> Path:
        """Ray's own folder: logs, sockets, and the list of what Prometheus can scrape."""
        return self.folder / "ray"

    def head(self, cpus: int = 0) -> Machine:
        started = self._start(
            "head",
            "--head",
            f"--port={self.port}",
            f"--dashboard-port={self.dashboard_port}",
            f"--temp-dir={self.sessions}",
            f"--num-cpus={cpus}",
        )
        wait_until(self._has_dashboard, started.log, pause=0.2)
        return started

    def join(self, name: str, cpus: int = 1, **resources: float) -> Machine:
        """Start a node and wait until it is in the cluster: two at once disturb each other."""
        # Nodes that share Ray's folder unpack the files of a job over each other.
        own = f"--temp-dir={self.folder / name / 'ray'}"
        address = f"--address=127.0.0.1:{self.port}"
        has = f"--resources={json.dumps({name: 1.0, **resources})}"
        return self._start(name, address, f"--num-cpus={cpus}", has, own)

    def _start(self, name: str, *options: str) -> Machine:
        """Start a node, anew if need be: on a busy machine Ray itself gives up after 30 seconds."""
        ends = ("Ray runtime started", "timed out during startup")
        for _ in range(_TRIES):
            node = self.nodes[name] = self._begin(name, *options)
            if wait_until(partial(node.said, *ends), node.log, pause=0.2) == ends[0]:
                return node
            node.kill()
            shutil.rmtree(node.folder)
        raise AssertionError(f"{name} did not start in {_TRIES} attempts")

    def _begin(self, name: str, *options: str) -> Machine:
        folder = self.folder / name
        for part in ("work", "home", "tmp"):
            (folder / part).mkdir(parents=True)
        ports = [
            f"--{what}={free_port()}"
            for what in (
                "dashboard-agent-listen-port",
                "dashboard-agent-grpc-port",
                "runtime-env-agent-port",
                "metrics-export-port",
            )
        ]
        common = ["--node-ip-address=127.0.0.1", "--object-store-memory=400000000", "--block"]
        with (folder / "node.log").open("wb") as log:
            process = subprocess.Popen(
                [str(BIN / "ray"), "start", *options, *ports, *common],
                cwd=folder / "work",
                env={
                    **self.environment,
                    "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
                    "HOME": str(folder / "home"),
                    "TMPDIR": str(folder / "tmp"),
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return Machine(name, folder, process)

    def _has_dashboard(self) -> bool:
        with urllib.request.urlopen(f"{self.dashboard}/api/version", timeout=10):
            return True


@contextmanager
def machines(
    environment: Mapping[str, str] = MappingProxyType({}), cpus: int = 0
) -> Iterator[Machines]:
    """Start a head; further nodes join by :meth:`Machines.join`. Ends all that was started.

    Args:
        environment: of every node, beside PATH, HOME, TMPDIR and Ray's own settings.
        cpus: of the head; by default all work is done by the nodes that join it.
    """
    # Not under pytest's folder: the paths of sockets have at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="djs-", ignore_cleanup_errors=True) as folder:
        own = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
        started = Machines(Path(folder), {**own, **environment})
        try:
            started.head(cpus)
            yield started
        finally:
            for node in reversed(started.nodes.values()):
                node.kill()

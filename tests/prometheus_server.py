"""A real Prometheus on a free port of the loopback, and what one can ask it."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from factories import wait_until
from ports import free_port


@dataclass(frozen=True)
class Prometheus:
    """A server that scrapes."""

    address: str

    def ask(self, path: str, **arguments: str) -> Any:
        """Return the data that the API answers with."""
        query = urllib.parse.urlencode(arguments)
        with urllib.request.urlopen(f"{self.address}/api/v1/{path}?{query}", timeout=60) as answer:
            found = json.load(answer)
        assert found["status"] == "success", found
        return found["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return what an expression of PromQL gives now: labels and value of every series."""
        result = self.ask("query", query=expression)["result"]
        return [(one["metric"], float(one["value"][1])) for one in result]

    def targets(self) -> dict[str, str]:
        """Return the health of every address that is scraped: ``up``, ``down`` or ``unknown``."""
        active = self.ask("targets")["activeTargets"]
        return {one["scrapeUrl"]: one["health"] for one in active}


def binary(name: str) -> str:
    """Return where a program of Debian's package is; skips the test where it is not installed."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install prometheus")
    return found


@contextmanager
def prometheus(config: Path, folder: Path) -> Iterator[Prometheus]:
    """Run a server until the block ends.

    Args:
        config: what it scrapes, and how often.
        folder: for its data and its log.
    """
    program = binary("prometheus")
    port = free_port()
    command = [program, f"--config.file={config}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    command.append(f"--web.listen-address=127.0.0.1:{port}")
    log = folder / "prometheus.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, cwd=folder)
        try:
            server = Prometheus(f"http://127.0.0.1:{port}")

            def ready() -> bool:
                assert process.poll() is None, log.read_text()
                with urllib.request.urlopen(f"{server.address}/-/ready", timeout=30) as answer:
                    return bool(answer.status == 200)

            wait_until(ready, log.read_text)
            yield server
        finally:
            process.terminate()
            process.wait(timeout=120)

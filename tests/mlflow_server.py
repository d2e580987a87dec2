"""A real MLflow tracking server on loopback, in a process group of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import urlopen

from factories import wait_until
from ports import free_port

from djsandbox_ray.tracking.mlflow_index import ENVIRONMENT

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class MlflowServer:
    """A running server."""

    uri: str
    """``http://127.0.0.1:PORT``."""
    artifacts: Path
    """The folder that it alone writes files to, and gives out over the network."""
    pid: int
    """Of the process that leads its group."""

    def kill(self) -> None:
        """End it at once, with all of its processes."""
        os.killpg(self.pid, signal.SIGKILL)


@contextmanager
def mlflow_server(
    folder: Path, *, store: str | None = None, port: int | None = None, wait: bool = True
) -> Iterator[MlflowServer]:
    """Run a server whose files and log lie in ``folder``.

    Args:
        folder: its own.
        store: the database; by default a sqlite file in ``folder``.
        port: by default a free one.
        wait: whether to begin the block only when it answers, which takes some seconds.
    """
    port = port or free_port()
    artifacts = folder / "artifacts"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", store or f"sqlite:///{folder}/server.db"]
    command += ["--artifacts-destination", str(artifacts)]
    own = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=own, stdout=log, stderr=log, start_new_session=True
        )
    server = MlflowServer(f"http://127.0.0.1:{port}", artifacts, process.pid)
    try:
        if wait:
            _answers(server.uri, process, folder / "server.log")
        yield server
    finally:
        with suppress(ProcessLookupError):  # a test may have killed it
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(120)


def client(uri: str) -> MlflowClient:
    """Return a client that does not try again for minutes."""
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def _answers(uri: str, process: subprocess.Popen[bytes], log: Path) -> None:
    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        with urlopen(f"{uri}/health", timeout=30):
            return True

    wait_until(answers, log.read_text)

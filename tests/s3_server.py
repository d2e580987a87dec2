"""A real S3 server on loopback, in a process of its own, for tests of whole programs.

moto's server speaks the protocol and keeps objects in memory. Nothing else passes between the
processes that use it, so what it holds is what a bucket would.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import Request, urlopen

from factories import wait_until
from ports import free_port

BUCKET = "sandbox"
SECRET = "planted-s3-secret-9f31"
"""The secret key; may stand nowhere that a run writes."""


@dataclass(frozen=True)
class S3Server:
    """A running server with one empty bucket."""

    endpoint: str
    """``http://127.0.0.1:PORT``."""
    bucket: str
    pid: int

    @property
    def url(self) -> str:
        """The bucket, as ``storage`` takes it."""
        return f"s3://{self.bucket}"

    @property
    def environment(self) -> dict[str, str]:
        """What drivers and raylets need to find it: the usual variables and nothing else."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "planted-s3-user-5b20",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }


@contextmanager
def s3_server(folder: Path, bucket: str = BUCKET) -> Iterator[S3Server]:
    """Start a server and make a bucket; ``folder`` gets its log."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    code = "import sys; from moto.server import main; main(sys.argv[1:])"
    log_path = folder / "s3.log"
    with log_path.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", code, "-H", "127.0.0.1", "-p", str(port)],
            cwd=folder,
            env={key: value for key, value in os.environ.items() if not key.startswith("AWS_")},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            _make_bucket(f"{endpoint}/{bucket}", process, log_path)
            yield S3Server(endpoint, bucket, process.pid)
        finally:
            process.terminate()
            process.wait(timeout=120)


@contextmanager
def variables(changes: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables of this process for the length of a block."""
    before = {key: os.environ.get(key) for key in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


@contextmanager
def s3_here(folder: Path) -> Iterator[S3Server]:
    """Start a server for this process itself, whose clients keep no connection of another one."""
    import s3fs

    with s3_server(folder) as server, variables(server.environment):
        s3fs.S3FileSystem.clear_instance_cache()
        yield server
        s3fs.S3FileSystem.clear_instance_cache()


def _make_bucket(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Make the bucket as soon as the server answers."""

    def made() -> bool:
        assert process.poll() is None, log.read_text()
        with urlopen(Request(url, method="PUT"), timeout=30) as answer:
            return bool(answer.status == 200)

    wait_until(made, log.read_text)

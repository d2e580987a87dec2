"""What we start, or tell a user to start, listens on loopback or lets no stranger in."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])

DRIVER = """
import subprocess, sys
from djsandbox_ray.nodes.connection import connect
connect(cpus=1)
import psutil, ray
address = ray.get_runtime_context().gcs_address
listening = [
    (process.name(), connection.laddr.ip, connection.laddr.port)
    for process in psutil.Process().children(recursive=True)
    for connection in process.net_connections("inet")
    if connection.status == "LISTEN"
]
assert listening, "Ray listens somewhere"
assert 8265 not in {port for _, _, port in listening}, "there is no dashboard"
print(address, flush=True)
sys.stdin.readline()
"""
STRANGER = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
print("in:", ray.cluster_resources())
"""


@pytest.mark.slow
def test_a_local_cluster_refuses_strangers() -> None:
    """Ray listens on all interfaces, whatever it is told: a token has to keep others out."""
    ray = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))  # sockets lie in it: a short path
    own = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    own |= {"HOME": str(ray), "RAY_TMPDIR": str(ray)}
    try:
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER],
            env=own,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert driver.stdin is not None
        assert driver.stdout is not None
        try:
            said = iter(driver.stdout.readline, "")
            address = next(line for line in said if re.fullmatch(r"[\d.]+:\d+\n", line)).strip()
            for known, succeeds in ((False, False), (True, True)):
                stranger = {**own, "RAY_AUTH_MODE": "token" if known else "disabled"}
                done = subprocess.run(
                    [sys.executable, "-c", STRANGER, address],
                    env=stranger,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert ("in:" in done.stdout) is succeeds, done.stdout + done.stderr
            token = ray / ".ray" / "auth_token"
            assert token.stat().st_size > 16
            driver.stdin.close()
            assert driver.wait() == 0
        finally:
            driver.kill()
            driver.wait()
            driver.stdout.close()
    finally:
        shutil.rmtree(ray)


def test_the_mlflow_server_of_the_printed_command_listens_on_loopback() -> None:
    import click
    from mlflow.cli import cli

    command = cli.get_command(click.Context(cli), "ui")
    assert command is not None
    (host,) = [option for option in command.params if option.name == "host"]
    assert host.default == "127.0.0.1"


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_no_document_opens_a_server_without_a_word_of_who_gets_in(path: Path) -> None:
    text = path.read_text()
    if re.search(r"(--host|--dashboard-host|-h|-H)[= ]+(0\.0\.0\.0|::)|listen.*0\.0\.0\.0", text):
        assert "SECURITY.md" in text

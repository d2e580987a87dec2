"""A real PostgreSQL on loopback for tests: Debian's, with its data in a temporary folder.

The server refuses to be run by root: then it runs as the user ``postgres`` that Debian makes, or
as ``nobody``.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from factories import wait_until
from ports import free_port

_PLACE = Path("/usr/lib/postgresql")


@dataclass(frozen=True)
class PostgresServer:
    """A running server with one empty database."""

    uri: str
    """Of the database, with the password."""
    password: str
    """May stand nowhere that a run writes."""
    pid: int

    @property
    def store(self) -> str:
        """The database, as MLflow's server takes it: with the driver of the extra ``postgres``."""
        return self.uri.replace("postgresql:", "postgresql+psycopg2:", 1)


@contextmanager
def postgres_server(database: str = "mlflow") -> Iterator[PostgresServer]:
    """Start a server on a free port of 127.0.0.1; skips the test where it is not installed."""
    programs = _programs()
    user, password = _user(), f"planted-db-password-{secrets.token_hex(4)}"
    # Of its own, not pytest's: no other user may enter that, and a socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        (folder / "password").write_text(password)
        if user is not None:
            for path in (folder, folder / "password"):
                os.chown(path, user.pw_uid, user.pw_gid)
        _initialised(programs / "initdb", folder, user)
        port = free_port()
        with _running(programs / "postgres", folder, port, user) as process:
            uri = f"postgresql://sandbox:{password}@127.0.0.1:{port}"
            _make_database(uri, database, process, folder / "log")
            yield PostgresServer(f"{uri}/{database}", password, process.pid)
    finally:
        shutil.rmtree(folder)


def _programs() -> Path:
    found = sorted(_PLACE.glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if not found:
        pytest.skip(f"no PostgreSQL in {_PLACE}: apt-get install postgresql")
    return found[-1].parent


def _user() -> pwd.struct_passwd | None:
    """Return whom the server is run as; None: as ourselves."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    return known.get("postgres") or known["nobody"]


def _as(user: pwd.struct_passwd | None) -> dict[str, int | list[int]]:
    ids = {} if user is None else {"user": user.pw_uid, "group": user.pw_gid}
    return ids if user is None else {**ids, "extra_groups": []}


def _initialised(program: Path, folder: Path, user: pwd.struct_passwd | None) -> None:
    command = [str(program), "--pgdata", str(folder / "data"), "--username", "sandbox"]
    command += ["--auth", "scram-sha-256", "--pwfile", str(folder / "password"), "--no-sync"]
    command += ["--encoding", "UTF8", "--locale", "C"]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, **_as(user)
    )
    assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def _running(
    program: Path, folder: Path, port: int, user: pwd.struct_passwd | None
) -> Iterator[subprocess.Popen[bytes]]:
    command = [str(program), "-D", str(folder / "data"), "-p", str(port), "-h", "127.0.0.1"]
    command += ["-k", str(folder), "-F"]  # its socket; no fsync
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, **_as(user))
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)  # fast: whoever is connected is cut off
        process.wait(timeout=120)


def _make_database(uri: str, database: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Make the database as soon as the server answers."""
    import psycopg2

    def connected() -> Any:
        assert process.poll() is None, log.read_text()
        with suppress(psycopg2.OperationalError):
            return psycopg2.connect(f"{uri}/postgres", connect_timeout=30)

    connection = wait_until(connected, log.read_text)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f'CREATE DATABASE "{database}"')
    finally:
        connection.close()

"""Podman with a storage of its own for tests, and an image of Debian's static BusyBox in it.

Where containers hold other containers, or are forbidden much, an engine runs only with settings
that fit: runc, which knows any mixture of cgroups, and no limits above those of this process.
"""

from __future__ import annotations

import io
import json
import os
import resource
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

_IMAGE = "localhost/busybox:1"
_ENOUGH = 16_384


@dataclass(frozen=True)
class Podman:
    """An engine that runs containers."""

    image: str

    def containers(self) -> list[str]:
        """Return the ids of all containers, running or not."""
        return _said("ps", "--all", "--quiet", "--no-trunc").split()


@contextmanager
def podman_engine() -> Iterator[Podman]:
    """Make an image; skips the test where Podman is not installed or runs no container.

    While this lasts, Podman's own environment variables say where it works.
    """
    programs = {name: shutil.which(name) for name in ("podman", "busybox")}
    if lacking := [name for name, path in programs.items() if path is None]:
        pytest.skip(f"{' and '.join(lacking)} not installed: apt-get install podman busybox-static")
    # Podman allows 50 characters for one of these folders: pytest's own are too long.
    folder = Path(tempfile.mkdtemp(prefix="podman-"))
    try:
        with pytest.MonkeyPatch.context() as patch:
            for variable, settings in _settings(folder).items():
                path = folder / variable.lower()
                path.write_text(settings)
                patch.setenv(variable, str(path))
            try:
                _make_image(Path(str(programs["busybox"])), folder / "image.tar")
                yield Podman(_IMAGE)
            finally:
                _podman("rmi", "--all", "--force")
    finally:
        shutil.rmtree(folder)


def _settings(folder: Path) -> dict[str, str]:
    limits = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
    hard = {name: resource.getrlimit(limit)[1] for name, limit in limits.items()}
    allowed = {name: min(_ENOUGH, most % (1 << 64)) for name, most in hard.items()}
    ulimits = [f"{name}={most}:{most}" for name, most in allowed.items()]
    engine = {
        "cgroup_manager": "cgroupfs",
        "events_logger": "file",
        "tmp_dir": str(folder / "tmp"),
        **({"runtime": "runc"} if shutil.which("runc") else {}),
    }
    graph = str(folder / "graph")
    storage = {"driver": "vfs", "runroot": str(folder / "run"), "graphroot": graph}
    storage["rootless_storage_path"] = graph
    containers = f"[containers]\ndefault_ulimits = {json.dumps(ulimits)}\n"
    return {
        "CONTAINERS_CONF": f"{_section('engine', engine)}{containers}",
        "CONTAINERS_STORAGE_CONF": _section("storage", storage),
    }


def _section(name: str, values: dict[str, str]) -> str:
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in values.items()]
    return f"[{name}]\n{''.join(lines)}"


def _make_image(busybox: Path, tar: Path) -> None:
    listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    with tarfile.open(tar, "w") as archive:
        archive.add(busybox.resolve(), "bin/busybox")
        for applet in sorted(set(listed.stdout.split()) - {"busybox"}):
            link = tarfile.TarInfo(f"bin/{applet}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
        note = tarfile.TarInfo("note")
        note.size = len(b"of the image")
        archive.addfile(note, io.BytesIO(b"of the image"))
    made = _podman("import", str(tar), _IMAGE)
    tried = made if made.returncode else _podman("run", "--rm", _IMAGE, "true")
    if tried.returncode:
        last = (tried.stderr.strip() or f"exit code {tried.returncode}").splitlines()[-1]
        pytest.skip(f"Podman runs no container here: {last}")


def _said(*words: str) -> str:
    done = _podman(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _podman(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["podman", *words], env=os.environ, capture_output=True, text=True, check=False
    )

"""What a container may see, and as whom it works: files that it writes must be ours."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from djsandbox_ray.outside.container import Container

OWN = f"--user={os.getuid()}:{os.getgid()}"
DOCKER = "Server:\n Security Options:\n  seccomp\n   Profile: builtin\n"
PODMAN = "host:\n  security:\n    rootless: {}\n"


def engine(folder: Path, name: str, info: str) -> None:
    """Write a program that answers as the engine does when it is asked what it is."""
    (folder / "info").write_text(info)
    program = folder / name
    program.write_text(f'#!/bin/sh\n[ "$1" = info ] && /bin/cat {folder}/info\n')
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("name", "info", "users"),
    [
        ("docker", DOCKER, [OWN]),
        ("docker", f"{DOCKER}  rootless\n", ["--user=0:0"]),
        ("podman", PODMAN.format("false"), [OWN]),
        ("podman", PODMAN.format("true"), ["--userns=keep-id", OWN]),
    ],
)
def test_it_works_as_our_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, info: str, users: list[str]
) -> None:
    engine(tmp_path, name, info)
    monkeypatch.setenv("PATH", str(tmp_path))
    container = Container.of("some/image:1")
    command = container.command(["train", "--all"], tmp_path, [], {"SEED": "3", "HOME": "/ours"})
    assert [word for word in command if word.startswith("--user")] == users
    assert command[-3:] == ["some/image:1", "train", "--all"]
    assert "--stop-timeout=0" in command, "stopped, it would have ten seconds more"
    given = {word for word in command if word.startswith("--env=")}
    assert {f"--env=HOME={tmp_path}/tmp", f"--env=TMPDIR={tmp_path}/tmp"} <= given
    assert "SEED" in command
    assert not [word for word in command if "/ours" in word or "SEED=" in word]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("docker", ['"device=5,2"']), ("podman", [f"--device=nvidia.com/gpu={n}" for n in (5, 2)])],
)
def test_its_devices_are_counted_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, wanted: list[str]
) -> None:
    engine(tmp_path, name, PODMAN.format("false"))
    monkeypatch.setenv("PATH", str(tmp_path))
    container = Container.of("some/image:1")
    command = container.command(["train"], tmp_path, [], {"CUDA_VISIBLE_DEVICES": "5,2"})
    assert [word for word in command if "device=" in word or "gpu=" in word] == wanted
    # It has no others: within it the sixth device of the node is the first.
    assert [word for word in command if "CUDA" in word] == ["--env=CUDA_VISIBLE_DEVICES=0,1"]

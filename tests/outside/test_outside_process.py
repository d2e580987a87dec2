"""Programs run to their end, fail, hang and are orphaned: nothing of them is left.

What a container may see, and as whom it works: files that it writes must be ours.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from factories import wait_until

from djsandbox_ray.outside.container import Container
from djsandbox_ray.outside.process import Call, ProgramFailed, run

ENV = {"PATH": os.environ["PATH"]}
# A grandchild in a session of its own, which no signal to a group reaches.
GRANDCHILD = "import subprocess as s; s.Popen(['sleep', '{}'], start_new_session=True)\n"
_NUMBERS = iter(range(4_000_000 + os.getpid() * 16, 10**9))


def call(tmp_path: Path, code: str, timeout: float = 60) -> list[str]:
    lines: list[str] = []

    def on_line(line: str) -> str:
        lines.append(line)
        return line

    run(Call([sys.executable, "-c", code], tmp_path, ENV, timeout), on_line)
    return lines


def sleeping(number: int) -> bool:
    wanted = ["sleep", str(number)]
    return any(p.info["cmdline"] == wanted for p in psutil.process_iter(["cmdline"]))


def test_output_comes_line_by_line(tmp_path: Path) -> None:
    code = "import sys; e = sys.stderr; print('a', flush=True); print('1%\\r2%\\r', file=e)"
    lines = call(tmp_path, f"{code}; e.flush(); print('x' * 5000); print('\\u00e9')")
    assert lines[:3] == ["a", "1%", "2%"]
    assert {len(line) for line in lines[3:-1]} == {2000}
    assert lines[-1] == "\u00e9"


def test_an_error_quotes_the_last_lines(tmp_path: Path) -> None:
    with pytest.raises(ProgramFailed) as error:
        call(tmp_path, "print(*range(50), sep='\\n', flush=True); raise SystemExit(3)")
    first, *rest = str(error.value).splitlines()
    assert "ended with exit code 3" in first
    assert first.endswith("it said last: 49")
    assert rest == [str(n) for n in range(30, 50)]


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProgramFailed, match=r"cannot be started: No such file.*nonesuch"):
        run(Call(["nonesuch"], tmp_path, ENV, 60), str)


def test_a_signal_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ProgramFailed, match="was ended by signal 9; it said nothing"):
        call(tmp_path, "import os; os.kill(os.getpid(), 9)")


def test_a_timeout_ends_all_that_was_started(tmp_path: Path) -> None:
    number = next(_NUMBERS)
    with pytest.raises(ProgramFailed, match="ran longer than 3 s"):
        call(tmp_path, f"{GRANDCHILD.format(number)}import time; time.sleep(600)", timeout=3)
    assert not sleeping(number)


def test_nothing_is_left_behind_a_good_end(tmp_path: Path) -> None:
    number = next(_NUMBERS)
    call(tmp_path, GRANDCHILD.format(number))
    assert not sleeping(number)


@pytest.mark.parametrize(
    ("answer", "code", "told"),
    [
        ("", 0, []),
        ("Error: No such container: djsandbox-1", 1, []),
        ("Error: removal of container djsandbox-1 is already in progress", 1, []),
        ("permission denied on the socket", 1, ["permission denied on the socket"]),
        ("", 3, ["ended with 3"]),
    ],
)
def test_a_container_that_may_go_on_is_told_of(
    tmp_path: Path, answer: str, code: int, told: list[str]
) -> None:
    """It would hold its GPU, and nobody would know why."""
    lines: list[str] = []

    def on_line(line: str) -> str:
        lines.append(line)
        return line

    removal = ["/bin/sh", "-c", f"echo '{answer}' >&2; exit {code}"]
    run(Call(["/bin/true"], tmp_path, ENV, 60, removal), on_line)
    assert lines == [f"it may still run: {' '.join(removal)}: {why}" for why in told]


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_program_ends_with_whoever_runs_it(tmp_path: Path, how: signal.Signals) -> None:
    number = next(_NUMBERS)
    inner = f"{GRANDCHILD.format(number)}import time; time.sleep(600)"
    outer = (
        "import sys; from pathlib import Path\n"
        "from djsandbox_ray.outside.process import Call, run\n"
        f"run(Call([sys.executable, '-c', {inner!r}], Path('.'), {{}}, 900), str)"
    )
    runner = subprocess.Popen([sys.executable, "-c", outer], cwd=tmp_path)
    try:
        wait_until(lambda: sleeping(number), "the grandchild")
    finally:
        runner.send_signal(how)
        runner.wait()
    wait_until(lambda: not sleeping(number), "its end")


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

"""Runs one command and lets nothing of it outlive the process that asked for it.

A program of its own, on the standard library alone: ``python -I -S keeper.py CONTROL RESULT``, two
descriptors of pipes. On CONTROL comes one line of JSON: command, cwd, env, timeout in seconds, and
``afterwards``, a command that ends what does not die with its processes (a container), or null.
CONTROL's end means that who asked is gone: then, at the timeout, and when the command ends, every
process that it has started is killed. RESULT gets ``{"code": ...}``, or ``{"error": ...}``, and
under ``left`` why ``afterwards`` did not do its work, or null.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

_PR_SET_CHILD_SUBREAPER = 36
_GONE = ("no such container", "already in progress")
"""What engines say of a container that has ended, and was removed, by itself."""
_SAID = 500
"""Characters of what else they say."""


def main(control: int, result: int) -> None:
    """Run what ``control`` says, and tell ``result`` how it ended."""
    job = _read_job(control)
    # Ray kills the children of a worker that it ends. This process has work to do then.
    if os.fork():
        os._exit(0)
    os.setsid()
    _adopt_orphans()
    os.write(result, json.dumps(_run(job, control)).encode())
    os._exit(0)  # a thread still waits for the end of ``control``


def _read_job(control: int) -> dict[str, Any]:
    line = b""
    while not line.endswith(b"\n"):
        if not (chunk := os.read(control, 1 << 16)):
            os._exit(1)  # who asked is gone already
        line += chunk
    job: dict[str, Any] = json.loads(line)
    return job


def _run(job: dict[str, Any], control: int) -> dict[str, Any]:
    try:
        child = subprocess.Popen(
            job["command"],
            cwd=job["cwd"],
            env=job["env"],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        return {"error": f"cannot be started: {error.strerror}: {error.filename}"}
    reason: list[str] = []

    def end(why: str) -> None:
        reason.append(why)
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)

    def watch() -> None:
        os.read(control, 1)  # returns when the other end is closed
        end("stopped")

    threading.Thread(target=watch, daemon=True).start()
    timer = threading.Timer(job["timeout"], end, ["timeout"])
    timer.daemon = True
    timer.start()
    code = child.wait()
    timer.cancel()
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    # First: killed, an engine's own processes could not clear away what they have set up.
    left = _end_afterwards(job["afterwards"], job["env"]) if job["afterwards"] else None
    _kill_orphans()
    return {**({"error": reason[0]} if reason else {"code": code}), "left": left}


def _end_afterwards(command: list[str], env: dict[str, str]) -> str | None:
    """End what does not die with its processes; return why it may not have ended."""
    try:
        done = subprocess.run(command, env=env, capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{' '.join(command)}: {error}"
    said = done.stderr.decode(errors="replace").strip()
    if done.returncode == 0 or any(words in said.lower() for words in _GONE):
        return None
    return f"{' '.join(command)}: {said[-_SAID:] or f'ended with {done.returncode}'}"


def _adopt_orphans() -> None:
    """Become the parent of descendants whose own parent dies, also of those with a new session."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _kill_orphans() -> None:
    while children := _children():
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for pid in children:
            with suppress(ChildProcessError):
                os.waitpid(pid, 0)


def _children() -> list[int]:
    """Return the living children of this process, by Linux's table of processes."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The name of the program, in parentheses, may hold anything.
            parent = int(entry.read_text(errors="replace").rpartition(")")[2].split()[1])
            if parent == os.getpid():
                found.append(int(entry.parent.name))
    return found


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))

"""Runs one command to its end, with its output line by line and few variables of the node."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.outside import keeper

INHERITED = (
    *("HOME", "USER", "LOGNAME", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "LD_LIBRARY_PATH"),
    *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"),
)
"""Who and where we are, the drivers of devices, and which certificates are good."""
_SHORTEST_SECRET = 4
_TAIL_LINES = 20
_LONGEST_LINE = 2000
_CHUNK = 1 << 16


def variables(
    *, env: Mapping[str, str], pass_env: Sequence[str], cpus: float, gpus: float
) -> dict[str, str]:
    """Return all variables of a program but those that its environment adds.

    Args:
        env: what the configuration sets.
        pass_env: the variables of this node that it passes on.
        cpus: CPUs of the program: the threads of its libraries.
        gpus: GPUs of the program: without any, it sees none.

    Raises:
        BadInput: a variable that is to be passed on is not set here.
    """
    if lacking := [name for name in pass_env if name not in os.environ]:
        raise BadInput(f"pass_env: {', '.join(lacking)}: not set on this node")
    found = {name: os.environ[name] for name in INHERITED if name in os.environ}
    found |= {
        "PATH": os.pathsep.join(_search_path()),
        "OMP_NUM_THREADS": str(max(1, int(cpus))),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",  # nothing is downloaded unless the configuration says so
        **env,
        **{name: os.environ[name] for name in pass_env},
    }
    # Ray has chosen the devices.
    found["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "") if gpus else ""
    return found


def without_values(line: str, pass_env: Sequence[str]) -> str:
    """Return a line of output without the values of the variables that were passed on."""
    for name in pass_env:
        value = os.environ.get(name, "")
        if len(value) >= _SHORTEST_SECRET:
            line = line.replace(value, "***")
    return line


def _search_path() -> list[str]:
    """Return where programs are looked for: not among those of our own virtual environment."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    if sys.prefix == sys.base_prefix:
        return folders
    own = Path(sys.prefix).resolve()
    return [folder for folder in folders if folder and own not in _resolved(folder)]


def _resolved(folder: str) -> list[Path]:
    path = Path(folder).resolve()
    return [path, *path.parents]


class ProgramFailed(SandboxError):
    """A program failed, ran too long or could not be started; quotes its last lines."""


@dataclass(frozen=True)
class Call:
    """One call of a program."""

    command: Sequence[str]
    cwd: Path
    env: Mapping[str, str]
    """All variables that it sees."""
    timeout: float
    """Seconds."""
    afterwards: Sequence[str] | None = None
    """A command that ends what does not die with its processes."""


def run(call: Call, on_line: Callable[[str], str]) -> None:
    """Run a command; nothing of it is left when this returns, or when this process is killed.

    Args:
        call: what to run.
        on_line: called with every line of its output (standard error too), returns it as it may
            be shown; what ends with a carriage return is a line too, and very long ones are cut.

    Raises:
        ProgramFailed: says how it ended, and what it said last.
    """
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    control_end, control = os.pipe()
    result, result_end = os.pipe()
    with os.fdopen(control, "wb") as asking, os.fdopen(result, "rb") as answer:
        process = _start(control_end, result_end)
        asking.write(json.dumps(asdict(call), default=str).encode() + b"\n")
        asking.flush()
        try:
            assert process.stdout is not None
            for line in _lines(process.stdout):
                tail.append(on_line(line))
        finally:
            asking.close()
            outcome = json.loads(answer.read() or b'{"error": "its keeper was killed"}')
            process.wait()
    if outcome.get("left"):
        tail.append(on_line(f"it may still run: {outcome['left']}"))
    if problem := _problem(outcome, call):
        raise ProgramFailed("\n".join([_said(call, problem, tail), *tail]))


def _start(control: int, result: int) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", keeper.__file__, str(control), str(result)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(control, result),
        )
    finally:
        os.close(control)
        os.close(result)


def _lines(stream: IO[bytes]) -> Iterator[str]:
    """Yield lines as they come; progress bars end theirs with carriage returns."""
    rest = b""
    while chunk := os.read(stream.fileno(), _CHUNK):
        *whole, rest = (rest + chunk).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        if len(rest) > _LONGEST_LINE:
            whole, rest = [*whole, rest], b""
        yield from (_text(line) for line in whole if line.strip())
    if rest.strip():
        yield _text(rest)


def _text(line: bytes) -> str:
    return line[:_LONGEST_LINE].decode("utf-8", errors="replace")


def _problem(outcome: dict[str, Any], call: Call) -> str | None:
    if (error := outcome.get("error")) is not None:
        return f"ran longer than {call.timeout:g} s" if error == "timeout" else str(error)
    code = int(outcome["code"])
    if code == 0:
        return None
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"


def _said(call: Call, problem: str, tail: Sequence[str]) -> str:
    last = f"; it said last: {tail[-1].strip()}" if tail else "; it said nothing"
    return f"the program {' '.join(call.command[:2])!r}: {problem}{last}"

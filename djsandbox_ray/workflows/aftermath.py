"""Notes how a run ended whose process was cut off without a word: killed, or ended by Ray itself.

A small process of its own gets one line of JSON on its standard input and sleeps until that ends.
If the word ``over`` came, the run has noted its end itself. Else ``run.json`` is told, unless
another process has taken the run over by then, and one sentence says what happened: Ray ends a
driver on the spot when the raylet of its node is gone.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from djsandbox_ray.masking import without_secrets
from djsandbox_ray.nodes.anchor import KEPT, LOST, Anchor
from djsandbox_ray.storage.lease import Lease, inherit
from djsandbox_ray.storage.store import Storage

KILLED = f"the process of the run was killed; {KEPT}"
_OVER = "over\n"
# While it sleeps it imports nothing.
_SLEEP = """
import signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
signal.signal(signal.SIGINT, signal.SIG_IGN)
line, end = sys.stdin.readline(), sys.stdin.readline()
if line and end != "over\\n":
    from djsandbox_ray.workflows.aftermath import tell
    tell(line)
"""
_SECONDS = 10
_PACKAGE = Path(__file__).resolve().parents[2]


@contextmanager
def aftermath(lease: Lease, state: str, anchor: Anchor) -> Iterator[None]:
    """Have it noted if this process is cut off before the block ends.

    Args:
        lease: of the run.
        state: path of its ``run.json``.
        anchor: what the connection to the cluster hangs on.
    """
    told = {
        "storage": lease.storage.url,
        "lease": lease.path,
        "owner": lease.owner,
        "what": lease.what,
        "state": state,
        "anchor": asdict(anchor),
    }
    path = os.pathsep.join([str(_PACKAGE), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _SLEEP],
        stdin=subprocess.PIPE,
        text=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": path},
        start_new_session=True,  # Ctrl-C and the end of a terminal are not for it
    )
    assert process.stdin is not None
    _say(process.stdin, json.dumps(told) + "\n")
    try:
        yield
    finally:
        _say(process.stdin, _OVER)
        with suppress(OSError):
            process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS)


def _say(stream: IO[str], line: str) -> None:
    with suppress(OSError):  # somebody has killed it: then nobody is there to note anything
        stream.write(line)
        stream.flush()


def conclude(told: dict[str, Any]) -> str | None:
    """Note that a run was stopped, and return what is to be said; None if it goes on elsewhere."""
    storage = Storage(told["storage"])
    lease = inherit(storage, told["lease"], told["owner"], told["what"])
    if lease is None:
        return None
    with lease:
        state = storage.read_sealed(told["state"])
        if state["state"] != "RUNNING":
            return None
        state |= {
            "state": "STOPPED",
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        if state.get("rounds"):
            state["rounds"][-1]["state"] = "STOPPED"
        storage.write_sealed(told["state"], state)
    reason = Anchor.read(told["anchor"]).lost()
    return LOST.format(reason) if reason else KILLED


def tell(line: str) -> None:
    """Note how the run of a line of JSON ended, and say it."""
    try:
        said = conclude(json.loads(line))
    except Exception as error:  # nothing is left that could be done: the next start finds it dead
        why = without_secrets(" ".join(f"{type(error).__name__}: {error}".split()))
        said = f"{KILLED} (run.json does not say so: {why})"
    if said is not None:
        print(f"stopped: {said}", file=sys.stderr, flush=True)

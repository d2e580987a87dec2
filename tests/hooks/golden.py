"""Digests of what hooks make, recorded by their VERSION in ``golden.json``.

Of what is written, pictures, versions of packages, ids and the last digits of numbers do not count.
To record what has changed on purpose, raise the VERSION of the hook and say

    GOLDEN=record python -m pytest tests/hooks -k golden
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from djsandbox_ray import __version__
from djsandbox_ray.hooks.hook import HOOKS
from djsandbox_ray.stats.datajuicer import load
from djsandbox_ray.storage.seals import CHECKSUM, unsealed

GOLDEN = Path(__file__).with_name("golden.json")
TICK = 0.02
"""Seconds by which the time of a file may lag behind the clock."""


def moment() -> int:
    """Return a time, in nanoseconds since the epoch, that divides earlier files from later ones."""
    time.sleep(2 * TICK)
    return time.time_ns() - int(TICK * 1e9)


def written(folder: Path, since: int = 0) -> dict[str, str]:
    """Return the files of a run, written since then, as texts in which only what matters differs.

    Args:
        folder: of the run.
        since: nanoseconds since the epoch.
    """
    readers: dict[str, Callable[[Path], str]] = {
        ".parquet": lambda path: json.dumps(pq.read_table(path).to_pydict()),
        ".json": lambda path: json.dumps(_content(json.loads(path.read_text())), sort_keys=True),
        ".png": lambda path: "",
    }
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    files = [path for path in found if path.stat().st_mtime_ns >= since]
    return {
        str(path.relative_to(folder)): plain(readers.get(path.suffix, Path.read_text)(path))
        for path in files
    }


def _content(read: Any) -> dict[str, Any]:
    """Return what was written: all JSON of a run vouches for itself."""
    assert CHECKSUM in read
    return unsealed(read)


def plain(text: str) -> str:
    text = re.sub(r"data:image[^\"')]*", "", text)
    for version in (__version__, load().version):
        text = text.replace(version, "")
    text = re.sub(r"\b([a-z_]+)-[0-9a-f]{16}\b", r"\1", text)
    return re.sub(r"-?\d+\.\d+(e[+-]?\d+)?", lambda found: f"{float(found[0]):.4g}", text)


def digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def check(hook: str, found: str) -> None:
    """Compare the digest of a hook's output with the recorded one of its version.

    Raises:
        AssertionError: it differs: says what to do.
    """
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    now = {"version": HOOKS.get(hook).VERSION, "digest": found}
    before = golden.get(hook)
    if before != now and os.environ.get("GOLDEN") == "record":
        assert before is None or before["version"] != now["version"], (
            f"the output of {hook!r} changed: raise VERSION of {HOOKS.get(hook).__name__} first"
        )
        GOLDEN.write_text(json.dumps({**golden, hook: now}, indent=1, sort_keys=True) + "\n")
        return
    assert before == now, (
        f"the output of {hook!r} changed: raise VERSION of {HOOKS.get(hook).__name__} and record "
        "the digest: GOLDEN=record python -m pytest tests/hooks -k golden"
    )

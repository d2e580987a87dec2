"""As a program: writes the one shard of each of two files; prints how far its memory rose for each.

Usage: large_file.py <type of source> <small file> <large file>
"""

from __future__ import annotations

import json
import pickle
import sys
import tempfile
from pathlib import Path

from djsandbox_ray.dataset.fragments import write_shard
from djsandbox_ray.dataset.prepare import prepared
from djsandbox_ray.dataset.source import SOURCES
from djsandbox_ray.storage.store import Storage


def memory(what: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{what}:"))


def rise(kind: str, path: str) -> int:
    cls = SOURCES.get(kind)
    options = {"type": kind, "path": path, "shuffle_captions": {"fraction": 0.1}}
    (shard,) = prepared(cls(cls.Config.model_validate(options)))
    Path("/proc/self/clear_refs").write_text("5")
    before = memory("VmRSS")
    with tempfile.TemporaryDirectory() as folder:
        row = {"index": 0, "shard": pickle.dumps(shard), "wide": False}
        write_shard(row, storage=Storage(folder), folder="shards", table="samples.lance")
    return memory("VmHWM") - before


if __name__ == "__main__":
    print(json.dumps([rise(sys.argv[1], path) for path in sys.argv[2:]]))

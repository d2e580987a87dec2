"""A local cluster of two raylets in a process of its own, which outlives the drivers it serves.

As a program: starts the cluster, writes ``raylets.json`` into a folder, and waits to be ended.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def environment(cluster: dict[str, Any]) -> dict[str, str]:
    """Return the environment of a driver on that cluster, whatever this process is connected to."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    return {
        **kept,
        "PYTHONPATH": str(HERE),
        "RAY_AUTH_MODE": "disabled",
        "RAY_ADDRESS": cluster["address"],
    }


@contextmanager
def two_raylets(
    folder: Path, variables: Mapping[str, str] | None = None
) -> Iterator[dict[str, Any]]:
    """Start a cluster; gives its address, and the process and node of the second raylet.

    Each raylet has a working folder of its own, ``head`` and ``second`` in ``folder``, and the
    environment variables of this process and ``variables``.
    """
    place = folder / "raylets.json"
    place.unlink(missing_ok=True)
    own = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    with (folder / "raylets.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, __file__, str(place)],
            env={**own, "RAY_AUTH_MODE": "disabled", **(variables or {})},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            while not place.exists():
                assert process.poll() is None, (folder / "raylets.log").read_text()
                time.sleep(0.05)
            yield json.loads(place.read_text())
        finally:
            process.terminate()
            process.wait(timeout=60)


def main(place: Path) -> None:
    from ray.cluster_utils import Cluster

    place = place.resolve()
    for name in ("head", "second"):
        (place.parent / name).mkdir(exist_ok=True)
    os.chdir(place.parent / "head")
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    os.chdir(place.parent / "second")
    second = cluster.add_node(num_cpus=1)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    found = {
        "address": cluster.address,
        "pid": second.all_processes["raylet"][0].process.pid,
        "node": second.node_id,
    }
    unfinished = place.with_suffix(".part")
    unfinished.write_text(json.dumps(found))
    unfinished.rename(place)
    try:
        signal.pause()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

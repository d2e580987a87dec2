"""A cluster with a dashboard, whose metrics are scraped; all its files lie in one short folder.

As a program: starts the cluster, writes ``cluster.json`` into the folder, and waits to be ended.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def watched_cluster() -> Iterator[dict[str, Any]]:
    """Start a cluster; gives its address, its dashboard and the file that Prometheus reads."""
    from ports import free_ports  # which is not in reach where this file is the program

    # Paths of sockets below it must stay below 108 characters.
    folder = Path(tempfile.mkdtemp(prefix="dj-", dir="/tmp"))
    own = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    own |= {"RAY_AUTH_MODE": "disabled", "RAY_metrics_report_interval_ms": "1000"}
    own |= {"RAY_USAGE_STATS_ENABLED": "0"}
    place = folder / "cluster.json"
    with (folder / "cluster.log").open("w") as log:
        command = [sys.executable, __file__, str(folder), *map(str, free_ports(2))]
        process = subprocess.Popen(command, env=own, stdout=log, stderr=subprocess.STDOUT)
        try:
            while not place.exists():
                assert process.poll() is None, (folder / "cluster.log").read_text()
                time.sleep(0.05)
            yield json.loads(place.read_text())
        finally:
            process.terminate()
            process.wait(timeout=60)
            shutil.rmtree(folder, ignore_errors=True)


def main(folder: Path, port: int, metrics_port: int) -> None:
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 2, "include_dashboard": True, "dashboard_port": port}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={**head, "temp_dir": str(folder), "metrics_export_port": metrics_port},
    )
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    found = {
        "address": cluster.address,
        "dashboard": f"http://127.0.0.1:{port}",
        "targets": str(folder / "prom_metrics_service_discovery.json"),
    }
    unfinished = folder / "cluster.part"
    unfinished.write_text(json.dumps(found))
    unfinished.rename(folder / "cluster.json")
    try:
        signal.pause()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))

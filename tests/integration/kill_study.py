"""A racing study on a cluster of two raylets, for a test that kills parts of it.

Called with a folder and the number of workers per trial; leaves ``raylet.json`` (where the second
one is), ``notes/`` (one file per start of a worker) and at the end ``outcome.json`` there.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

import ray
from ray.cluster_utils import Cluster
from trial_world import Arena, Counter

from djsandbox_ray.cluster import connect
from djsandbox_ray.storage import Storage
from djsandbox_ray.trials.config import Resources

RACE = {"type": "race", "rungs": [0.25, 0.5], "keep": 1, "audit": 0}


def main(folder: Path, workers: int) -> None:
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    second = cluster.add_node(num_cpus=1)
    raylet = second.all_processes["raylet"][0].process.pid
    where = {"pid": raylet, "node": second.node_id}
    (folder / "raylet.json").write_text(json.dumps(where))
    connect(address=cluster.address)
    arena = Arena(
        Storage(str(folder / "storage")),
        buckets=3,
        controls=3,
        rungs=(10, 20, 40),
        resources=Resources(workers=workers),
    )
    last = arena.run(Counter(seconds=0.7), folder / "notes", RACE)[1]
    outcome = {
        "decisions": [asdict(decision) for decision in arena.decisions],
        "trials": {name: asdict(record) for name, record in sorted(last.items())},
    }
    (folder / "outcome.json").write_text(json.dumps(outcome))
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

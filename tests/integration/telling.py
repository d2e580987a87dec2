"""As a program: a driver that tells MLflow of some trials, with a pause between reports.

``telling.py STORAGE EXPERIMENT URI``: the run ``same`` of 3 pools x 2 seeds, 4 reports each.
"""

from __future__ import annotations

import sys
import time

from djsandbox_ray.records import RungReport, TrialRecord, TrialSpec, TrialState
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.tracking.journal import Recorded
from djsandbox_ray.tracking.mlflow import MlflowConfig, MlflowTracker
from djsandbox_ray.tracking.tracker import DatasetInput, RunInfo

POOLS = ("text_len/low", "text_len/high", "control/0")
SEEDS = (0, 1)
RUNGS = (16, 32, 48, 64)
_BEGAN = 1_700_000_000_000
PAUSE = 0.1
"""Seconds; a server takes longer for what is told in that time."""


def told() -> list[TrialRecord]:
    """Return the records in the order in which they come: all trials race from rung to rung."""
    specs = [
        TrialSpec(f"trial-{number}-{seed}", pool, seed, f"draw-{number}-{seed}", RUNGS[-1])
        for number, pool in enumerate(POOLS)
        for seed in SEEDS
    ]
    reports = {
        spec.id: [
            RungReport(
                samples,
                2.0 - samples / 100,
                {"retrieval/r5": (samples + spec.seed) / 100 + POOLS.index(spec.pool)},
                float(samples),
                1.0,
                _BEGAN + 1000 * samples,
            )
            for samples in RUNGS
        ]
        for spec in specs
    }
    records = []
    for rung in range(len(RUNGS)):
        state = TrialState.COMPLETED if rung == len(RUNGS) - 1 else TrialState.RUNNING
        records += [TrialRecord(spec, state, tuple(reports[spec.id][: rung + 1])) for spec in specs]
    return records


def main(storage_url: str, experiment: str, uri: str) -> int:
    storage = Storage(storage_url)
    tracker = Recorded(
        MlflowTracker(MlflowConfig(uri=uri, experiment=experiment, patience=400), storage),
        "runs/same",
    )
    tracker.start(RunInfo("same", "run-same", {"budget": str(RUNGS[-1])}, {"stage": "run"}))
    tracker.dataset(DatasetInput("dataset", "dataset-1", "s3://bucket/samples.lance", 900))
    tracker.dataset(
        DatasetInput("evaluation", "dataset-2", "s3://bucket/trusted.lance", 100, "evaluation")
    )
    for record in told():
        pool = record.spec.pool
        tags = {"stage": "trials", "kind": "bucket", "bucket": pool.rpartition("/")[2]}
        rows = DatasetInput(pool, f"hash-of-{POOLS.index(pool)}", pool, 300)
        tracker.trial(record, tags, {"pool": pool, "seed": str(record.spec.seed)}, [rows])
        time.sleep(PAUSE)
    tracker.artifact("ranking.csv", b"rank,pool\n1,text_len/high\n")
    return tracker.finish(True)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

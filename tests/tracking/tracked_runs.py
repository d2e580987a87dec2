"""What an MLflow store or server must hold of ``tracked_records``."""

from __future__ import annotations

import json
import math
from pathlib import Path

from mlflow_server import client
from tracked_records import COMPLETED, PARAMS, POOL, RUN, TAGS

from djsandbox_ray.tracking.mlflow_index import user
from djsandbox_ray.tracking.tracker import DatasetInput


def stored(uri: str):
    """Return the client, the parent run and the nested runs by seed; fails on duplicates."""
    mlflow = client(uri)
    experiment = mlflow.get_experiment_by_name("djsandbox")
    runs = mlflow.search_runs([experiment.experiment_id], max_results=1000)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1
    children = {run.data.tags["seed"]: run for run in runs if run is not parents[0]}
    assert len(children) == len(runs) - 1
    parent = parents[0]
    assert all(
        run.data.tags["mlflow.parentRunId"] == parent.info.run_id for run in children.values()
    )
    return mlflow, parent, children


def inputs(run) -> set[DatasetInput]:
    """Return the datasets of a run, each once."""
    found = [
        DatasetInput(
            item.dataset.name,
            item.dataset.digest,
            json.loads(item.dataset.source)["uri"],
            json.loads(item.dataset.profile)["num_rows"],
            {tag.key: tag.value for tag in item.tags}["mlflow.data.context"],
        )
        for item in run.inputs.dataset_inputs
    ]
    assert len(set(found)) == len(found)
    return set(found)


def check(uri: str) -> None:
    """Check that what ``track`` was given is there, each thing once."""
    mlflow, parent, children = stored(uri)
    assert parent.info.run_name == "demo"
    assert parent.info.status == "FINISHED"
    assert parent.data.params == {"budget": "200", "operators_0_": "text_length_filter"}
    assert parent.data.tags["djsandbox.version"] == "0.1.0"
    assert parent.data.tags["djsandbox.run_key"].startswith(RUN.key)
    assert parent.data.tags["mlflow.user"] == user()
    assert parent.data.metrics == {"trials/completed": 1.0, "trials/failed": 1.0}
    assert len(mlflow.get_metric_history(parent.info.run_id, "trials/completed")) == 1

    assert set(children) == {"0", "1", "2"}
    assert inputs(parent) == {RUN.datasets[0]}
    for run in children.values():
        assert inputs(run) == {RUN.datasets[0], POOL}
    done = children["0"]
    assert done.info.run_name == "text_len/high seed 0"
    assert done.info.status == "FINISHED"
    assert done.info.start_time == COMPLETED.reports[0].time_ms - 4000
    assert done.info.end_time == COMPLETED.reports[1].time_ms
    assert done.data.params == PARAMS
    assert (
        done.data.tags.items()
        >= {
            **TAGS,
            "pool": "text_len/high",
            "seed": "0",
            "state": "COMPLETED",
            "djsandbox.trial_key": "trial-0",
        }.items()
    )
    history = mlflow.get_metric_history(done.info.run_id, "zero_shot/top1")
    assert [(point.step, point.timestamp, point.value) for point in history] == [
        (one.samples, one.time_ms, one.metrics["zero_shot/top1"]) for one in COMPLETED.reports
    ]
    assert len(mlflow.get_metric_history(done.info.run_id, "train/loss")) == 2
    assert (children["1"].info.status, children["1"].data.tags["error"]) == (
        "FAILED",
        "the loss is NaN",
    )
    (point,) = mlflow.get_metric_history(children["1"].info.run_id, "zero_shot/top1")
    assert math.isnan(point.value)
    assert children["2"].info.status == "KILLED"

    assert {item.path for item in mlflow.list_artifacts(parent.info.run_id)} == {
        "ranking.csv",
        "figures",
    }
    path = mlflow.download_artifacts(parent.info.run_id, "figures/ranking.png")
    assert Path(path).read_bytes() == b"\x89PNG"

"""Whole runs that take seconds, in this process or by the command line, and what they leave."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from rich.console import Console

from djsandbox_ray.config import RunConfig, checked, load_config
from djsandbox_ray.storage.store import Storage

TESTS = Path(__file__).parent
ROOT = TESTS.parent

SMALL: dict[str, Any] = {
    "name": "small",
    "dataset": {
        "type": "shapes",
        "samples": 900,
        "independent": True,
        "defects": {"special_characters": 0.5, "low_contrast": 0.5},
    },
    "operators": ["special_characters_filter"],
    "pools": {"controls": 5, "size": 240},
    "trials": {
        "model": {"type": "small_family:Taster"},
        "budget": 64,
        "seeds": 2,
        "early_stopping": {"type": "none", "rungs": [0.5]},
    },
    "confirm": {"top": 0},
    "evaluation": {
        "dataset": {"type": "shapes", "samples": 60, "seed": 2},
        "metrics": [{"type": "retrieval", "k": [5]}],
    },
    "report": {"labels": ["defect"]},
}
"""One operator, its pools and controls: nothing is raced, confirmed or combined."""

WHOLE: dict[str, Any] = {
    **SMALL,
    "name": "whole",
    "dataset": {**SMALL["dataset"], "samples": 1200},
    "pools": {"controls": 5, "size": 360},
    "operators": [
        "special_characters_filter",
        "image_size_filter",  # bytes of the file: an image without contrast compresses well
        "image_aspect_ratio_filter",
    ],
    "trials": {
        **SMALL["trials"],
        "early_stopping": {"type": "race", "rungs": [0.5], "keep": 1, "audit": 0.2},
    },
    "confirm": {"top": 2, "controls": 5},
    "learning_rate_check": {"learning_rate": 0.5},
    "cost": {"full_trainings": 1000, "full_samples": 100_000},
    "workflow": "probe_analyze_refine",
    "jobs": {
        "choice": {"top": 2},
        "combinations": {"minimum": 40},
        "repetition": {"factors": [2]},
        "scaling": {"budgets": [0.5, 1.0]},
    },
}
"""All that a run can do, from data to an accepted recipe."""


def jobs_until(job: str) -> dict[str, Any]:
    """Return the jobs of the single-operator stage, up to one of them."""
    path = ROOT / "configs" / "workflows" / "single_op.yaml"
    jobs = yaml.safe_load(path.read_text())["jobs"]
    return {"jobs": jobs[: [one["id"] for one in jobs].index(job) + 1]}


INGEST = jobs_until("evaluation")["jobs"][0]["id"]
"""The job that reads the data."""


def document(
    folder: Path, changes: Mapping[str, Any] | None = None, base: Mapping[str, Any] = SMALL
) -> dict[str, Any]:
    """Return a configuration whose storage lies in ``folder``, with sections replaced."""
    return {**base, "storage": str(folder / "storage"), **(changes or {})}


def write(folder: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """Write that configuration."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(document(folder, changes)))
    return path


@dataclass(frozen=True)
class Ran:
    """A run that has ended, and what it left."""

    config: RunConfig
    out: str
    """What the terminal showed."""
    outputs: dict[str, Any] = field(default_factory=dict)
    """Of its jobs, where it ran in this process."""

    @property
    def storage(self) -> Storage:
        return Storage(self.config.storage)

    @property
    def home(self) -> Path:
        """The folder of all runs' artifacts."""
        return Path(self.config.storage)

    @property
    def folder(self) -> Path:
        """The folder of this run."""
        return self.home / "runs" / self.config.name

    def json(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text())

    def csv(self, name: str) -> pd.DataFrame:
        """Return a table by pool."""
        return pd.read_csv(self.folder / name, index_col="pool")

    @property
    def ranking(self) -> pd.DataFrame:
        return self.csv("ranking.csv")

    def parquet(self, name: str = "trials.parquet") -> pd.DataFrame:
        return pd.read_parquet(self.folder / name)

    def stamps(self, pattern: str) -> dict[str, int]:
        """Return when files of the storage were written."""
        found = self.home.glob(pattern)
        return {str(path): path.stat().st_mtime_ns for path in found if path.is_file()}

    def mlflow(self) -> list[Any]:
        """Return the runs that MLflow has of it: the parent, then its trials."""
        return mlflow_runs(f"sqlite:///{self.home}/mlflow.db", self.config.name)


def run(
    folder: Path, changes: Mapping[str, Any] | None = None, base: Mapping[str, Any] = SMALL
) -> Ran:
    """Run in this process, on the cluster that it is connected to."""
    from djsandbox_ray.workflows.run import run_sandbox

    config, out = checked(document(folder, changes, base), "config.yaml"), io.StringIO()
    outputs = run_sandbox(config, Console(file=out, width=120))
    return Ran(config, out.getvalue(), outputs)


def left(folder: Path, out: str = "") -> Ran:
    """Return what a run of another process has left, whose configuration lies in ``folder``."""
    return Ran(load_config(str(folder / "config.yaml")), out)


def mlflow_runs(uri: str, name: str | None = None, experiment: str = "djsandbox") -> list[Any]:
    """Return a run of an MLflow store and its trials, or those of all runs; parents come first."""
    from mlflow_server import client

    mlflow = client(uri)
    found = mlflow.get_experiment_by_name(experiment)
    assert found is not None, f"no experiment {experiment} in {uri}"
    runs = list(mlflow.search_runs([found.experiment_id], max_results=5000))
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    if name is not None:
        parents = [run for run in parents if run.info.run_name == name]
    ids = {run.info.run_id for run in parents}
    return parents + [run for run in runs if run.data.tags.get("mlflow.parentRunId") in ids]


def environment(**settings: str) -> dict[str, str]:
    """Return the environment of a process that knows nothing of this one's cluster."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    own = {"PYTHONPATH": str(TESTS), "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    return {**kept, **own, **settings}


def started(*words: str, log: Path, **options: Any) -> subprocess.Popen[bytes]:
    """Start the command line; what it says is appended to a file."""
    command = [sys.executable, "-m", "djsandbox_ray", *words]
    with log.open("ab") as file:
        return subprocess.Popen(
            command, **{"env": environment(), "stdout": file, "stderr": file, **options}
        )


def said(*words: str, code: int = 0, **options: Any) -> str:
    """Run the command line in a process of its own, and return what it prints.

    Args:
        *words: its arguments.
        code: how it has to end.
        **options: of the process; by default it knows nothing of this one's cluster.
    """
    done = subprocess.run(
        [sys.executable, "-m", "djsandbox_ray", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        **{"env": environment(), **options},
    )
    assert done.returncode == code, done.stdout
    return done.stdout

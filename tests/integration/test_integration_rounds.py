"""A workflow that goes round: the second round probes what the thresholds of the first leave."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import yaml
from rich.console import Console
from small_run import load, mlflow_runs

from djsandbox_ray.workflows.language.workflow import load_workflow
from djsandbox_ray.workflows.run import run_sandbox

pytestmark = pytest.mark.integration


WORKFLOW = {
    "after": "single_op",
    "jobs": [{"id": "thresholds", "hook": "refine"}],
    "repeat": {
        "until": ["confirmation.effect > 1000"],  # out of reach
        "most": 2,
        "update": {"pools.within": "${thresholds.output.ranges}"},
    },
}


def test_the_second_round_probes_what_the_first_leaves(ray_cluster: None, tmp_path: Path) -> None:
    changes = {
        "scorer": None,
        "operators": ["text_length_filter"],
        "pools": {"controls": 5, "self_tests": False},
        "trials": {
            "model": {"type": "reader:Reader"},
            "budget": 40,
            "seeds": 2,
            "early_stopping": {"type": "none", "rungs": [0.5]},
        },
        "confirm": {"top": 1},
        "workflow": WORKFLOW,
    }

    def run() -> str:
        out = io.StringIO()
        run_sandbox(load(tmp_path, changes), Console(file=out, width=120))
        return out.getvalue()

    told = run()
    assert "confirmation.effect > 1000" in told
    folder = tmp_path / "storage" / "runs" / "small"
    first = json.loads((folder / "pools.json").read_text())
    second = json.loads((folder / "round-1" / "pools.json").read_text())
    assert second["eligible"] < first["eligible"] == 900
    (within,) = yaml.safe_load((folder / "round-1" / "config.yaml").read_text())["pools"]["within"]
    assert within["statistic"] == "text_len"
    lows = [pool["low"] for pool in second["pools"] if pool["id"].startswith("text_len/")]
    assert min(lows) >= within["low"] > min(p["low"] for p in first["pools"] if p["low"])
    state = json.loads((folder / "run.json").read_text())
    assert [entry["round"] for entry in state["rounds"]] == [0, 1]
    parents = [run for run in mlflow_runs(tmp_path) if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 2

    trials = {path.name for path in (tmp_path / "storage" / "trials").glob("*.json")}
    again = run()
    assert again.count("done before") == 2 * len(load_workflow(WORKFLOW).jobs)
    assert {path.name for path in (tmp_path / "storage" / "trials").glob("*.json")} == trials

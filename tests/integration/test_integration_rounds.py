"""A workflow that goes round: the second round probes what the thresholds of the first leave."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from small_runs import SMALL, WHOLE, Ran, mlflow_runs, run

from djsandbox_ray.workflows.language.workflow import load_workflow

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


def test_the_second_round_probes_what_the_first_leaves(finished_run: Ran, tmp_path: Path) -> None:
    shutil.copytree(finished_run.home, tmp_path / "storage")  # its data and statistics
    changes = {
        "name": "rounds",
        "operators": WHOLE["operators"][:1],
        "pools": {"controls": 5, "self_tests": False},
        "trials": SMALL["trials"],
        "confirm": {"top": 1},
        "learning_rate_check": None,
        "workflow": WORKFLOW,
        "jobs": {},
    }
    first = run(tmp_path, changes, base=WHOLE)
    assert "confirmation.effect > 1000" in first.out
    pools, narrower = first.json("pools.json"), first.json("round-1/pools.json")
    assert narrower["eligible"] < pools["eligible"] == 1200
    second = yaml.safe_load((first.folder / "round-1" / "config.yaml").read_text())
    (within,) = second["pools"]["within"]
    assert within["statistic"] == "special_char_ratio"
    highs = [pool["high"] for pool in narrower["pools"] if pool["high"] is not None]
    assert max(highs) <= within["high"] < max(p["high"] for p in pools["pools"] if p["high"])
    assert [entry["round"] for entry in first.json("run.json")["rounds"]] == [0, 1]
    logged = mlflow_runs(f"sqlite:///{first.home}/mlflow.db")
    parents = [found for found in logged if "mlflow.parentRunId" not in found.data.tags]
    assert sum(str(found.info.run_name).startswith("rounds") for found in parents) == 2
    trials = first.stamps("trials/*.json")
    again = run(tmp_path, changes, base=WHOLE)
    assert again.out.count("done before") == 2 * len(load_workflow(WORKFLOW).jobs)
    assert again.stamps("trials/*.json") == trials

"""The whole job, small, on a local Ray cluster: artifacts, repetition, growth, failure."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import lance
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml
from rich.console import Console
from small_run import SMALL, load, mlflow_runs

from djsandbox_ray.errors import SandboxError
from djsandbox_ray.workflows.foresight.plan import make_plan
from djsandbox_ray.workflows.run import run_sandbox

pytestmark = pytest.mark.integration


STUMBLING = {"type": "small_run:Stumbling", "batch_size": 32}


def _run(folder: Path, changes: dict[str, Any] | None = None) -> tuple[dict[str, Any], str]:
    out = io.StringIO()
    outputs = run_sandbox(load(folder, changes), Console(file=out, width=120))
    return outputs, out.getvalue()


def _files(folder: Path, pattern: str) -> dict[str, int]:
    root = folder / "storage"
    return {str(p.relative_to(root)): p.stat().st_mtime_ns for p in root.glob(pattern)}


@pytest.fixture(scope="module")
def finished(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("finished")
    return folder, _run(folder)[1]


def test_every_artifact_is_there(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    run = folder / "storage" / "runs" / "small"
    assert json.loads((run / "run.json").read_text())["state"] == "COMPLETED"
    assert yaml.safe_load((run / "config.yaml").read_text())["trials"]["budget"] == 128

    pools = json.loads((run / "pools.json").read_text())
    assignments = pq.read_table(run / "assignments.parquet").to_pandas()
    assert len(assignments) == 900
    for pool in pools["pools"]:
        provenance = pool.get("provenance", pool)
        members = assignments[provenance["column"]] == provenance["code"]
        assert members.sum() == pool["size"] == 250
    assert [item["statistic"] for item in pools["not_testable"]] == ["aspect_ratios"]

    trials = pd.read_parquet(run / "trials.parquet")
    assert len(trials) == (2 * 3 + 2 + 5) * 2
    assert (trials["state"] == "COMPLETED").all()
    assert (trials["samples"] == 128).all()
    curves = pd.read_parquet(run / "curves.parquet")
    assert sorted(curves["samples"].unique()) == [64, 128]

    ranking = pd.read_csv(run / "ranking.csv")
    assert len(ranking) == 2 * 3 + 2
    assert {"pool", "change", "std", "low", "high", "p", "q", "verdict"} <= set(ranking)
    assert (run / "figures" / "ranking.png").read_bytes().startswith(b"\x89PNG")
    page = (run / "report.html").read_text()
    assert "Share of samples by defect" in page
    assert "samples without a value" in page
    assert "aspect_ratios" in page


def test_the_scorer_and_the_text_statistic_find_what_was_planted(
    finished: tuple[Path, str],
) -> None:
    folder, _ = finished
    (stats,) = (folder / "storage" / "datasets").glob("*/stats")
    table = lance.dataset(str(stats.parent / "samples.lance"))
    meta = table.to_table(["meta"])["meta"].to_pylist()
    defect = pd.Series([json.loads(text)["defect"] for text in meta])
    run = folder / "storage" / "runs" / "small"
    assignments = pq.read_table(run / "assignments.parquet").to_pandas()
    high = assignments["special_char_ratio"] == 2
    assert (defect[high] == "special_characters").mean() > 0.6
    assert (defect[assignments["special_char_ratio"] == 0] == "special_characters").sum() == 0


def test_the_terminal_says_what_was_found_and_where(finished: tuple[Path, str]) -> None:
    _, out = finished
    for text in ("image_text_similarity/high", "report.html", "mlflow ui --backend-store-uri"):
        assert text in out
    assert "aspect_ratios is not testable" in out


def test_mlflow_has_a_parent_and_a_nested_run_per_trial(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    runs = mlflow_runs(folder)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    nested = [run for run in runs if run not in parents]
    assert len(parents) == 1
    assert len(nested) == 26
    assert {run.data.tags["mlflow.parentRunId"] for run in nested} == {parents[0].info.run_id}
    (one,) = [
        run
        for run in nested
        if run.data.tags["pool"] == "special_char_ratio/high" and run.data.tags["seed"] == "1"
    ]
    assert one.data.tags["operator"] == "special_characters_filter"
    assert one.data.tags["bucket"] == "high"
    assert one.data.tags["state"] == "COMPLETED"
    assert one.info.status == "FINISHED"
    assert "retrieval/image_to_text_r5" in one.data.metrics
    assert parents[0].info.status == "FINISHED"
    assert len(parents[0].inputs.dataset_inputs) == 2


def test_the_same_command_again_does_nothing(finished: tuple[Path, str]) -> None:
    folder, _ = finished
    before = {**_files(folder, "trials/*"), **_files(folder, "datasets/**/*")}
    runs = {run.info.run_id for run in mlflow_runs(folder)}
    _, out = _run(folder)
    assert {**_files(folder, "trials/*"), **_files(folder, "datasets/**/*")} == before
    assert {run.info.run_id for run in mlflow_runs(folder)} == runs
    assert out.count("done before") == 16
    assert "image_text_similarity/high" in out, "the verdicts are shown again"


def test_a_new_operator_costs_one_statistic_and_its_own_trials(
    finished: tuple[Path, str],
) -> None:
    folder, _ = finished
    stats = _files(folder, "datasets/*/stats/*.json")
    trials = _files(folder, "trials/*")
    # The pools must stay as large as they were for the old trials to be the same trials.
    changes = {"operators": [*SMALL["operators"], "text_length_filter"]}
    made = make_plan(load(folder, changes))
    assert made["trials_to_run"] > 6, "not known before the pools are built"
    _run(folder, changes)
    assert len(_files(folder, "datasets/*/stats/*.json").items() - stats.items()) == 1
    assert len(_files(folder, "trials/*").items() - trials.items()) == 3 * 2
    made = make_plan(load(folder, changes))
    assert made["exact"]
    assert made["trials_to_run"] == 0
    assert all(job["done"] for job in made["jobs"])


def test_failed_trials_are_left_out_and_said(ray_cluster: None, tmp_path: Path) -> None:
    model = {"type": "small_run:Flaky", "batch_size": 32}
    changes = {
        "trials": {**SMALL["trials"], "model": model},
        "operators": ["special_characters_filter"],
        "scorer": None,
        "pools": {"controls": 8, "size": 250},
    }
    outputs, out = _run(tmp_path, changes)
    failed = outputs["trials"].failed
    assert failed > 0
    ranking = pd.read_csv(tmp_path / "storage" / "runs" / "small" / "ranking.csv")
    trials = pd.read_parquet(tmp_path / "storage" / "runs" / "small" / "trials.parquet")
    in_pools = trials[(trials["state"] == "FAILED") & (trials["kind"] != "control")]
    assert ranking["failed"].sum() == len(in_pools)
    assert "FAILED: " in out
    assert "the training loss is inf after 32 samples" in out
    states = [run.data.tags.get("state") for run in mlflow_runs(tmp_path)]
    assert states.count("FAILED") == failed


def test_crashed_trials_are_tried_again_by_the_same_command(
    ray_cluster: None, tmp_path: Path
) -> None:
    changes = {
        "trials": {**SMALL["trials"], "retries": 0, "model": STUMBLING},
        "operators": ["special_characters_filter"],
        "scorer": None,
        "pools": {"controls": 8, "size": 250},
    }
    stone = tmp_path / "stumble"
    stone.touch()
    outputs, out = _run(tmp_path, changes)
    assert outputs["trials"].crashed > 0
    assert re.search(r"seed 1 FAILED on node .*: RuntimeError: stumbled", out)
    before = _files(tmp_path, "trials/*")
    stone.unlink()
    again, _ = _run(tmp_path, changes)
    assert again["trials"].failed == 0
    changed = _files(tmp_path, "trials/*").items() - before.items()
    assert len(changed) == outputs["trials"].crashed, "only those are trained again"
    assert pd.read_csv(tmp_path / "storage/runs/small/ranking.csv")["failed"].sum() == 0
    assert len(mlflow_runs(tmp_path)) == 1 + (3 + 2 + 8) * 2
    assert _run(tmp_path, changes)[1].count("done before") == 16


def test_a_run_in_which_everything_fails_ends_early(ray_cluster: None, tmp_path: Path) -> None:
    changes = {
        "trials": {**SMALL["trials"], "retries": 0, "model": {"type": "small_run:Hopeless"}},
        "operators": ["special_characters_filter"],
        "scorer": None,
    }
    with pytest.raises(SandboxError, match=r"all of the first \d trials failed.*no hope"):
        _run(tmp_path, changes)
    assert len(_files(tmp_path, "trials/*")) < 10
    state = json.loads((tmp_path / "storage" / "runs" / "small" / "run.json").read_text())
    assert state["state"] == "FAILED"


def test_leaked_samples_are_reported_and_kept_out(ray_cluster: None, tmp_path: Path) -> None:
    # The split is drawn from the same world with the same seed: its rows are the training rows.
    same = {"type": "shapes", "samples": 900, "defects": SMALL["dataset"]["defects"]}
    evaluation = {**SMALL["evaluation"], "dataset": {**same, "rows": [0, 60]}}
    workflow = tmp_path / "until_pools.yaml"
    jobs = (Path(run_sandbox.__code__.co_filename).parent / "builtin/single_op.yaml").read_text()
    workflow.write_text(jobs[: jobs.index("  # The controls first")])
    changes = {
        "evaluation": evaluation,
        "operators": ["special_characters_filter"],
        "scorer": None,
        "workflow": str(workflow),
    }
    outputs, out = _run(tmp_path, changes)
    assert outputs["leaks"].rows == 60
    assert "60 training rows occur in the evaluation split too; kept out of every pool" in out
    assignments = pq.read_table(tmp_path / "storage/runs/small/assignments.parquet").to_pandas()
    assert (assignments.drop(columns="row_id").iloc[:60] < 0).all().all()

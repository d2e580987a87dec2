"""Runs with all of the trial engine: race, confirmation, learning rates, ledger, MLflow away."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from ports import free_port
from resource_meter import ResourceMeter
from rich.console import Console
from small_run import SMALL, load, mlflow_runs

from djsandbox_ray.analysis.planning.noise import NoiseFloor
from djsandbox_ray.errors import BadInput, PlanRefused
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.workflows.finished import sync_run
from djsandbox_ray.workflows.foresight.plan import check_budget, make_plan, plan_table
from djsandbox_ray.workflows.foresight.power import make_power, power_table
from djsandbox_ray.workflows.run import run_sandbox

pytestmark = pytest.mark.integration

# Long enough to learn which captions match, so that a race has a winner and losers.
WHOLE: dict[str, Any] = {
    "dataset": {"type": "shapes", "samples": 2000, "defects": {"mismatched": 0.4}},
    "scorer": {
        "dataset": {"type": "shapes", "samples": 1000, "seed": 1},
        "model": {"type": "clip", "learning_rate": 1e-3},
        "budget": 8000,
    },
    "operators": [
        {"image_text_similarity_filter": {"hf_clip": "${scorer}"}},
        "text_length_filter",
    ],
    "pools": {"controls": 5, "size": 600},
    "trials": {
        "model": {"type": "clip", "batch_size": 64, "learning_rate": 1e-3},
        "budget": 4000,
        "seeds": 2,
        "early_stopping": {"type": "race", "rungs": [0.25, 0.5], "keep": 1, "audit": 0.2},
    },
    "confirm": {"top": 1, "controls": 5},
    "learning_rate_check": {"learning_rate": 5e-4},
    "cost": {"full_trainings": 30, "full_samples": 100_000},
    "evaluation": {
        "dataset": {"type": "shapes", "samples": 300, "seed": 2},
        "metrics": [{"type": "retrieval", "k": [5]}, {"type": "zero_shot", "label": "colour"}],
    },
    "report": {"labels": ["defect"]},
}


def _run(folder: Path, changes: dict[str, Any]) -> tuple[dict[str, Any], str]:
    out = io.StringIO()
    outputs = run_sandbox(load(folder, changes), Console(file=out, width=120))
    return outputs, out.getvalue()


@pytest.fixture(scope="module")
def whole(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("whole")
    return folder, _run(folder, WHOLE)[1]


def _ranking(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "storage/runs/small/ranking.csv", index_col="pool")


def test_pools_far_behind_are_given_up_and_not_ranked(whole: tuple[Path, str]) -> None:
    folder, out = whole
    ranking = _ranking(folder)
    assert ranking.loc["image_text_similarity/high", "verdict"] == "better"
    stopped = ranking[ranking["verdict"] == "stopped"]
    assert len(stopped)
    assert stopped["change"].isna().all()
    assert stopped["stopped_at"].between(1000, 2100).all()
    tests = ranking[ranking["kind"] == "self_test"]
    assert tests["verdict"].tolist() == tests["expected"].tolist()
    trials = pd.read_parquet(folder / "storage/runs/small/trials.parquet")
    states = trials.groupby("pool")["state"].agg(set)
    assert all(states[pool] == {"STOPPED"} for pool in stopped.index)
    assert all(states[f"control/{index}"] == {"COMPLETED"} for index in range(5))
    assert "Early stopping gave up" in out
    assert "pools given up: " in out
    made = [json.loads(path.read_text()) for path in folder.glob("storage/runs/small/race/*/*")]
    given_up = {pool for decision in made for pool in decision["stopped"]}
    assert given_up == set(stopped.index)


def test_the_best_is_confirmed_beside_fresh_controls(whole: tuple[Path, str]) -> None:
    folder, out = whole
    rows = pd.read_csv(folder / "storage/runs/small/confirmation.csv", index_col="pool")
    assert rows.index.tolist() == ["image_text_similarity/high"]
    assert rows["verdict"].tolist() == ["better"]
    assert rows["confirmed"].iloc[0] == pytest.approx(rows["first"].iloc[0], rel=0.5)
    trials = pd.read_parquet(folder / "storage/runs/small/confirmation_trials.parquet")
    assert set(trials["seed"]) == {2, 3}
    fresh = {f"control/{index}" for index in range(5, 10)}
    assert set(trials["pool"]) == {"image_text_similarity/high", *fresh}
    assert "Confirmed: 1 of 1 pools" in out


def test_decided_pools_are_trained_at_the_second_learning_rate(whole: tuple[Path, str]) -> None:
    folder, out = whole
    rows = pd.read_csv(folder / "storage/runs/small/learning_rate.csv", index_col="pool")
    assert "image_text_similarity/high" in rows.index
    assert not set(rows.index) & set(_ranking(folder).query("verdict == 'stopped'").index)
    assert "at the second learning rate" in out


def test_the_noise_floor_comes_first_and_tells_later_plans(whole: tuple[Path, str]) -> None:
    folder, out = whole
    content = json.loads((folder / "storage/runs/small/noise.json").read_text())
    floor = NoiseFloor.from_json(content["noise"])
    assert floor.design.controls == 5
    assert 0 < floor.detectable.low < floor.detectable.value < floor.detectable.high
    assert out.index("is called better with 80 % probability") < out.index("trials: ")
    assert "Intervals came out" in out
    made = make_power(load(folder, {**WHOLE, "name": "next"}), effect=None)
    assert made["from"] == "small"
    shown = io.StringIO()
    Console(file=shown, width=120).print(power_table(made))
    assert "cheapest first" in shown.getvalue()
    elsewhere = {**WHOLE, "trials": {**WHOLE["trials"], "budget": 5000}}
    with pytest.raises(BadInput, match=r"no run in .* has measured the noise"):
        make_power(load(folder, elsewhere), effect=None)


def test_the_ledger_adds_up_what_every_stage_cost(whole: tuple[Path, str]) -> None:
    folder, out = whole
    ledger = json.loads((folder / "storage/runs/small/ledger.json").read_text())
    stages = {stage["stage"]: stage for stage in ledger["stages"]}
    for name in ("scorer", "statistics", "noise", "trials", "confirmation_trials"):
        assert stages[name]["flops"] > 0
        assert stages[name]["cpu_seconds"] > 0
    trials = pd.read_parquet(folder / "storage/runs/small/trials.parquet")
    own = trials[trials["owner"] == "small/trials"]
    assert stages["trials"]["samples"] == own["samples"].sum()
    assert "STOPPED" in set(own["state"]), "what was given up is on the bill"
    assert "control" not in set(own["kind"]), "the noise floor has paid for the controls"
    assert ledger["total"]["flops"] == pytest.approx(
        sum(stage["flops"] for stage in ledger["stages"])
    )
    assert "share of CPU" in out
    (parent,) = [r for r in mlflow_runs(folder) if "mlflow.parentRunId" not in r.data.tags]
    assert parent.data.metrics["cost_flops"] == pytest.approx(ledger["total"]["flops"])


def test_mlflow_tells_what_was_given_up(whole: tuple[Path, str]) -> None:
    folder, _ = whole
    runs = [run for run in mlflow_runs(folder) if "mlflow.parentRunId" in run.data.tags]
    states = pd.Series([run.data.tags["state"] for run in runs])
    expected = pd.concat(
        pd.read_parquet(path) for path in (folder / "storage/runs/small").glob("*trials.parquet")
    ).drop_duplicates("trial")
    assert states.value_counts().to_dict() == expected["state"].value_counts().to_dict()
    # A control of the noise floor is one of the study that follows.
    stages = {run.data.tags["stage"] for run in runs}
    assert stages == {"trials", "confirmation", "learning_rate"}


def test_all_of_it_again_does_nothing(whole: tuple[Path, str]) -> None:
    folder, _ = whole
    before = {path: path.stat().st_mtime_ns for path in folder.glob("storage/trials/*.json")}
    outputs, out = _run(folder, WHOLE)
    assert out.count("done before") == len(outputs) == 16
    after = {path: path.stat().st_mtime_ns for path in folder.glob("storage/trials/*.json")}
    assert after == before


def test_a_plan_above_the_budget_is_refused(whole: tuple[Path, str]) -> None:
    folder, _ = whole
    dear = load(folder, {**WHOLE, "cost": {"full_trainings": 1.5, "full_samples": 100_000}})
    with pytest.raises(PlanRefused, match=r"1 \+ m r = .* > M = 1.5"):
        check_budget(dear, over_budget=False)
    check_budget(dear, over_budget=True)
    made = make_plan(load(folder, WHOLE))
    assert made["trials_to_run"] == made["samples_to_train"] == 0
    assert made["cost"]["allowed"]
    kinds = ("trials", "confirmation_trials", "learning_rate")
    assert made["cost"]["m"] == sum(made[kind] for kind in kinds)
    shown = io.StringIO()
    Console(file=shown, width=120).print(plan_table(made))
    assert "m = " in shown.getvalue()
    assert "found in the cache" in shown.getvalue()


def test_without_early_stopping_given_up_trials_go_on(whole: tuple[Path, str]) -> None:
    folder, _ = whole
    stopped = set(_ranking(folder).query("verdict == 'stopped'").index)
    settings = {**WHOLE["trials"], "early_stopping": {"type": "none", "rungs": [0.25, 0.5]}}
    changes = {**WHOLE, "name": "whole", "trials": settings, "confirm": {"top": 0}}
    changes["learning_rate_check"] = None
    _run(folder, changes)
    trials = pd.read_parquet(folder / "storage/runs/whole/trials.parquet")
    assert (trials["state"] == "COMPLETED").all()
    went_on = trials[trials["pool"].isin(stopped)]
    assert (went_on["attempts"] == 2).all(), "from their last rung"
    curves = pd.read_parquet(folder / "storage/runs/whole/curves.parquet")
    assert curves.groupby("trial")["samples"].is_monotonic_increasing.all()
    assert not curves.duplicated(["trial", "samples"]).any()


def test_whole_buckets_train_one_draw_per_arm(whole: tuple[Path, str]) -> None:
    folder, _ = whole
    changes = {
        **WHOLE,
        "name": "buckets",
        "pools": {"controls": 8, "size": 600, "draw_share": 1.0},
        "trials": {**WHOLE["trials"], "seeds": 1},
        "confirm": {"top": 0},
        "learning_rate_check": None,
    }
    _run(folder, changes)
    run = folder / "storage/runs/buckets"
    ranking = pd.read_csv(run / "ranking.csv", index_col="pool")
    assert ranking.index[0] == "image_text_similarity/high"
    decided = ranking[ranking["verdict"].isin(["better", "worse", "undecided"])]
    assert decided[["change", "low", "high", "p", "q"]].notna().all(axis=None)
    pools = json.loads((run / "pools.json").read_text())
    assert pools["draw_size"] == pools["size"] == 600
    trials = pd.read_parquet(run / "trials.parquet")
    assert not trials.duplicated("pool").any()
    few = {**changes, "pools": {**changes["pools"], "controls": 7}}
    with pytest.raises(BadInput, match="8"):
        load(folder, few)


def test_what_an_outage_of_mlflow_kept_away_is_sent_by_sync(
    ray_cluster: None, tmp_path: Path
) -> None:
    port = free_port()
    changes = {
        "scorer": None,
        "operators": ["special_characters_filter"],
        "tracking": {"type": "mlflow", "uri": f"http://127.0.0.1:{port}", "patience": 1},
    }
    _, out = _run(tmp_path, changes)
    assert "djsandbox sync small" in out
    database = f"sqlite:///{tmp_path}/later.db"
    told = sync_run("small", str(tmp_path / "storage"), database)
    assert (told.trials, told.unsent) == (20, 0)
    client = mlflow.MlflowClient(database)

    def runs() -> list[Any]:
        experiment = client.get_experiment_by_name("djsandbox")
        assert experiment is not None
        return list(client.search_runs([experiment.experiment_id], max_results=1000))

    assert len(runs()) == 21
    assert sum("retrieval/image_to_text_r5" in run.data.metrics for run in runs()) == 20
    sync_run("small", str(tmp_path / "storage"), database)
    assert len(runs()) == 21
    with pytest.raises(BadInput, match=r"no run 'smal' in .* \(there are: small\)"):
        sync_run("smal", str(tmp_path / "storage"), database)


def test_seconds_of_trials_agree_with_what_ray_accounts(ray_cluster: None, tmp_path: Path) -> None:
    changes = {
        "scorer": None,
        "operators": ["special_characters_filter"],
        "trials": {**SMALL["trials"], "budget": 16000, "model": {"type": "clip"}},
    }
    load(tmp_path, changes)
    # Everything but the trials of the study itself is done before the meter runs.
    workflow = tmp_path / "until_noise.yaml"
    jobs = (Path(run_sandbox.__code__.co_filename).parent / "builtin/single_op.yaml").read_text()
    workflow.write_text(jobs[: jobs.index("  # Then all pools")])
    _run(tmp_path, {**changes, "workflow": str(workflow)})
    workflow.write_text(jobs[: jobs.index("  - {id: ranking")])
    with ResourceMeter() as meter:
        _run(tmp_path, {**changes, "workflow": str(workflow)})
    costs = Storage(str(tmp_path / "storage")).read_json("runs/small/costs.json")
    assert costs["trials"]["cpu_seconds"] == pytest.approx(meter.cpu_seconds, rel=0.05)

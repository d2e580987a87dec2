"""All that a run can do, small, on the session's cluster; repetition, growth and failure."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import lance
import pandas as pd
import pytest
import yaml
from ports import free_port
from resource_meter import ResourceMeter
from rich.console import Console
from small_runs import SMALL, WHOLE, Ran, jobs_until, mlflow_runs, run

from djsandbox_ray.analysis.planning.noise import NoiseFloor
from djsandbox_ray.config import checked
from djsandbox_ray.errors import BadInput, PlanRefused, SandboxError
from djsandbox_ray.workflows.finished import sync_run
from djsandbox_ray.workflows.foresight.plan import check_budget, make_plan, plan_table
from djsandbox_ray.workflows.foresight.power import make_power, power_table

pytestmark = pytest.mark.integration

BEST = ["special_char_ratio/low", "image_sizes/high"]


def _config(finished: Ran, **changes: Any) -> Any:
    """Return the configuration of a run beside the finished one."""
    return checked({**WHOLE, "storage": finished.config.storage, **changes}, "config.yaml")


def _beside(finished: Ran, **changes: Any) -> Ran:
    """Run again in the same storage, by another name, so that the finished run stays as it is."""
    return run(finished.home.parent, changes, base=WHOLE)


def _trials(finished: Ran) -> pd.DataFrame:
    """Return the trials of all studies, each once."""
    tables = [pd.read_parquet(path) for path in finished.folder.glob("*trials.parquet")]
    return pd.concat(tables).drop_duplicates("trial")


def _shown(table: Any) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(table)
    return out.getvalue()


# What a finished run leaves.


def test_every_artifact_is_there(finished_run: Ran) -> None:
    assert finished_run.json("run.json")["state"] == "COMPLETED"
    assert yaml.safe_load((finished_run.folder / "config.yaml").read_text())["trials"]["seeds"] == 2
    pools = finished_run.json("pools.json")
    assignments = finished_run.parquet("assignments.parquet")
    assert len(assignments) == 1200
    for pool in pools["pools"]:
        provenance = pool.get("provenance", pool)
        members = assignments[provenance["column"]] == provenance["code"]
        assert members.sum() == pool["size"] == 360
    assert [item["statistic"] for item in pools["not_testable"]] == ["aspect_ratios"]
    trials = finished_run.parquet()
    assert len(trials) == (2 * 3 + 2 + 5) * 2
    completed = trials[trials["state"] == "COMPLETED"]
    assert (completed["samples"] == 64).all()
    assert set(finished_run.parquet("curves.parquet")["samples"]) == {32, 64}
    assert len(finished_run.ranking) == 2 * 3 + 2
    assert (finished_run.folder / "figures" / "ranking.png").read_bytes().startswith(b"\x89PNG")
    page = (finished_run.folder / "report.html").read_text()
    for text in ("Share of samples by defect", "samples without a value", "aspect_ratios"):
        assert text in page


def test_the_text_statistic_finds_what_was_planted(finished_run: Ran) -> None:
    dataset = next(iter(finished_run.outputs.values()))
    metas = (
        lance.dataset(finished_run.storage.uri(dataset.table))
        .to_table(["meta"])["meta"]
        .to_pylist()
    )
    planted = pd.Series(["special_characters" in json.loads(meta)["defect"] for meta in metas])
    bucket = finished_run.parquet("assignments.parquet")["special_char_ratio"]
    assert planted[bucket == 2].all()
    assert not planted[bucket == 0].any()


def test_the_terminal_says_what_was_found_and_where(finished_run: Ran) -> None:
    for text in (
        *BEST,
        "report.html",
        "mlflow ui --backend-store-uri",
        "/runs?workflowType=machine_learning",
        "aspect_ratios is not testable",
        "Early stopping gave up",
        "pools given up: ",
        "at the second learning rate",
        "Intervals came out",
        "share of CPU",
    ):
        assert text in finished_run.out, text


def test_pools_far_behind_are_given_up_and_not_ranked(finished_run: Ran) -> None:
    ranking = finished_run.ranking
    assert set(ranking.index[ranking["verdict"] == "better"]) == set(BEST)
    stopped = ranking[ranking["verdict"] == "stopped"]
    assert len(stopped)
    assert stopped["change"].isna().all()
    assert (stopped["stopped_at"] == 32).all()
    tests = ranking[ranking["kind"] == "self_test"]
    assert tests["verdict"].tolist() == tests["expected"].tolist()
    states = finished_run.parquet().groupby("pool")["state"].agg(set)
    assert all(states[pool] == {"STOPPED"} for pool in stopped.index)
    assert all(states[f"control/{index}"] == {"COMPLETED"} for index in range(5))
    made = [json.loads(path.read_text()) for path in finished_run.folder.glob("race/*/*")]
    assert {pool for decision in made for pool in decision["stopped"]} == set(stopped.index)


def test_the_best_are_confirmed_beside_fresh_controls(finished_run: Ran) -> None:
    rows = finished_run.csv("confirmation.csv")
    assert set(rows.index) == set(BEST)
    assert set(rows["verdict"]) == {"better"}
    assert rows["confirmed"].tolist() == pytest.approx(rows["first"].tolist(), rel=0.5)
    trials = finished_run.parquet("confirmation_trials.parquet")
    assert set(trials["seed"]) == {2, 3}
    assert set(trials["pool"]) == {*BEST, *(f"control/{index}" for index in range(5, 10))}
    checked_again = finished_run.csv("learning_rate.csv")
    stopped = finished_run.ranking.query("verdict == 'stopped'").index
    assert set(BEST) <= set(checked_again.index)
    assert not set(checked_again.index) & set(stopped)


def test_the_best_together_become_a_recipe_that_data_juicer_accepts(finished_run: Ran) -> None:
    combined = finished_run.csv("combination_ranking.csv")
    assert set(combined.index[0].split("&")) == set(BEST)
    repetition = pd.read_csv(finished_run.folder / "repetition.csv")
    assert set(repetition["strategy"]) == {"repeat", "expand", "random"}
    assert (repetition.groupby("factor")["samples"].nunique() == 1).all()
    assert len(pd.read_csv(finished_run.folder / "scaling.csv"))
    accepted = finished_run.json("acceptance.json")
    assert accepted["differing"] == 0
    assert 0 < accepted["kept"] < accepted["rows"]
    (recipe,) = finished_run.folder.glob("recipes/*.yaml")
    names = {name for step in yaml.safe_load(recipe.read_text())["process"] for name in step}
    assert names == {"special_characters_filter", "image_size_filter"}
    assert "## Do combinations help" in (finished_run.folder / "insights.md").read_text()


def test_the_noise_floor_comes_first_and_tells_later_plans(finished_run: Ran) -> None:
    floor = NoiseFloor.from_json(finished_run.json("noise.json")["noise"])
    assert floor.design.controls == 5
    assert 0 < floor.detectable.low < floor.detectable.value < floor.detectable.high
    out = finished_run.out
    assert out.index("is called better with 80 % probability") < out.index("trials: ")
    made = make_power(_config(finished_run, name="next"), effect=None)
    assert made["from"] == "whole"
    assert "cheapest first" in _shown(power_table(made))
    elsewhere = _config(finished_run, name="next", trials={**WHOLE["trials"], "budget": 5000})
    with pytest.raises(BadInput, match=r"no run in .* has measured the noise"):
        make_power(elsewhere, effect=None)


def test_the_ledger_adds_up_what_every_stage_cost(finished_run: Ran) -> None:
    ledger = finished_run.json("ledger.json")
    stages = {stage["stage"]: stage for stage in ledger["stages"]}
    for name in ("noise", "trials", "confirmation_trials"):
        assert stages[name]["flops"] > 0
    assert all(stages[name]["cpu_seconds"] > 0 for name in ("statistics", "trials"))
    trials = finished_run.parquet()
    own = trials[trials["owner"] == "whole/trials"]
    assert stages["trials"]["samples"] == own["samples"].sum()
    assert "STOPPED" in set(own["state"]), "what was given up is on the bill"
    assert "control" not in set(own["kind"]), "the noise floor has paid for the controls"
    flops = sum(stage["flops"] or 0 for stage in ledger["stages"])
    assert ledger["total"]["flops"] == pytest.approx(flops)
    parent = finished_run.mlflow()[0]
    assert parent.data.metrics["cost_flops"] == pytest.approx(flops)


def test_mlflow_has_a_parent_and_a_nested_run_per_trial(finished_run: Ran) -> None:
    parent, *nested = finished_run.mlflow()
    states = pd.Series([found.data.tags["state"] for found in nested])
    expected = _trials(finished_run)["state"]
    assert states.value_counts().to_dict() == expected.value_counts().to_dict()
    assert "STOPPED" in set(states)
    # A control of the noise floor is one of the study that follows.
    stages = {found.data.tags["stage"] for found in nested}
    assert {"trials", "confirmation", "learning_rate"} <= stages
    assert "noise" not in stages
    (one,) = [
        found
        for found in nested
        if [found.data.tags[key] for key in ("stage", "pool", "seed")] == ["trials", BEST[0], "1"]
    ]
    assert one.data.tags["operator"] == "special_characters_filter"
    assert one.data.tags["bucket"] == "low"
    assert one.data.tags["state"] == "COMPLETED"
    assert {one.info.status, parent.info.status} == {"FINISHED"}
    assert one.data.metrics["score"] == one.data.metrics["taste"]
    row = finished_run.ranking.loc[BEST[0]]
    assert one.data.tags["verdict"] == row["verdict"] == "better"
    assert one.data.metrics["pool_rank"] == row["rank"]
    assert one.data.metrics["pool_change"] == pytest.approx(row["change"])
    worse = finished_run.ranking.query("kind == 'bucket' and verdict == 'worse'")
    assert parent.data.metrics["pools_worse"] == len(worse)
    note = parent.data.tags["mlflow.note.content"]
    statistic = BEST[0].partition("/")[0]
    assert note.startswith("- **keep**: ")
    assert statistic in note.splitlines()[0]
    assert "report.html" in note
    assert len(parent.inputs.dataset_inputs) == 2


# The same storage, again and beside it.


def test_the_same_command_again_does_nothing(finished_run: Ran) -> None:
    before = finished_run.stamps("trials/*") | finished_run.stamps("datasets/**/*")
    logged = {found.info.run_id for found in finished_run.mlflow()}
    again = run(finished_run.home.parent, base=WHOLE)
    assert again.out.count("done before") == len(again.outputs)
    assert again.stamps("trials/*") | again.stamps("datasets/**/*") == before
    assert {found.info.run_id for found in again.mlflow()} == logged
    assert BEST[0] in again.out, "the verdicts are shown again"


def test_a_plan_above_the_budget_is_refused(finished_run: Ran) -> None:
    dear = _config(finished_run, cost={"full_trainings": 1.01, "full_samples": 1000})
    with pytest.raises(PlanRefused, match=r"1 \+ m r = .* > M = 1.01"):
        check_budget(dear, over_budget=False)
    check_budget(dear, over_budget=True)
    made = make_plan(_config(finished_run))
    assert made["exact"]
    assert made["trials_to_run"] == made["samples_to_train"] == 0
    assert made["cost"]["allowed"]
    assert made["cost"]["m"] >= len(finished_run.parquet())
    shown = _shown(plan_table(made))
    assert "m = " in shown
    assert "found in the cache" in shown


PROBE = {"workflow": "single_op", "jobs": {}, "confirm": {"top": 0}, "learning_rate_check": None}


@pytest.mark.slow
def test_a_new_operator_costs_one_statistic_and_its_own_trials(finished_run: Ran) -> None:
    # The pools must stay as large as they were for the old trials to be the same trials.
    operators = [*WHOLE["operators"], "text_length_filter"]
    changes = {**PROBE, "name": "grown", "operators": operators}
    statistics = finished_run.stamps("datasets/*/stats/*.json")
    trials = finished_run.stamps("trials/*.json")
    made = make_plan(_config(finished_run, **changes))
    assert made["trials_to_run"] > 6, "not known before the pools are built"
    grown = _beside(finished_run, **changes)
    assert len(grown.stamps("datasets/*/stats/*.json").items() - statistics.items()) == 1
    new = {Path(path).stem for path in grown.stamps("trials/*.json").keys() - trials.keys()}
    table = grown.parquet().set_index("trial")
    assert set(table.loc[list(new), "pool"].str.split("/").str[0]) == {"text_len"}
    assert len(new) == 3 * 2
    made = make_plan(_config(finished_run, **changes))
    assert made["trials_to_run"] == 0
    assert all(job["done"] for job in made["jobs"])


@pytest.mark.slow
def test_without_early_stopping_given_up_trials_go_on(finished_run: Ran) -> None:
    stopped = set(finished_run.ranking.query("verdict == 'stopped'").index)
    plain = {**WHOLE["trials"], "early_stopping": SMALL["trials"]["early_stopping"]}
    on = _beside(finished_run, **PROBE, name="on", trials=plain)
    trials = on.parquet()
    assert (trials["state"] == "COMPLETED").all()
    went_on = trials[trials["pool"].isin(stopped)]
    assert (went_on["attempts"] > 1).all(), "from their last rung"
    curves = on.parquet("curves.parquet")
    assert curves.groupby("trial")["samples"].is_monotonic_increasing.all()
    assert not curves.duplicated(["trial", "samples"]).any()


@pytest.mark.slow
def test_whole_buckets_train_one_draw_per_arm(finished_run: Ran) -> None:
    changes = {
        **PROBE,
        "name": "buckets",
        "pools": {"controls": 8, "size": 360, "draw_share": 1.0},
        "trials": {**SMALL["trials"], "seeds": 1},
    }
    buckets = _beside(finished_run, **changes)
    ranking = buckets.ranking
    assert ranking.index[0] in BEST
    assert ranking[["change", "low", "high", "p", "q"]].notna().all(axis=None)
    pools = buckets.json("pools.json")
    assert pools["draw_size"] == pools["size"] == 360
    assert not buckets.parquet().duplicated("pool").any()
    with pytest.raises(BadInput, match="8"):
        _config(finished_run, **{**changes, "pools": {**changes["pools"], "controls": 7}})


# What goes wrong.


def _failing(family: str, **changes: Any) -> dict[str, Any]:
    model = {"type": f"small_family:{family}", **changes}
    return {
        **PROBE,
        "name": family.lower(),
        "operators": SMALL["operators"],
        "pools": {"controls": 8, "size": 240},  # three of their arms must be left
        "trials": {**SMALL["trials"], "retries": 0, "model": model},
    }


def test_failed_trials_are_left_out_and_said(finished_run: Ran) -> None:
    flaky = _beside(finished_run, **_failing("Flaky"))
    failed = flaky.outputs["trials"].failed
    assert failed > 0
    trials = flaky.parquet()
    in_pools = trials[(trials["state"] == "FAILED") & (trials["kind"] != "control")]
    assert flaky.ranking["failed"].sum() == len(in_pools)
    assert " FAILED on node " in flaky.out
    assert "the training loss is inf after 32 samples" in flaky.out
    states = [found.data.tags.get("state") for found in flaky.mlflow()]
    assert states.count("FAILED") == failed


@pytest.mark.slow
def test_crashed_trials_are_tried_again_by_the_same_command(
    finished_run: Ran, tmp_path: Path
) -> None:
    stone = tmp_path / "stone"
    stone.touch()
    changes = _failing("Stumbling", place=str(stone))
    first = _beside(finished_run, **changes)
    assert first.outputs["trials"].crashed > 0
    assert "RuntimeError: stumbled" in first.out
    before = first.stamps("trials/*.json")
    stone.unlink()
    again = _beside(finished_run, **changes)
    assert again.outputs["trials"].failed == 0
    written = again.stamps("trials/*.json").items() - before.items()
    assert len(written) == first.outputs["trials"].crashed, "only those are trained again"
    assert again.ranking["failed"].sum() == 0
    assert len(again.mlflow()) == 1 + (3 + 2 + 8) * 2


@pytest.mark.slow
def test_a_run_in_which_everything_fails_ends_early(finished_run: Ran) -> None:
    before = finished_run.stamps("trials/*")
    with pytest.raises(SandboxError, match=r"all of the first \d trials failed.*no hope"):
        _beside(finished_run, **_failing("Hopeless"))
    assert len(finished_run.stamps("trials/*").keys() - before.keys()) < 10
    state = json.loads((finished_run.home / "runs/hopeless/run.json").read_text())
    assert state["state"] == "FAILED"


def test_leaked_samples_are_reported_and_kept_out(finished_run: Ran) -> None:
    # The split is drawn from the same world with the same seed: its rows are the training rows.
    same = {**WHOLE["dataset"], "rows": [0, 60]}
    evaluation = {**SMALL["evaluation"], "dataset": same}
    leaky = _beside(
        finished_run,
        **{**PROBE, "workflow": jobs_until("pools")},
        name="leaky",
        evaluation=evaluation,
    )
    assert leaky.outputs["leaks"].rows == 60
    told = "60 training rows occur in the evaluation split too; kept out of every pool"
    assert told in leaky.out
    assignments = leaky.parquet("assignments.parquet")
    assert (assignments.drop(columns="row_id").iloc[:60] < 0).all().all()


@pytest.mark.slow
def test_what_an_outage_of_mlflow_kept_away_is_sent_by_sync(
    ray_cluster: None, tmp_path: Path
) -> None:
    away = f"http://127.0.0.1:{free_port()}"
    kept = run(tmp_path, {"tracking": {"type": "mlflow", "uri": away, "patience": 1}})
    assert "djsandbox sync small" in kept.out
    database = f"sqlite:///{tmp_path}/later.db"
    told = sync_run("small", kept.config.storage, database)
    assert (told.trials, told.unsent) == (20, 0)
    assert sum("taste" in found.data.metrics for found in mlflow_runs(database)) == 20
    sync_run("small", kept.config.storage, database)
    assert len(mlflow_runs(database)) == 21
    with pytest.raises(BadInput, match=r"no run 'smal' in .* \(there are: small\)"):
        sync_run("smal", kept.config.storage, database)


@pytest.mark.slow
def test_seconds_of_trials_agree_with_what_ray_accounts(ray_cluster: None, tmp_path: Path) -> None:
    changes = {**_failing("Taster", pause=2.0), "name": "small"}
    # Everything but the trials of the study itself is done before the meter runs.
    run(tmp_path, {**changes, "workflow": jobs_until("noise")})
    with ResourceMeter() as meter:
        ran = run(tmp_path, {**changes, "workflow": jobs_until("trials")})
    assert ran.json("costs.json")["trials"]["cpu_seconds"] == pytest.approx(
        meter.cpu_seconds, rel=0.05
    )

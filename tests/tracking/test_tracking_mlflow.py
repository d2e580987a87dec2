from __future__ import annotations

import logging
from dataclasses import replace

import pytest
from mlflow_server import client, mlflow_server
from ports import free_port
from pydantic import ValidationError
from tracked_records import (
    COMPLETED,
    FAILED,
    PARAMS,
    POOL,
    RUN,
    STOPPED,
    TAGS,
    VERDICTS,
    record,
    report,
)
from tracked_runs import check, inputs, stored

from djsandbox_ray.errors import BadInput
from djsandbox_ray.records import TrialRecord, TrialState
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.tracking.mlflow import MlflowConfig, MlflowTracker
from djsandbox_ray.tracking.mlflow_index import MlflowIndex, user
from djsandbox_ray.tracking.tracker import TRACKERS, DatasetInput


def track(storage: Storage, *records: TrialRecord, ok: bool = True, uri: str | None = None) -> int:
    tracker = MlflowTracker(MlflowConfig(uri=uri, patience=60), storage)
    tracker.start(RUN)
    for item in records:
        tracker.trial(item, TAGS, PARAMS, [POOL])
    tracker.metrics({"trials/completed": 1.0, "trials/failed": 1.0})
    tracker.artifact("ranking.csv", b"rank,pool\n")
    tracker.artifact("figures/ranking.png", b"\x89PNG")
    return tracker.finish(ok)


def test_everything_is_there_and_sending_it_again_changes_nothing(storage):
    uri = f"sqlite:///{storage.uri('mlflow.db')}"
    assert track(storage, COMPLETED, FAILED, STOPPED) == 0
    check(uri)
    before = {run.info.run_id for run in stored(uri)[2].values()}
    assert track(storage, COMPLETED, FAILED, STOPPED) == 0
    check(uri)
    assert {run.info.run_id for run in stored(uri)[2].values()} == before
    assert storage.exists("mlartifacts")


def test_a_trial_from_its_first_report_to_its_end(storage):
    uri = f"sqlite:///{storage.uri('mlflow.db')}"
    running = record(0, TrialState.RUNNING, report(100, 0.4))
    assert track(storage, record(0, TrialState.RUNNING), running, ok=False) == 0
    _, parent, children = stored(uri)
    assert parent.info.status == "FAILED"
    assert children["0"].info.status == "KILLED"  # cut off with its run
    assert children["0"].data.tags["state"] == "RUNNING"

    tracker = MlflowTracker(MlflowConfig(), storage)
    tracker.start(RUN)
    tracker.trial(COMPLETED, TAGS, PARAMS)
    assert tracker.finish(True) == 0
    mlflow, parent, again = stored(uri)
    assert parent.info.status == "FINISHED"
    assert again["0"].info.run_id == children["0"].info.run_id
    assert again["0"].info.status == "FINISHED"
    assert len(mlflow.get_metric_history(again["0"].info.run_id, "zero_shot/top1")) == 2


def test_a_trial_that_was_trained_anew_shows_only_its_new_reports(storage):
    uri = f"sqlite:///{storage.uri('mlflow.db')}"
    track(storage, record(0, TrialState.RUNNING, report(100, 0.4)), FAILED, ok=False)
    anew = record(0, TrialState.COMPLETED, report(100, 0.41, attempt=7), report(200, 0.6))
    repaired = replace(FAILED, state=TrialState.COMPLETED, error=None)
    assert track(storage, anew, repaired) == 0
    mlflow, _, children = stored(uri)
    history = mlflow.get_metric_history(children["0"].info.run_id, "zero_shot/top1")
    assert [point.value for point in history] == [0.41, 0.6]
    assert children["1"].info.status == "FINISHED"
    assert children["1"].data.tags["error"] == ""


def told(storage: Storage, *states: TrialRecord, ok: bool = False) -> None:
    """Tell each state to a tracker of its own, as drivers do that are killed and resumed."""
    for item in states:
        tracker = MlflowTracker(MlflowConfig(), storage)
        tracker.start(RUN)
        tracker.trial(item, TAGS, PARAMS)
        assert tracker.finish(ok) == 0


def test_a_resumed_trial_is_one_run_with_each_report_once(storage):
    uri = f"sqlite:///{storage.uri('mlflow.db')}"
    first, second, third = report(50, 0.3), report(100, 0.4), report(200, 0.6)
    running = TrialState.RUNNING
    told(storage, record(0, running, first, second))
    before = stored(uri)[2]["0"].info.run_id
    # Its records shrink to what its checkpoint holds, and grow again; what was measured again after
    # the checkpoint has another time.
    again = report(100, 0.4, attempt=9)
    told(
        storage,
        record(0, running),
        record(0, running, first),
        record(0, running, first, again),
        record(0, TrialState.COMPLETED, first, again, third),
        record(0, TrialState.COMPLETED, first, again, third),
        ok=True,
    )
    mlflow, _, children = stored(uri)
    assert children["0"].info.run_id == before
    assert children["0"].info.status == "FINISHED"
    assert children["0"].data.tags["state"] == "COMPLETED"
    for metric, values in {
        "zero_shot/top1": [0.3, 0.4, 0.6],
        "train/loss": [1.7, 1.6, 1.4],
    }.items():
        history = mlflow.get_metric_history(before, metric)
        assert [(point.step, point.value) for point in history] == list(
            zip([50, 100, 200], values, strict=True)
        )


def test_a_trial_that_was_stopped_is_told_from_one_that_was_cut_off(storage):
    cut_off = record(3, TrialState.RUNNING, report(100, 0.2))
    track(storage, STOPPED, cut_off, COMPLETED, ok=False)
    _, _, children = stored(f"sqlite:///{storage.uri('mlflow.db')}")
    seen = {seed: (run.info.status, run.data.tags["state"]) for seed, run in children.items()}
    assert seen == {
        "0": ("FINISHED", "COMPLETED"),
        "2": ("KILLED", "STOPPED"),
        "3": ("KILLED", "RUNNING"),
    }


def test_a_trial_of_two_stages_is_one_run_of_the_later_one(storage):
    for stage in ("noise", "trials"):
        tracker = MlflowTracker(MlflowConfig(), storage)
        tracker.start(RUN)
        tracker.trial(COMPLETED, {**TAGS, "stage": stage}, PARAMS)
        assert tracker.finish(True) == 0
    mlflow, _, children = stored(f"sqlite:///{storage.uri('mlflow.db')}")
    assert [run.data.tags["stage"] for run in children.values()] == ["trials"]
    assert len(mlflow.get_metric_history(children["0"].info.run_id, "train/loss")) == 2


def test_what_is_there_already_is_not_sent_again(storage, monkeypatch):
    track(storage, COMPLETED, FAILED, STOPPED)
    from mlflow import MlflowClient

    sent: list[str] = []
    real = MlflowClient.log_batch

    def log_batch(self, run_id, *rest, **more):
        sent.append(run_id)
        return real(self, run_id, *rest, **more)

    monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
    assert track(storage, COMPLETED, FAILED, STOPPED) == 0
    assert sent == []


def test_a_dataset_that_becomes_known_later_is_an_input_of_the_run_and_its_trials(storage):
    evaluation = DatasetInput("evaluation", "dataset-fe", "s3://b/table", 100, "evaluation")
    for _ in range(2):
        tracker = MlflowTracker(MlflowConfig(), storage)
        tracker.start(RUN)
        tracker.dataset(evaluation)
        tracker.dataset(evaluation)
        tracker.trial(COMPLETED, TAGS, PARAMS)
        assert tracker.finish(True) == 0
    _, parent, children = stored(f"sqlite:///{storage.uri('mlflow.db')}")
    for run in (parent, children["0"]):
        assert inputs(run) == {RUN.datasets[0], evaluation}
    mlflow = client(f"sqlite:///{storage.uri('mlflow.db')}")
    wanted = "dataset.digest = 'dataset-fe' AND dataset.context = 'evaluation'"
    assert len(mlflow.search_runs([parent.info.experiment_id], wanted)) == 2


def test_two_runs_in_one_storage_stay_apart(storage):
    assert track(storage, COMPLETED) == 0
    tracker = MlflowTracker(MlflowConfig(), storage)
    tracker.start(replace(RUN, key="another"))
    tracker.trial(COMPLETED, TAGS, PARAMS)
    assert tracker.finish(True) == 0
    mlflow = client(f"sqlite:///{storage.uri('mlflow.db')}")
    experiment = mlflow.get_experiment_by_name("djsandbox")
    assert len(mlflow.search_runs([experiment.experiment_id])) == 4


def test_a_parameter_that_changed_is_said_and_the_rest_is_logged(storage, caplog):
    track(storage, COMPLETED)
    tracker = MlflowTracker(MlflowConfig(), storage)
    with caplog.at_level(logging.WARNING):
        tracker.start(replace(RUN, params={"budget": "400", "seeds": "3"}))
        assert tracker.finish(True) == 0
    assert "parameter budget, '200'; it is now '400'" in caplog.text
    _, parent, _ = stored(f"sqlite:///{storage.uri('mlflow.db')}")
    assert parent.data.params["budget"] == "200"
    assert parent.data.params["seeds"] == "3"


def test_every_trial_has_the_verdict_on_its_pool_by_which_tables_sort(storage):
    uri = f"sqlite:///{storage.uri('mlflow.db')}"
    other = replace(FAILED, spec=replace(FAILED.spec, pool="text_len/low"))
    for late in (STOPPED, COMPLETED):  # the second time, a trial is told after the verdicts
        tracker = MlflowTracker(MlflowConfig(patience=60), storage)
        tracker.start(RUN)
        for item in (COMPLETED, other):
            tracker.trial(item, TAGS, PARAMS)
        tracker.judged("another study", [VERDICTS[0]._replace(verdict="worse", rank=9)])
        tracker.judged("trials", VERDICTS)
        tracker.trial(late, TAGS, PARAMS)
        assert tracker.finish(True) == 0
        mlflow, _, children = stored(uri)
        found = {
            seed: (run.data.tags["verdict"], run.data.metrics["pool_rank"])
            for seed, run in children.items()
        }
        assert found == {"0": ("better", 1), "1": ("failed", 2), "2": ("better", 1)}
        assert children["0"].data.metrics["pool_change"] == 0.25
        assert "pool_change" not in children["1"].data.metrics  # nobody knows it
    history = mlflow.get_metric_history(children["0"].info.run_id, "pool_rank")
    assert len(history) == 1
    experiment = mlflow.get_experiment_by_name("djsandbox").experiment_id
    best = mlflow.search_runs([experiment], order_by=["metrics.pool_rank ASC"])[0]
    assert best.data.tags["verdict"] == "better"


def test_the_run_is_described_and_its_command_opens_the_runs(storage):
    tracker = MlflowTracker(MlflowConfig(patience=60), storage)
    uri = f"sqlite:///{storage.uri('mlflow.db')}"
    assert tracker.ui_command == f"mlflow ui --backend-store-uri {uri}"
    tracker.start(RUN)
    tracker.describe("- not yet")
    tracker.describe("- text_len/high is better\n" + "x" * 9000)
    assert tracker.finish(True) == 0
    mlflow, parent, _ = stored(uri)
    note = parent.data.tags["mlflow.note.content"]
    assert note.startswith("- text_len/high is better\nx")
    assert len(note) < 5100
    number = mlflow.get_experiment_by_name("djsandbox").experiment_id
    page = f"/#/experiments/{number}/runs?workflowType=machine_learning"
    assert tracker.ui_command == (
        f"mlflow ui --backend-store-uri {uri}  # then open http://127.0.0.1:5000{page}"
    )


def test_a_run_that_a_user_deleted_meanwhile_is_made_again(storage):
    uri = f"sqlite:///{storage.uri('mlflow.db')}"
    running = record(0, TrialState.RUNNING, COMPLETED.reports[0])
    track(storage, running)
    tracker = MlflowTracker(MlflowConfig(), storage)
    tracker.start(RUN)
    tracker.trial(running, TAGS, PARAMS)
    mlflow, _, children = stored(uri)
    mlflow.delete_run(children["0"].info.run_id)
    tracker.trial(COMPLETED, TAGS, PARAMS)
    assert tracker.finish(True) == 0
    assert stored(uri)[2]["0"].data.metrics["zero_shot/top1"] == 0.6


def test_more_metrics_and_parameters_than_mlflow_takes_at_once(storage):
    metrics = {f"metric/{number}": float(number) for number in range(1100)}
    wide = record(0, TrialState.COMPLETED, replace(report(200, 0.5), metrics=metrics))
    params = {f"param.{number}": str(number) for number in range(120)}
    tracker = MlflowTracker(MlflowConfig(), storage)
    tracker.start(RUN)
    tracker.trial(wide, TAGS, params)
    assert tracker.finish(True) == 0
    run = stored(f"sqlite:///{storage.uri('mlflow.db')}")[2]["0"]
    assert run.data.metrics.items() >= metrics.items()
    assert run.data.params == params


def test_metrics_that_mlflow_cannot_tell_apart_are_refused_and_said(storage, caplog):
    tracker = MlflowTracker(MlflowConfig(), storage)
    bad = record(0, TrialState.RUNNING, replace(report(100, 0.1), metrics={"r@1": 0, "r_1": 1}))
    with caplog.at_level(logging.WARNING):
        tracker.start(RUN)
        tracker.trial(bad, TAGS, PARAMS)
        tracker.trial(FAILED, TAGS, PARAMS)
        assert tracker.finish(True) == 1
    assert "refused trial trial-0" in caplog.text
    assert stored(f"sqlite:///{storage.uri('mlflow.db')}")[2]["1"].info.status == "FAILED"


@pytest.mark.slow
def test_a_server_that_comes_up_late_gets_everything_once(storage, tmp_path, caplog):
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    tracker = MlflowTracker(MlflowConfig(uri=uri, patience=0), storage)
    with caplog.at_level(logging.WARNING):
        tracker.start(RUN)
        tracker.trial(COMPLETED, TAGS, PARAMS)
        assert tracker.finish(True) == 2
    assert "2 things were not sent" in caplog.text

    late = MlflowTracker(MlflowConfig(uri=uri, patience=240), storage)
    late.start(RUN)
    for number in range(len(COMPLETED.reports) + 1):
        state = TrialState.RUNNING
        late.trial(
            replace(COMPLETED, state=state, reports=COMPLETED.reports[:number]), TAGS, PARAMS
        )
    with mlflow_server(tmp_path, port=port, wait=False):
        for item in (COMPLETED, FAILED, STOPPED):
            late.trial(item, TAGS, PARAMS, [POOL])
        late.metrics({"trials/completed": 1.0, "trials/failed": 1.0})
        late.artifact("ranking.csv", b"rank,pool\n")
        late.artifact("figures/ranking.png", b"\x89PNG")
        assert late.finish(True) == 0
        check(uri)
        assert track(storage, COMPLETED, FAILED, STOPPED, uri=uri) == 0
        check(uri)
        number = client(uri).get_experiment_by_name("djsandbox").experiment_id
        page = f"{uri}/#/experiments/{number}/runs?workflowType=machine_learning"
        assert late.ui_command == page


def test_config():
    assert TRACKERS.get("mlflow") is MlflowTracker
    for uri in ("http://h:5000", "sqlite:////a.db", "postgresql+psycopg2://h/db", "databricks"):
        assert MlflowConfig(uri=uri).uri == uri
    for uri in ("./mlruns", "file:///tmp/mlruns", "ftp://h"):
        with pytest.raises(ValidationError, match=r"allowed: http://"):
            MlflowConfig(uri=uri)
    with pytest.raises(ValidationError, match="Extra inputs"):
        MlflowConfig.model_validate({"type": "mlflow", "url": "http://h"})


def test_a_storage_that_is_not_local_needs_a_server(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    there = Storage("memory://bucket")
    with pytest.raises(BadInput, match=r"tracking\.uri.*memory://bucket.*\{type: none\}"):
        MlflowTracker(MlflowConfig(), there)
    MlflowTracker(MlflowConfig(uri="http://127.0.0.1:1"), there)
    assert "none" in TRACKERS
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@there:5000")
    named = MlflowTracker(MlflowConfig(), there)
    assert named.ui_command == named.address == "http://***@there:5000"
    here = MlflowConfig(uri="http://here:5000")
    assert MlflowTracker(here, there).ui_command == "http://here:5000"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "ftp://me:secret@there/runs")
    with pytest.raises(BadInput, match=r"MLFLOW_TRACKING_URI: 'ftp://\*\*\*@there/runs' is no"):
        MlflowTracker(MlflowConfig(), there)


def test_who_runs_it_is_said_as_mlflow_does(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ada")
    monkeypatch.setenv("DJSANDBOX_USER", "emmy")
    assert user() == "ada"
    monkeypatch.delenv("MLFLOW_TRACKING_USERNAME")
    assert user() == "emmy"  # submitted the job, whose driver every node calls "ray"
    monkeypatch.delenv("DJSANDBOX_USER")
    monkeypatch.setenv("LOGNAME", "grace")
    assert user() == "grace"

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", nameless)
    assert user() == "unknown"


def test_the_command_that_opens_the_ui_holds_no_password():
    local = Storage("/data/my runs")
    assert MlflowTracker(MlflowConfig(), local).address == "mlflow.db in the storage"
    assert (
        MlflowTracker(MlflowConfig(), local).ui_command
        == "mlflow ui --backend-store-uri 'sqlite:////data/my runs/mlflow.db'"
    )
    server = MlflowConfig(uri="https://me:secret@tracking.example:5000")
    assert MlflowTracker(server, local).ui_command == "https://***@tracking.example:5000"
    database = MlflowConfig(uri="postgresql://me:secret@db/mlflow")
    assert (
        MlflowTracker(database, local).ui_command
        == "mlflow ui --backend-store-uri 'postgresql+psycopg2://***@db/mlflow'"
    )


def test_files_that_a_server_elsewhere_would_miss_are_named(storage, monkeypatch, caplog):
    uri = f"sqlite:///{storage.uri('mlflow.db')}"
    assert track(storage, COMPLETED) == 0
    for address, place in {
        "http://127.0.0.1:5000": None,
        "http://tracking.example:5000": storage.uri("mlartifacts"),
    }.items():
        index = MlflowIndex(address, "djsandbox", None, RUN)
        # The store is the local one: what its experiment says is what such a server would.
        monkeypatch.setitem(index.__dict__, "client", client(uri))
        found = index.files_beside_server()
        assert found == place or found == f"file://{place}"


def test_misuse_is_an_error(storage):
    tracker = MlflowTracker(MlflowConfig(patience=0), storage)
    assert tracker.finish(True) == 0
    with pytest.raises(RuntimeError, match="not started"):
        tracker.trial(COMPLETED, TAGS, PARAMS)
    tracker.start(RUN)
    with pytest.raises(RuntimeError, match="before"):
        tracker.start(RUN)
    for name in ("../x", "/etc/x", ""):
        with pytest.raises(ValueError, match="relative path"):
            tracker.artifact(name, b"")
    tracker.finish(False)
    with pytest.raises(ValueError, match="key"):
        replace(RUN, key='a"b')

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from mlflow_server import mlflow_server
from ports import free_port
from tracked_records import COMPLETED, FAILED, PARAMS, POOL, RUN, STOPPED, TAGS, VERDICTS, record
from tracked_runs import check, stored

from djsandbox_ray.errors import BadInput, Damaged
from djsandbox_ray.records import TrialRecord, TrialSpec, TrialState
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.tracking.journal import Recorded, Replayed, replay
from djsandbox_ray.tracking.mlflow import MlflowConfig, MlflowTracker
from djsandbox_ray.tracking.tracker import (
    TRACKERS,
    DatasetInput,
    NullTracker,
    PoolVerdict,
    RunInfo,
    Tracker,
)

FOLDER = "runs/demo"


class Listener(Tracker):
    """A tracker of a user's own: keeps what it was told."""

    def __init__(self, storage, unsent: int = 0) -> None:
        super().__init__(NullTracker.Config(type="none"), storage)
        self.calls: list[tuple[Any, ...]] = []
        self.unsent = unsent

    @property
    def address(self) -> str:
        return "http://listener"

    def start(self, run: RunInfo) -> None:
        self.calls.append(("start", run))

    def dataset(self, dataset: DatasetInput) -> None:
        self.calls.append(("dataset", dataset))

    def trial(
        self,
        record: TrialRecord,
        tags: Mapping[str, str],
        params: Mapping[str, str],
        inputs: Sequence[DatasetInput] = (),
    ) -> None:
        self.calls.append(("trial", record, dict(tags), dict(params), tuple(inputs)))

    def metrics(self, values: Mapping[str, float], time_ms: int | None = None) -> None:
        self.calls.append(("metrics", dict(values), time_ms))

    def artifact(self, name: str, data: bytes) -> None:
        self.calls.append(("artifact", name, data))

    def judged(self, stage: str, pools: Sequence[PoolVerdict]) -> None:
        self.calls.append(("judged", stage, tuple(pools)))

    def describe(self, text: str) -> None:
        self.calls.append(("describe", text))

    def finish(self, ok: bool, within: float | None = None) -> int:
        self.calls.append(("finish", ok))
        return self.unsent

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [call[1:] for call in self.calls if call[0] == kind]


def run(tracker: Tracker, *records: TrialRecord, ok: bool | None = True) -> int:
    """Tell what a run tells; it is cut off where ``ok`` is None."""
    tracker.start(RUN)
    for item in records:
        tracker.trial(item, TAGS, PARAMS, [POOL])
    tracker.metrics({"trials/completed": 1.0, "trials/failed": 1.0})
    tracker.artifact("ranking.csv", b"rank,pool\n")
    tracker.artifact("figures/ranking.png", b"\x89PNG")
    return tracker.finish(ok) if ok is not None else 0


def heard(storage) -> Listener:
    listener = Listener(storage)
    replay(storage, FOLDER, lambda: listener)
    return listener


@pytest.mark.slow
def test_a_server_that_was_away_during_the_run_gets_everything_once(storage, tmp_path, caplog):
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    with caplog.at_level(logging.WARNING):
        away = Recorded(MlflowTracker(MlflowConfig(uri=uri, patience=0), storage), FOLDER)
        assert run(away, COMPLETED, FAILED, STOPPED) > 0
    assert "djsandbox sync" in caplog.text

    def tracker() -> Tracker:
        return MlflowTracker(MlflowConfig(uri=uri, patience=240), storage)

    with mlflow_server(tmp_path, port=port, wait=False):
        for _ in range(2):  # the second time it changes nothing
            assert replay(storage, FOLDER, tracker) == Replayed(runs=1, trials=3, unsent=0)
            check(uri)
        mlflow, parent, _ = stored(uri)
        (point,) = mlflow.get_metric_history(parent.info.run_id, "trials/completed")
        assert run(Recorded(tracker(), FOLDER), COMPLETED, FAILED, STOPPED) == 0
        check(uri)
        (again,) = mlflow.get_metric_history(parent.info.run_id, "trials/completed")
        assert point.timestamp == again.timestamp


def test_a_tracker_hears_from_the_journal_what_it_hears_from_the_run(storage):
    live = Listener(storage)
    extra = DatasetInput("evaluation", "dataset-fe", "shapes", 100)
    tracker = Recorded(live, FOLDER)
    run(tracker, COMPLETED, STOPPED, ok=None)
    tracker.dataset(extra)
    tracker.judged("trials", VERDICTS)
    tracker.judged("combinations", VERDICTS[:1])
    tracker.describe("text_len/high is better")
    tracker.finish(True)
    later = heard(storage)
    ((told,),) = live.of("start")
    assert replace(told, key=RUN.key) == RUN
    assert later.of("start") == [(replace(told, datasets=(*RUN.datasets, extra)),)]
    for kind in ("trial", "judged", "metrics", "artifact", "describe", "finish"):
        assert repr(later.of(kind)) == repr(live.of(kind))  # with NaN in it
    assert tracker.ui_command == live.ui_command
    (name,) = storage.names(f"{FOLDER}/tracking")
    told = storage.read_json(f"{FOLDER}/tracking/{name}/run.json")
    assert told["address"] == tracker.address == "http://listener"


def test_a_journal_holds_nan_and_no_traceback(storage):
    failed = replace(FAILED, traceback="Traceback: secret")
    tracker = Recorded(Listener(storage), FOLDER)
    run(tracker, failed, ok=None)
    tracker.metrics({"lost": float("nan")})
    later = heard(storage)
    ((told, _, _, pool),) = later.of("trial")
    assert pool == (POOL,)
    assert repr(told) == repr(FAILED)
    assert [repr(values["lost"]) for values, _ in later.of("metrics") if "lost" in values] == [
        "nan"
    ]
    for path in ("run.json", "trials/trial-1.json"):
        (name,) = storage.names(f"{FOLDER}/tracking")
        json.loads(
            storage.read_bytes(f"{FOLDER}/tracking/{name}/{path}"), parse_constant=pytest.fail
        )


def test_a_run_that_was_cut_off_ends_as_failed_and_its_newest_records_count(storage):
    tracker = Recorded(Listener(storage), FOLDER)
    running = [record(0, TrialState.RUNNING, *COMPLETED.reports[:n]) for n in (0, 1)]
    run(tracker, *running, STOPPED, ok=None)
    later = heard(storage)
    assert [told for told, *_ in later.of("trial")] == [running[-1], STOPPED]
    assert later.of("finish") == [(False,)]


def test_a_resumed_run_goes_on_with_its_journal(storage):
    cut_off = Recorded(Listener(storage), FOLDER)
    run(cut_off, COMPLETED, STOPPED, ok=None)
    cut_off.judged("trials", VERDICTS)
    cut_off.describe("found")
    cut_off.finish(False)
    (before,) = heard(storage).of("metrics")
    resumed = Recorded(Listener(storage), FOLDER)
    resumed.start(replace(RUN, params={"budget": "200", "seeds": "4"}))  # and is killed at once
    later = heard(storage)
    assert later.of("start")[0][0].params == {"budget": "200", "seeds": "4"}
    assert len(later.of("trial")) == 2
    assert len(later.of("artifact")) == 2
    assert repr(later.of("judged")) == repr([("trials", VERDICTS)])  # with NaN in it
    assert later.of("describe") == [("found",)]
    resumed.metrics({"trials/completed": 1.0, "trials/failed": 2.0})
    by_value = {
        value: time_ms for told, time_ms in heard(storage).of("metrics") for value in told.items()
    }
    assert by_value["trials/completed", 1.0] == before[1]  # the time at which it was first known
    assert by_value["trials/failed", 2.0] >= before[1]
    resumed.artifact("ranking.csv", b"new")
    assert (("ranking.csv", b"new")) in heard(storage).of("artifact")
    assert len(heard(storage).of("artifact")) == 2


def test_another_configuration_of_the_same_name_is_another_run(storage):
    run(Recorded(Listener(storage), FOLDER), COMPLETED)
    changed = Recorded(Listener(storage), FOLDER)
    changed.start(replace(RUN, key="changed"))
    changed.trial(STOPPED, TAGS, PARAMS)
    changed.artifact("ranking.csv", b"changed")
    changed.finish(True)
    listeners: list[Listener] = []

    def listener() -> Listener:
        listeners.append(Listener(storage, unsent=2))
        return listeners[-1]

    assert replay(storage, FOLDER, listener) == Replayed(runs=2, trials=2, unsent=4)
    seen = {each.of("start")[0][0].key.rpartition("-")[0]: each for each in listeners}
    assert [told for told, *_ in seen["changed"].of("trial")] == [STOPPED]
    assert seen["changed"].of("artifact") == [("ranking.csv", b"changed")]
    assert ("ranking.csv", b"rank,pool\n") in seen[RUN.key].of("artifact")


def test_the_same_run_in_another_storage_is_another_run(storage, tmp_path):
    there = Storage(str(tmp_path / "there"))
    keys = []
    for place in (storage, there, storage):
        listener = Listener(place)
        run(Recorded(listener, FOLDER), COMPLETED)
        keys.append(listener.of("start")[0][0].key)
    assert keys[0] == keys[2] != keys[1]


def test_a_journal_of_an_older_version_stays_the_run_that_it_was(storage):
    run(Recorded(Listener(storage), FOLDER), COMPLETED)
    (name,) = storage.names(f"{FOLDER}/tracking")
    path = f"{FOLDER}/tracking/{name}/run.json"
    told = storage.read_json(path)
    del told["origin"], told["checksum"]
    told["datasets"] = [given[:4] for given in told["datasets"]]
    storage.write_json(path, told)
    again = Listener(storage)
    run(Recorded(again, FOLDER), COMPLETED)
    assert again.of("start")[0][0].key == RUN.key
    assert heard(storage).of("start")[0][0] == replace(RUN, datasets=tuple(RUN.datasets))


def test_a_journal_and_its_tracker_hear_no_secret(storage, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "planted-password")
    listener = Listener(storage)
    tracker = Recorded(listener, FOLDER)
    tracker.start(replace(RUN, params={"model": "http://me:planted@host/arch.json"}))
    tracker.trial(COMPLETED, {"api_key": "planted"}, {"x": "is planted-password"})
    assert "planted" not in str(listener.calls)
    assert "planted" not in str(heard(storage).calls)


def test_a_run_that_nobody_watched_can_be_sent_later(storage):
    run(Recorded(NullTracker(NullTracker.Config(type="none"), storage), FOLDER), COMPLETED)
    result = replay(storage, FOLDER, lambda: MlflowTracker(MlflowConfig(), storage))
    assert result.unsent == 0
    _, parent, children = stored(f"sqlite:///{storage.uri('mlflow.db')}")
    assert parent.info.status == "FINISHED"
    assert children["0"].data.metrics["zero_shot/top1"] == 0.6


def test_nothing_is_written_twice(storage, monkeypatch):
    run(Recorded(Listener(storage), FOLDER), COMPLETED, STOPPED)
    written: list[str] = []
    real = storage.write_bytes
    monkeypatch.setattr(
        storage, "write_bytes", lambda path, data: (written.append(path), real(path, data))
    )
    run(Recorded(Listener(storage), FOLDER), COMPLETED, STOPPED)
    assert {path.rsplit("/", 1)[-1] for path in written} == {
        "run.json"
    }  # it runs, and it has ended


def test_a_folder_without_a_journal_is_bad_input(storage):
    with pytest.raises(BadInput, match=r"runs/demo in .* holds nothing to send"):
        replay(storage, FOLDER, lambda: Listener(storage))


@pytest.mark.parametrize("broken", [b"{", b"{}", b'{"record": {"spec": {}}}'])
def test_a_damaged_file_is_bad_input(storage, broken):
    run(Recorded(Listener(storage), FOLDER), COMPLETED)
    (name,) = storage.names(f"{FOLDER}/tracking")
    storage.write_bytes(f"{FOLDER}/tracking/{name}/trials/trial-0.json", broken)
    with pytest.raises(BadInput, match=r"trial-0\.json is damaged"):
        heard(storage)


def test_a_number_that_was_changed_is_not_sent(storage):
    run(Recorded(Listener(storage), FOLDER), COMPLETED)
    (name,) = storage.names(f"{FOLDER}/tracking")
    path = f"{FOLDER}/tracking/{name}/trials/trial-0.json"
    told = storage.read_json(path)
    told["record"]["reports"][0]["loss"] = 77.0
    storage.write_json(path, told)
    with pytest.raises(Damaged, match="checksum; remove it, and the marker of the job"):
        heard(storage)


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"name": "demo"}', b"\xff"])
def test_a_run_goes_on_with_a_journal_that_is_damaged(storage, content):
    """It is the same run to the tracker, and all that it said before is said again."""
    first = Listener(storage)
    run(Recorded(first, FOLDER), COMPLETED)
    (name,) = storage.names(f"{FOLDER}/tracking")
    path = f"{FOLDER}/tracking/{name}/run.json"
    if content is None:
        storage.remove(path)
    else:
        storage.write_bytes(path, content)
        with pytest.raises(BadInput, match=r"run\.json is damaged.*djsandbox run"):
            heard(storage)
    again = Listener(storage)
    run(Recorded(again, FOLDER), COMPLETED)
    assert again.of("start")[0][0].key == first.of("start")[0][0].key
    assert heard(storage).of("trial")


def test_a_file_that_is_gone_is_named(storage):
    run(Recorded(Listener(storage), FOLDER), COMPLETED)
    (name,) = storage.names(f"{FOLDER}/tracking")
    storage.remove(f"{FOLDER}/tracking/{name}/artifacts/ranking.csv")
    with pytest.raises(BadInput, match=r"artifacts/ranking\.csv is not there; run the config"):
        heard(storage)


def test_misuse_is_an_error(storage):
    tracker = Recorded(Listener(storage), FOLDER)
    assert tracker.finish(True) == 0
    for tell in (
        lambda: tracker.trial(COMPLETED, TAGS, PARAMS),
        lambda: tracker.metrics({"a": 1.0}),
        lambda: tracker.artifact("a", b""),
        lambda: tracker.dataset(RUN.datasets[0]),
        lambda: tracker.judged("trials", VERDICTS),
        lambda: tracker.describe("found"),
    ):
        with pytest.raises(RuntimeError, match="not started"):
            tell()
    assert storage.names("runs") == []
    tracker.start(RUN)
    with pytest.raises(ValueError, match="not a path inside"):
        tracker.artifact("../../x", b"")


def test_the_null_tracker_takes_everything_and_leaves_no_trace(storage):
    tracker = TRACKERS.get("none")(NullTracker.Config(type="none"), storage)
    assert isinstance(tracker, NullTracker)
    assert tracker.ui_command is None
    tracker.start(RunInfo("demo", "key"))
    tracker.trial(TrialRecord(TrialSpec("t", "p", 0, "d", 1), TrialState.RUNNING), {}, {})
    tracker.metrics({"a": 1.0})
    tracker.artifact("a.txt", b"")
    assert tracker.finish(True) == 0
    assert storage.names("") == []

"""Where ``djsandbox sync`` sends: where the run was tracked, or where it is told to."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import pytest
import yaml

from djsandbox_ray.errors import BadInput
from djsandbox_ray.records import TrialRecord
from djsandbox_ray.settings.sections import Component
from djsandbox_ray.storage import lease
from djsandbox_ray.storage.lease import Held
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.tracking.journal import Recorded, Replayed
from djsandbox_ray.tracking.tracker import DatasetInput, RunInfo, Tracker
from djsandbox_ray.workflows.finished import sync_run
from djsandbox_ray.workflows.state import alone

FOLDER = "runs/demo"
SERVER = "http://***@there:5000"


class Elsewhere(Tracker):
    """Is where a variable says, as MLflow is."""

    @property
    def address(self) -> str:
        return os.environ.get("ELSEWHERE", "mlflow.db in the storage")

    def trial(
        self,
        record: TrialRecord,
        tags: Mapping[str, str],
        params: Mapping[str, str],
        inputs: Sequence[DatasetInput] = (),
    ) -> None:
        pass


def tracked(storage: Storage) -> None:
    """Leave in a storage what a tracked run leaves there."""
    settings = Component(type=f"{__name__}:Elsewhere")
    tracker = Recorded(Elsewhere(settings, storage), FOLDER)
    tracker.start(RunInfo("demo", "run-1"))
    tracker.finish(True)
    kept = {"tracking": settings.model_dump()}
    storage.write_bytes(f"{FOLDER}/config.yaml", yaml.safe_dump(kept).encode())
    storage.write_json(f"{FOLDER}/run.json", {"state": "COMPLETED"})


def test_another_place_than_that_of_the_run_must_be_named(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELSEWHERE", SERVER)
    tracked(storage)
    assert sync_run("demo", storage.url, None).runs == 1
    monkeypatch.delenv("ELSEWHERE")
    with pytest.raises(BadInput, match=r"by http://\*\*\*@there:5000; here .* mlflow.db.* --uri"):
        sync_run("demo", storage.url, None)
    monkeypatch.setenv("ELSEWHERE", "http://other:5000")
    with pytest.raises(BadInput, match="means http://other:5000"):
        sync_run("demo", storage.url, None)


def test_a_run_that_was_resumed_elsewhere_is_there(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELSEWHERE", SERVER)
    tracked(storage)
    monkeypatch.delenv("ELSEWHERE")
    tracked(storage)
    assert sync_run("demo", storage.url, None).runs == 1


def test_journals_of_older_versions_do_not_say_where(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELSEWHERE", SERVER)
    tracked(storage)
    (name,) = storage.names(f"{FOLDER}/tracking")
    path = f"{FOLDER}/tracking/{name}/run.json"
    told = storage.read_json(path)
    del told["address"], told["checksum"]
    storage.write_json(path, told)
    monkeypatch.delenv("ELSEWHERE")
    assert sync_run("demo", storage.url, None).runs == 1


def test_nobody_runs_what_is_being_sent(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would end as failed for the tracker; and two who send would each make a run of it."""

    def sent(*_: object) -> Replayed:
        with pytest.raises(Held, match="the run 'demo'"):
            alone(storage, "demo")
        return Replayed(1, 0, 0)

    monkeypatch.setattr(lease, "RENEWAL", 0.1)
    monkeypatch.setattr("djsandbox_ray.workflows.finished.replay", sent)
    tracked(storage)
    assert sync_run("demo", storage.url, None).runs == 1
    alone(storage, "demo").release()

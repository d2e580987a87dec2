"""What a job that reads data says of what it has not read."""

from __future__ import annotations

from pathlib import Path

from factories import read_events
from planted_world import context_of

from djsandbox_ray.dataset.source import SOURCES
from djsandbox_ray.hooks.ingest import Ingest
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.telemetry.events import EventLog


def test_what_is_passed_over_is_said_and_an_event(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "data" / ".ipynb_checkpoints").mkdir(parents=True)
    (tmp_path / "data" / "train.jsonl").write_text('{"text": "a", "images": ["a.jpg"]}\n')
    (tmp_path / "data" / "._train.jsonl").write_text("")
    data = {"type": "jsonl", "path": str(tmp_path / "data")}
    context, said = context_of(storage, dataset=data)
    source = SOURCES.get("jsonl")(context.config.dataset)
    source.stamp()
    with EventLog(storage, "planted"):
        Ingest(context).tell_passed_over(source, "ingest")
    assert "ingest: passed over: 2 hidden" in said.getvalue()
    (found,) = [e for e in read_events(storage, "planted") if e["event"] == "files_passed_over"]
    assert found["details"] == {
        "counts": {"hidden": 2},
        "names": {"hidden": ["._train.jsonl", ".ipynb_checkpoints/"]},
    }

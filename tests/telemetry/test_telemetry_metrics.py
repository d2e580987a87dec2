"""Metrics: declared once, listed in the docs, and nothing to fear without Ray.

Nodes that join and leave the cluster of a run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from factories import read_events

from djsandbox_ray.storage.store import Storage
from djsandbox_ray.telemetry import metrics
from djsandbox_ray.telemetry import observed as nodes
from djsandbox_ray.telemetry.events import EventLog
from djsandbox_ray.telemetry.metrics import METRICS, Instrument
from djsandbox_ray.telemetry.observed import tell_changes

PAGE = Path(__file__).resolve().parents[2] / "docs" / "watching.md"


@pytest.fixture
def gauge() -> Iterator[Instrument]:
    yield Instrument("djsandbox_test", "gauge", "things", ("stage",), "For a test.")
    metrics.label("")


def test_names_say_what_they_are_and_end_in_their_unit() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert re.fullmatch(r"djsandbox_[a-z_]+", metric.name)
        assert not metric.name.endswith("_total"), "Ray adds it"
        last = metric.name.rsplit("_", 1)[1]
        assert last == metric.unit.split()[0] or (metric.kind == "counter" and last in metric.unit)
        assert metric.help.endswith(".")
        assert "pool" not in metric.tags, "too many values"
        assert "trial" not in metric.tags, "too many values"
        assert not {"job", "instance"} & {*metric.tags}, "Prometheus would rename it"


def test_the_docs_list_all_of_them() -> None:
    rows = re.findall(
        r"^\| `(ray_djsandbox_\w+)` \| (\w+) \| ([^|]+) \| ([^|]*) \|", PAGE.read_text(), re.M
    )
    shown = {
        name: (kind, unit.strip(), set(re.findall(r"`(\w+)`", tags)))
        for name, kind, unit, tags in rows
    }
    assert shown == {
        metric.exported: (metric.kind, metric.unit, {"run", *metric.tags}) for metric in METRICS
    }


def test_wrong_tags_are_a_mistake_with_or_without_ray(gauge: Instrument) -> None:
    with pytest.raises(TypeError, match="has the tags"):
        gauge.set(1.0)
    with pytest.raises(TypeError, match="pool"):
        gauge.set(1.0, stage="trials", pool="text_len/high")


def test_without_a_run_nothing_is_exported(gauge: Instrument) -> None:
    metrics.label("")
    gauge.set(1.0, stage="trials")
    gauge.refresh()
    assert not gauge._made


def test_a_metric_that_fails_ends_nothing(
    gauge: Instrument, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(metrics, "_connected", lambda: True)
    gauge._made.append(object())  # has no method `set`
    gauge.set(1.0, stage="trials")
    assert "djsandbox_test cannot be exported" in caplog.text


def test_nodes_that_come_and_go(storage: Storage) -> None:
    def node(address: str) -> dict[str, object]:
        return {"NodeManagerAddress": address, "Resources": {"CPU": 2.0, "memory": 1e9}}

    with EventLog(storage, "demo"):
        tell_changes({"a": node("10.0.0.1"), "b": node("10.0.0.2")}, {"a": node("10.0.0.1")})
        tell_changes({"a": node("10.0.0.1")}, {"a": node("10.0.0.1"), "c": node("10.0.0.3")})
    lost, joined = read_events(storage, "demo")[1:-1]
    assert (lost["event"], lost["level"]) == ("node_lost", "warning")
    assert lost["details"] == {"node": "b", "address": "10.0.0.2", "resources": {"CPU": 2.0}}
    assert (joined["event"], joined["details"]["address"]) == ("node_joined", "10.0.0.3")


def test_looks_at_the_cluster_remember_the_last_one(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = {"NodeManagerAddress": "10.0.0.1", "Resources": {}}
    looks = iter([None, {"a": node, "b": node}, OSError("the head is away"), None, {"a": node}])

    def living() -> dict[str, dict[str, object]] | None:
        found = next(looks)
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(nodes, "_living", living)
    watch = nodes.NodeWatch()
    with EventLog(storage, "demo"):
        for _ in range(5):
            watch.look()
    (lost,) = read_events(storage, "demo")[1:-1]
    assert (lost["event"], lost["details"]["node"]) == ("node_lost", "b")

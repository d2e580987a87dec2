"""Nodes that join and leave the cluster of a run."""

from __future__ import annotations

import pytest
from factories import read_events

from djsandbox_ray.storage.store import Storage
from djsandbox_ray.telemetry import observed as nodes
from djsandbox_ray.telemetry.events import EventLog
from djsandbox_ray.telemetry.observed import tell_changes


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

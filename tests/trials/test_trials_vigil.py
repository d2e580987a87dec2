"""Workers that say nothing: who is to blame, when it is said, and when one is replaced."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict
from typing import Any

import pytest

from djsandbox_ray.storage.processes import Process
from djsandbox_ray.trials import pulse
from djsandbox_ray.trials.config import TrialsConfig
from djsandbox_ray.trials.pulse import NAMESPACE, Pulse, key
from djsandbox_ray.trials.vigil import Silence, Vigil

LIMIT = 600


class Watched:
    """A vigil whose clock is ours, over workers that say what we want."""

    def __init__(self, limit: float | None = LIMIT) -> None:
        self.now = 0.0
        self.said: list[Silence] = []
        self.ended: list[tuple[int, str]] = []
        self.vigil = Vigil(limit, self.said.append, self._end, lambda: self.now)
        self.told: dict[tuple[str, int], dict[str, Any]] = {}
        self.running = ["t"]

    def _end(self, process: Process, node: str) -> None:
        self.ended.append((process.pid, node))

    def worker(self, rank: int = 0, pid: int = 7, **changes: Any) -> None:
        known = self.told.get(("t", rank), {"beats": 0, "progress": 0})
        counts = {name: known[name] + changes.pop(name, 0) for name in ("beats", "progress")}
        process = asdict(Process("here", pid, 1))
        place = {"node": f"node-{pid}", "place": f"rank {rank} (pid {pid})", "process": process}
        self.told["t", rank] = {**counts, **place}

    def after(self, seconds: float) -> list[Silence]:
        self.now += seconds
        before = len(self.said)
        self.vigil.look(self.told, self.running)
        return self.said[before:]


@pytest.fixture
def watched() -> Watched:
    made = Watched()
    made.worker()
    assert made.after(0) == []
    return made


def test_who_goes_on_is_left_alone_however_long_it_takes(watched: Watched) -> None:
    for _ in range(100):
        watched.worker(beats=1, progress=1)
        assert watched.after(59) == []


def test_a_stopped_worker_is_reported_once_and_then_replaced(watched: Watched) -> None:
    assert watched.after(59) == []
    assert watched.after(1) == [Silence("t", 60, "rank 0 (pid 7)", False)]
    assert watched.after(300) == []
    assert watched.ended == []
    assert watched.after(240) == [Silence("t", 600, "rank 0 (pid 7)", True)]
    assert watched.ended == [(7, "node-7")]
    watched.vigil.crashed("t")
    assert watched.after(10_000) == [], "what it said last says nothing of the next attempt"
    watched.worker(pid=8)
    assert watched.after(5) == [], "it was not heard of before"
    assert watched.after(59) == []
    assert watched.after(1) != []


def test_a_worker_that_could_not_be_ended_is_tried_again(watched: Watched) -> None:
    watched.after(600)
    watched.after(600)
    assert watched.ended == [(7, "node-7")] * 2


def test_one_that_lives_but_does_not_go_on_is_replaced_too(watched: Watched) -> None:
    for _ in range(10):
        watched.worker(beats=1)
        watched.after(60)
    assert [silence.replaced for silence in watched.said] == [False, True]


def test_a_silence_that_ends_is_forgotten(watched: Watched) -> None:
    assert len(watched.after(100)) == 1
    watched.worker(beats=1, progress=1)
    assert watched.after(5) == []
    assert len(watched.after(100)) == 1


def test_of_several_workers_the_stopped_one_is_to_blame(watched: Watched) -> None:
    watched.worker(1, pid=9)
    watched.after(5)
    for _ in range(60):
        watched.worker(0, beats=1)  # it waits for the other
        watched.after(10)
    assert watched.ended == [(9, "node-9")]
    assert watched.said[-1].place == "rank 1 (pid 9)"


def test_while_one_of_several_goes_on_the_others_may_wait(watched: Watched) -> None:
    watched.worker(1, pid=9)
    for _ in range(200):
        watched.worker(0, beats=1, progress=1)  # an evaluation, say
        watched.worker(1, pid=9, beats=1)
        assert watched.after(10) == []


def test_several_that_wait_for_each_other_end_with_the_first(watched: Watched) -> None:
    watched.worker(1, pid=9)
    for _ in range(62):
        watched.worker(0, beats=1)
        watched.worker(1, pid=9, beats=1)
        watched.after(10)
    assert watched.ended == [(7, "node-7")]


def test_trials_without_a_place_are_not_expected_to_say_anything(watched: Watched) -> None:
    watched.running = []
    assert watched.after(10_000) == []


@pytest.mark.parametrize("limit", [None, 0])
def test_it_can_be_switched_off(limit: float | None) -> None:
    assert Watched(limit).vigil.watch is None
    settings = {"model": {"type": "clip"}, "budget": 10, "stall_seconds": limit}
    assert TrialsConfig.model_validate(settings).stall_seconds == limit


def test_a_watch_that_fails_says_so_once_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    looks = 0

    def look(*_: object) -> None:
        nonlocal looks
        looks += 1
        if looks in (1, 2, 4):
            raise ConnectionError("the head is away")

    vigil = Vigil(0.06, pytest.fail)
    monkeypatch.setattr(vigil, "_told", dict)
    monkeypatch.setattr(vigil, "look", look)
    vigil.begin(list)
    while looks < 5:
        time.sleep(0.01)
    vigil.end()
    assert [record.getMessage() for record in caplog.records] == [
        "silent workers are not noticed for now: ConnectionError: the head is away"
    ] * 2


class Store:
    """The key-value store of a head."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}

    def _internal_kv_put(self, name: str, value: str, *, overwrite: bool, namespace: str) -> None:
        assert (overwrite, namespace) == (True, NAMESPACE)
        self.kept[name] = json.loads(value)

    def _internal_kv_del(self, name: str, *, namespace: str) -> None:
        self.kept.pop(name, None)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    store = Store()
    monkeypatch.setattr(pulse, "store", lambda: store)
    monkeypatch.setattr(pulse, "_node", lambda: "node-1")
    return store.kept


def _progress(one: Pulse, kept: dict[str, Any]) -> int:
    """Return by how much the work has gone on since the last time."""
    before = kept[key("w", "t", 0)]["progress"] if kept else 0
    one._write("t")
    return int(kept[key("w", "t", 0)]["progress"]) - before


def test_what_counts_as_going_on(kept: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    share = [0.0]
    monkeypatch.setattr(Pulse, "_share", lambda _: share[0])
    monkeypatch.setattr(Pulse, "_run", lambda _: None)
    one = Pulse("w")
    one.begin("t", "rank 0")
    assert _progress(one, kept) == 1, "it is made ready"
    with one.training():
        assert _progress(one, kept) == 0, "it never said anything, and computes nothing"
        share[0] = 0.5
        assert _progress(one, kept) == 1
        one.beat()
        assert _progress(one, kept) == 1
        assert _progress(one, kept) == 0, "whoever says so at every step has to go on saying it"
        with one.aside():
            assert _progress(one, kept) == 1
        assert _progress(one, kept) == 0
    assert _progress(one, kept) == 1, "it waits at a rung"
    assert Process(**kept[key("w", "t", 0)]["process"]) == Process.of(os.getpid())
    one.end()
    assert kept == {}


def test_a_pulse_is_written_by_itself(kept: dict[str, Any]) -> None:
    one = Pulse("w", 3, pause=0.01)
    one.begin("t", "rank 3")
    while kept.get(key("w", "t", 3), {}).get("beats", 0) < 3:
        time.sleep(0.01)
    one.end()
    silent = Pulse()
    silent.begin("t", "")
    assert silent._thread is None

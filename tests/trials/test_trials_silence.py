"""Workers that are stopped or wait for ever, alone and as one of two: their trials go on."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from trial_world import Arena, Counter, starts

from djsandbox_ray.records import TrialState
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.config import Resources
from djsandbox_ray.trials.family import TrialTask

LIMIT = 6.0
"""Seconds; a busy machine is never that silent, as the worker's thread needs next to nothing."""


class Silent(Counter):
    """In its first attempt it falls silent on its way to the last rung.

    Args:
        how: stopped by a signal, or waiting for what never comes.
        rank: of the worker that does.
    """

    def __init__(self, how: str, rank: int = 0) -> None:
        super().__init__()
        self.how, self.rank = how, rank

    def work(self, task: TrialTask, shared: Path, rung: int) -> None:
        first = len([start for start in starts(shared) if start["rank"] == self.rank]) == 1
        if rung != task.rungs[-1] or not first or task.group.rank != self.rank:
            return
        if self.how == "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        else:
            time.sleep(3600)


def _notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder


@pytest.mark.timeout(600)
@pytest.mark.parametrize("how", ["stopped", "waiting"])
def test_a_silent_worker_is_reported_then_replaced(
    ray_cluster: None, storage: Storage, tmp_path: Path, how: str
) -> None:
    notes = _notes(tmp_path)
    arena = Arena(storage, stall_seconds=LIMIT)
    _, last = arena.run(Silent(how), notes)
    record = last["s-0-0"]
    assert record.state is TrialState.COMPLETED
    assert record.attempts == 2
    assert [start["from"] for start in starts(notes)] == [0, 10], "from its last rung"
    pid = starts(notes)[0]["pid"]
    # On a busy machine others that are only slow may be reported, too.
    silences = [silence for silence in arena.silences if f"(pid {pid})" in silence.place]
    assert [silence.replaced for silence in silences][-2:] == [False, True]
    assert sum(silence.replaced for silence in arena.silences) == 1
    assert LIMIT / 2 <= silences[-2].seconds < silences[-1].seconds


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("rank", [0, 1])
def test_a_stopped_worker_of_two_is_replaced(
    ray_cluster: None, storage: Storage, tmp_path: Path, rank: int
) -> None:
    notes = _notes(tmp_path)
    arena = Arena(storage, stall_seconds=LIMIT, resources=Resources(workers=2))
    _, last = arena.run(Silent("stopped", rank), notes)
    assert last["s-0-0"].state is TrialState.COMPLETED
    assert last["s-0-0"].attempts == 2
    # On a busy machine one that is only slow may be reported, too.
    (replaced,) = [one for one in arena.silences if one.replaced]
    assert replaced.place.startswith(f"rank {rank} on ")


def test_retries_of_the_silent_come_to_an_end(
    ray_cluster: None, storage: Storage, tmp_path: Path
) -> None:
    arena = Arena(storage, stall_seconds=LIMIT, retries=0)
    _, last = arena.run(Silent("stopped"), _notes(tmp_path))
    assert last["s-0-0"].state is TrialState.FAILED
    assert last["s-0-0"].attempts == 1

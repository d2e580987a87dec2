"""Leases: one owner at a time, the dead are found without clocks, and who was replaced ends."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from djsandbox_ray.storage import lease as module
from djsandbox_ray.storage.lease import (
    Held,
    Lease,
    Lost,
    has_ended,
    inherit,
    renewed,
    take,
)
from djsandbox_ray.storage.processes import Process
from djsandbox_ray.storage.store import Storage


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten all times, in proportion."""
    for name, seconds in {"RENEWAL": 0.2, "WATCH": 4, "SETTLE": 0.1, "_LOOK": 0.05}.items():
        monkeypatch.setattr(module, name, seconds)


def _left(storage: Storage, number: int = 1, **changes: Any) -> None:
    """Leave a lease as an owner in another PID namespace leaves it that is killed."""
    process = {"space": "of another system", "pid": 1, "started": 1}
    content = {"owner": "other", "count": 3, "over": False, "who": "process 1 on elsewhere"}
    found = {**content, "since": "2024-05-01T10:00:00Z", "process": process, **changes}
    storage.write_bytes(f"it/{number:06d}.json", json.dumps(found).encode())


def test_one_owner_at_a_time_and_the_next_at_once(place: Storage) -> None:
    with take(place, "it", "the thing") as first:
        with pytest.raises(Held, match=rf"the thing in .* is held by process {os.getpid()} on .*Z"):
            take(place, "it", "the thing")
        assert not has_ended(place, "it")
        assert renewed(place, "none") is None
        assert abs(datetime.now(UTC) - renewed(place, "it")) < timedelta(minutes=5)  # type: ignore[operator]
        first.check()
    assert has_ended(place, "it")
    with take(place, "it", "the thing") as second:
        assert second.number == first.number + 1
        assert place.names("it") == ["000002.json"]


def test_of_many_at_once_one_has_it(place: Storage) -> None:
    def attempt(_: int) -> Lease | None:
        try:
            return take(place, "it", "the thing")
        except Held:
            return None

    with ThreadPoolExecutor(8) as threads:
        found = [lease for lease in threads.map(attempt, range(8)) if lease is not None]
    assert len(found) == 1
    found[0].check()
    found[0].release()


def test_the_dead_are_found_though_their_machine_is_not_ours(place: Storage) -> None:
    _left(place)
    assert not has_ended(place, "it")
    with take(place, "it", "the thing") as lease:
        assert lease.number == 2


def test_what_vanishes_leaves_nothing_and_no_successor_is_harmed(place: Storage) -> None:
    take(place, "it", "the thing").vanish()
    assert place.names("it") == []
    assert not place.is_local or not place.exists("it")
    first = take(place, "it", "the thing")
    first.release()
    with take(place, "it", "the thing") as second:
        first.vanish()
        second.check()
        assert place.names("it") == ["000002.json"]


def test_a_damaged_lease_blocks_nobody_for_ever(storage: Storage) -> None:
    storage.write_bytes("it/000004.json", b"\xff{")
    storage.write_bytes("it/README.md", b"of the user")
    with take(storage, "it", "the thing") as lease:
        assert lease.number == 5
        assert storage.names("it") == ["000005.json", "README.md"]


def test_who_renews_lives_whatever_its_clock_says(place: Storage) -> None:
    ended = threading.Event()

    def renew() -> None:
        count = 0
        while not ended.wait(0.2):
            count += 1
            _left(place, count=count, since="1970-01-01T00:00:00Z")

    _left(place)
    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with pytest.raises(Held, match="process 1 on elsewhere since 1970"):
            take(place, "it", "the thing")
    finally:
        ended.set()
        thread.join()


def test_who_waits_gets_it_when_it_is_given_back(place: Storage) -> None:
    first = take(place, "it", "the thing")
    timer = threading.Timer(1, first.release)
    timer.start()
    with take(place, "it", "the thing", wait=True) as second:
        assert second.number == 2
    timer.join()


def test_an_owner_that_was_replaced_notices_and_writes_nothing_more(place: Storage) -> None:
    told = threading.Event()
    with take(place, "it", "the thing", on_lost=told.set) as lease:
        _left(place, 2)
        assert told.wait(30)
        with pytest.raises(Lost, match="the thing was taken over by process 1 on elsewhere since"):
            lease.check()
    assert json.loads(place.read_bytes("it/000002.json"))["owner"] == "other"


def test_an_owner_that_is_replaced_while_it_renews_does_not_trust_itself(
    place: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It fell asleep between its look, by which it was ours, and its writing."""
    monkeypatch.setattr(module, "RENEWAL", 3600)  # by nobody but the test
    with take(place, "it", "the thing") as lease:
        write = lease._write

        def late() -> None:
            _left(place, 2)
            place.remove("it/000001.json")
            write()

        monkeypatch.setattr(lease, "_write", late)
        lease._renew()
        with pytest.raises(Lost, match="the thing was taken over by process 1 on elsewhere since"):
            lease.check()


def test_who_takes_over_gives_way_to_an_owner_that_has_just_woken_up(
    place: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has renewed after it was looked at, and before it could see who came: it goes on."""
    monkeypatch.setattr(module, "WATCH", 0.1)
    _left(place)
    create, tried = Storage.create, []

    def late(storage: Storage, path: str, data: bytes) -> bool:
        tried.append(path)
        if len(tried) == 1:
            _left(place, count=4)
        return create(storage, path, data)

    monkeypatch.setattr(Storage, "create", late)
    with take(place, "it", "the thing") as lease:
        lease.check()
        assert tried == ["it/000002.json"] * 2, "it was watched again, and is dead after all"
        assert place.names("it") == ["000002.json"]


def test_who_takes_over_goes_on_where_the_owner_let_go_meanwhile(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WATCH", 0.1)
    _left(storage)
    create, tried = Storage.create, []

    def late(storage: Storage, path: str, data: bytes) -> bool:
        tried.append(path)
        _left(storage, over=True)
        return create(storage, path, data)

    monkeypatch.setattr(Storage, "create", late)
    with take(storage, "it", "the thing"):
        assert tried == ["it/000002.json"]


def test_an_owner_whose_folder_was_removed_ends(place: Storage) -> None:
    with take(place, "it", "the thing") as lease:
        place.remove("it")
        while lease.lost is None:
            time.sleep(0.05)
        with pytest.raises(Lost, match="/it was removed while it was held"):
            lease.check()


def test_a_storage_that_is_away_for_a_while_loses_nothing(
    place: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with take(place, "it", "the thing") as lease:
        with monkeypatch.context() as patched:
            patched.setattr(Storage, "names", lambda *_: 1 / 0)
            time.sleep(1)
        lease.check()
        with pytest.raises(Held):
            take(place, "it", "the thing")


_HOLD = (
    "import sys, time\nfrom djsandbox_ray.storage import lease\n"
    "from djsandbox_ray.storage.store import Storage\n"
    "lease.RENEWAL = .2\n"
    "held = lease.take(Storage(sys.argv[1]), 'it', 'the thing')\n"
    "print(held.owner, flush=True)\n"
    "while held.lost is None: time.sleep(.05)\nprint(held.lost, flush=True)\n"
)


def _holder(storage: Storage) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _HOLD, storage.url], stdout=subprocess.PIPE, text=True
    )


def test_a_killed_process_of_this_machine_is_known_at_once(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _holder(storage) as other:
        assert other.stdout is not None
        owner = other.stdout.readline().strip()
        with pytest.raises(Held, match=f"process {other.pid}"):
            take(storage, "it", "the thing")
        other.kill()
        other.wait()
        monkeypatch.setattr(module, "WATCH", 3600)
        assert inherit(storage, "it", "somebody else", "the thing") is None
        with inherit(storage, "it", owner, "the thing") as heir:  # type: ignore[union-attr]
            assert heir.number == 2
            assert inherit(storage, "it", owner, "the thing") is None


def test_a_process_that_sleeps_is_replaced_and_ends_when_it_wakes_up(storage: Storage) -> None:
    with _holder(storage) as other:
        assert other.stdout is not None
        other.stdout.readline()
        os.kill(other.pid, signal.SIGSTOP)
        with take(storage, "it", "the thing") as lease:
            assert lease.number == 2
            os.kill(other.pid, signal.SIGCONT)
            said = other.stdout.readline()
            assert f"the thing was taken over by process {os.getpid()}" in said
            lease.check()


def test_processes_are_told_apart() -> None:
    this = Process.this()
    assert this == Process.of(os.getpid())
    assert not this.is_gone
    assert Process(this.space, this.pid, this.started - 1).is_gone, "its number was given again"
    assert not Process("another system", this.pid, 1).is_gone, "nothing is known of it"
    with subprocess.Popen(["sleep", "600"]) as other:
        found = Process.of(other.pid)
        assert found is not None
        assert not found.is_gone
        other.kill()
        os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
        assert found.is_gone, "though nobody has waited for it yet"
    assert Process.of(other.pid) is None


def _failing(number: int) -> Callable[..., Any]:
    def call(*_: object, **__: object) -> Any:
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EIO])
def test_a_process_that_cannot_be_looked_up_is_not_gone(
    monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    this = Process.this()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", _failing(number))
        assert not this.is_gone
        assert Process.of(this.pid) is None
        unknown = Process.this()
    assert unknown.pid == this.pid
    assert not unknown.is_gone, "not even to those who can look again"


def test_a_process_of_another_user_that_is_hidden_is_not_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With ``hidepid=2`` its number is not in ``/proc``, as if there were none."""
    this = Process.this()
    other = replace(this, pid=this.pid + 1)
    monkeypatch.setattr(Path, "read_text", _failing(errno.ENOENT))
    assert not this.is_gone, "a signal would reach it"
    monkeypatch.setattr(os, "kill", _failing(errno.EPERM))
    assert not other.is_gone, "a signal is refused"
    monkeypatch.setattr(os, "kill", _failing(errno.ESRCH))
    assert other.is_gone

"""Writes in the background: in order, none lost, errors raised where somebody sees them."""

from __future__ import annotations

import threading
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from djsandbox_ray.storage.backlog import Backlog


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9)), max_size=60))
def test_of_every_key_the_newest_is_done_last(puts: list[tuple[str, int]]) -> None:
    done: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    backlog = Backlog("test")
    for place, (key, _) in enumerate(puts):
        backlog.put(key, partial(done[key].append, place))
    backlog.flush()
    for key, places in done.items():
        assert places == sorted(places), "of one key, one after the other"
        asked = [place for place, (name, _) in enumerate(puts) if name == key]
        assert places[-1:] == asked[-1:]


def test_what_waits_is_replaced_and_what_is_being_done_is_not() -> None:
    backlog, done, begun, go = Backlog("test"), [], threading.Event(), threading.Event()

    def first() -> None:
        begun.set()
        go.wait(60)
        done.append(1)

    backlog.put("a", first)
    assert begun.wait(60)
    for number in (2, 3):
        backlog.put("a", partial(done.append, number))
    backlog.put("b", go.set)  # another key does not wait for it
    backlog.flush()
    assert done == [1, 3]


def test_an_error_is_raised_once_and_for_all_and_the_rest_is_done() -> None:
    done: list[int] = []

    both = threading.Event()

    def fail() -> None:
        both.wait()
        raise OSError("the disk is full")

    backlog = Backlog("test")
    backlog.put("a", fail)
    backlog.put("b", partial(done.append, 1))
    both.set()
    with pytest.raises(OSError, match="the disk is full"):
        backlog.flush()
    assert done == [1]
    with pytest.raises(OSError, match="the disk is full"):
        backlog.put("c", partial(done.append, 2))


def test_a_block_ends_when_all_is_done() -> None:
    done: list[int] = []
    with Backlog("test") as backlog:
        for number in range(100):
            backlog.put(str(number), partial(done.append, number))
    assert sorted(done) == list(range(100))


def test_an_error_of_the_block_is_not_covered_up() -> None:
    def fail() -> None:
        raise OSError("the disk is full")

    def end_badly() -> None:
        with Backlog("test") as backlog:
            backlog.put("a", fail)
            raise KeyError("own")

    with pytest.raises(KeyError, match="own"):
        end_badly()
    with pytest.raises(OSError, match="the disk is full"), Backlog("test") as backlog:
        backlog.put("a", fail)


def test_who_hands_in_too_much_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("djsandbox_ray.storage.backlog._MOST", 2)
    monkeypatch.setattr("djsandbox_ray.storage.backlog._THREADS", 1)
    go, handed_in, backlog = threading.Event(), [], Backlog("test")
    backlog.put("first", partial(go.wait, 60))

    def hand_in() -> None:
        for number in range(4):
            backlog.put(str(number), lambda: None)
            handed_in.append(number)

    thread = threading.Thread(target=hand_in)
    thread.start()
    thread.join(0.2)
    assert len(handed_in) <= 3
    go.set()
    thread.join(60)
    backlog.flush()
    assert handed_in == [0, 1, 2, 3]


def test_a_wait_may_be_bounded() -> None:
    go, backlog = threading.Event(), Backlog("test")
    backlog.put("a", partial(go.wait, 60))
    backlog.flush(within=0.01)
    go.set()
    backlog.flush()

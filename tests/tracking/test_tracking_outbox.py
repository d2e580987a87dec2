from __future__ import annotations

import logging
import threading
import time

import pytest

from djsandbox_ray.tracking.outbox import Outbox, Refused

PATIENCE = 300.0


def test_sends_everything_in_order():
    seen: list[int] = []
    outbox = Outbox("receiver")
    for number in range(50):
        outbox.put(str(number), lambda number=number: seen.append(number))
    assert outbox.close(PATIENCE) == 0
    assert seen == list(range(50))


def test_a_bound_in_all_holds_though_things_are_sent():
    outbox = Outbox("receiver")
    for number in range(1000):
        outbox.put(str(number), lambda: time.sleep(0.01))
    assert 0 < outbox.close(PATIENCE, within=0.1) < 1000


def test_put_returns_while_a_sending_blocks_and_only_the_newest_of_a_key_is_sent():
    seen: list[object] = []
    blocked = threading.Event()
    outbox = Outbox("receiver")
    outbox.put("first", lambda: (blocked.wait(PATIENCE), seen.append("first"))[1])
    for number in range(100):
        outbox.put("trial", lambda number=number: seen.append(number))
    assert seen == []
    blocked.set()
    assert outbox.close(PATIENCE) == 0
    assert seen == ["first", 99]


def test_a_newer_sending_that_comes_during_the_older_one_is_not_lost():
    seen: list[str] = []
    begun, go_on = threading.Event(), threading.Event()
    outbox = Outbox("receiver")

    def old() -> None:
        begun.set()
        go_on.wait(PATIENCE)
        seen.append("old")

    outbox.put("trial", old)
    assert begun.wait(PATIENCE)
    outbox.put("trial", lambda: seen.append("new"))
    go_on.set()
    assert outbox.close(PATIENCE) == 0
    assert seen == ["old", "new"]


def test_a_failing_sending_is_tried_again_and_does_not_block_the_others(caplog):
    seen: list[str] = []
    attempts = iter([ConnectionError("down"), ConnectionError("still down")])

    def flaky() -> None:
        error = next(attempts, None)
        if error:
            raise error
        seen.append("flaky")

    outbox = Outbox("receiver")
    with caplog.at_level(logging.WARNING):
        outbox.put("flaky", flaky)
        outbox.put("good", lambda: seen.append("good"))
        assert outbox.close(PATIENCE) == 0
    assert seen == ["good", "flaky"]
    assert "down" in caplog.text
    assert "receiver" in caplog.text


def test_what_is_refused_is_dropped_counted_and_said(caplog):
    seen: list[str] = []

    def refused() -> None:
        raise Refused("not a name")

    outbox = Outbox("receiver")
    with caplog.at_level(logging.WARNING):
        outbox.put("bad", refused)
        outbox.put("good", lambda: seen.append("good"))
        assert outbox.close(PATIENCE) == 1
    assert seen == ["good"]
    assert "refused bad: not a name" in caplog.text


def test_close_gives_up_and_says_how_much_waits():
    def down() -> None:
        raise ConnectionError("down")

    outbox = Outbox("receiver")
    for number in range(3):
        outbox.put(str(number), down)
    assert outbox.close(0.1) == 3


def test_nothing_can_be_put_after_close():
    outbox = Outbox("receiver")
    outbox.close(0.1)
    with pytest.raises(RuntimeError, match="closed"):
        outbox.put("late", lambda: None)

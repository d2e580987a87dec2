"""Answers that were paid for: none is lost, whoever else is at work on the same operator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from djsandbox_ray.stats.answers import Answers, Reply
from djsandbox_ray.storage.store import Storage

DIGESTS = ["a" * 32, "b" * 32, "c" * 32]


def test_a_run_that_begins_writes_over_no_answer_of_one_that_lives(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch becomes one file while another run brings together what lies there singly."""
    living = Answers(storage, "op")
    for digest in DIGESTS[:2]:
        living.put(digest, Reply({"score": 1.0}, 10))
    write = Storage.write_sealed

    def goes_on(self: Storage, path: str, value: Mapping[str, Any]) -> None:
        monkeypatch.undo()
        living.put(DIGESTS[2], Reply({"score": 1.0}, 10))
        living.close_batch()
        write(self, path, value)

    monkeypatch.setattr(Storage, "write_sealed", goes_on)
    Answers(storage, "op")
    kept = Answers(storage, "op")
    assert [one for one in DIGESTS if kept.get(one) is None] == []
    assert kept.tokens == 30, "what lies in two files was paid for once"


def test_what_is_answered_while_others_bring_it_together_is_kept(storage: Storage) -> None:
    living = Answers(storage, "op")
    for count, digest in enumerate(DIGESTS, 1):
        living.put(digest, Reply({"score": 1.0}, 10))
        begun = Answers(storage, "op")
        assert (len(begun), begun.tokens) == (count, 10 * count)
        assert not storage.names("answers/op/open")
    assert len(Answers(storage, "op")) == 3, "the run was killed before its batch was through"
    living.close_batch()
    kept = Answers(storage, "op")
    assert (len(kept), kept.tokens) == (3, 30)


def test_the_same_sample_in_two_batches_was_paid_for_twice(storage: Storage) -> None:
    answers = Answers(storage, "op")
    for reply in (Reply({}, 10, "unreadable"), Reply({"score": 1.0}, 10)):
        answers.put(DIGESTS[0], reply)
        answers.close_batch()
    kept = Answers(storage, "op")
    assert kept.tokens == 20
    assert (found := kept.get(DIGESTS[0])) is not None
    assert found.values == {"score": 1.0}

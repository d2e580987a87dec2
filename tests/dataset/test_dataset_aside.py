from __future__ import annotations

import random

import pytest

from djsandbox_ray.dataset import prepare as aside
from djsandbox_ray.dataset.prepare import Aside


def test_what_goes_in_comes_out_in_order_and_files_are_given_up(monkeypatch) -> None:
    monkeypatch.setattr(aside, "FILE_BYTES", 100)
    chance = random.Random(0)
    items = [chance.randbytes(chance.randint(0, 40)) for _ in range(300)]
    with Aside() as queue:
        taken, most = [], 0
        for number, item in enumerate(items):
            queue.append(item)
            most = max(most, len(queue._files))
            if number >= 20:
                taken.append(queue.popleft())
        taken += [queue.popleft() for _ in range(20)]
        with pytest.raises(IndexError):
            queue.popleft()
    assert taken == items
    assert 1 < most < 10


def test_nothing_is_left_open(monkeypatch) -> None:
    monkeypatch.setattr(aside, "FILE_BYTES", 3)
    with Aside() as queue:
        queue.append(b"one")
        queue.append(b"two")
    assert [file.closed for file in queue._files] == [True, True]

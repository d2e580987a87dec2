"""A family whose trials fail with secrets in their messages, as careless outside code may."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from reader import Reader

from djsandbox_ray.records import RungReport
from djsandbox_ray.trials.family import TrialTask


class Careless(Reader):
    """Fails on some draws."""

    def train(self, task: TrialTask, shared: Any) -> Iterator[RungReport]:
        if task.seed == 1 and int(task.rows[0]) % 4 == 0:
            secret = os.environ["AWS_SECRET_ACCESS_KEY"]
            address = (
                "http://someone:planted-in-an-error@127.0.0.1/x?token=planted-token-in-an-error"
            )
            raise RuntimeError(f"cannot read {address}\nwith {secret}")
        yield from super().train(task, shared)

"""What an actor tells of an error: the driver raises the same, in the same words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NoReturn

import pytest

from djsandbox_ray.errors import BadInput, MissingExtra, SandboxError, StorageFailed
from djsandbox_ray.nodes import actors
from djsandbox_ray.nodes.actors import PassWorker
from djsandbox_ray.stats.worker import OperatorTask, StatisticsWorker, run_pass

JOB = OperatorTask("/nowhere", "samples.lance", (), (), "", batch_size=4, threads=1, gpu=False)
TASK = {"start": 0, "stop": 8, "operators": [0]}


class Pipeline:
    """What an actor reports, without Ray."""

    def __init__(
        self, tasks: Sequence[dict[str, Any]], worker: type[PassWorker], job: Any, *_: object
    ) -> None:
        self._tasks, self._worker = tasks, worker(job)

    def iter_rows(self) -> list[dict[str, str]]:
        reports = self._worker({"task": [json.dumps(task) for task in self._tasks]})["report"]
        return [{"report": report} for report in reports]


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (SandboxError("a GPU fails"), SandboxError),
        (StorageFailed("the disk is full"), StorageFailed),
        (BadInput("no such model"), BadInput),
        (MissingExtra("spacy", "spacy"), BadInput),
        (ImportError("no module"), BadInput),
    ],
    ids=lambda value: getattr(value, "__name__", None) or type(value).__name__,
)
def test_an_error_stays_what_it_is(
    monkeypatch: pytest.MonkeyPatch, error: Exception, raised: type[SandboxError]
) -> None:
    def fail(*_: object) -> NoReturn:
        raise error

    monkeypatch.setattr(StatisticsWorker, "_compute", fail)
    monkeypatch.setattr(actors, "connect", lambda: None)
    monkeypatch.setattr(actors, "_has_free", lambda *_: True)
    monkeypatch.setattr(actors, "_stream", Pipeline)
    with pytest.raises(SandboxError) as caught:
        run_pass(
            [TASK], JOB, group=[{"CPU": 1}], fill=False, await_room=lambda *_: None, progress=None
        )
    assert type(caught.value) is raised
    assert str(caught.value) == str(error)


@pytest.mark.parametrize(
    ("tasks", "share", "fill", "pool"),
    [
        (1, 8, True, 1),
        (8, 8, True, 1),
        (9, 8, True, 2),
        (1000, 8, True, 4),  # no more have room
        (3, 1, True, 3),
        (9, 8, False, 2),  # as many as were asked for
        (1, 8, False, 1),
    ],
)
def test_there_are_as_many_actors_as_the_ranges_are_worth(
    monkeypatch: pytest.MonkeyPatch, tasks: int, share: int, fill: bool, pool: int
) -> None:
    pools: list[int] = []

    def stream(some: Any, worker: type[PassWorker], job: Any, size: int, *_: object) -> Pipeline:
        pools.append(size)
        return Pipeline([], worker, job)

    monkeypatch.setattr(actors, "connect", lambda: None)
    monkeypatch.setattr(actors, "_has_free", lambda *_: True)
    monkeypatch.setattr(actors, "_room_for", lambda _: 4)
    monkeypatch.setattr(actors, "_stream", stream)
    run_pass(
        [TASK] * tasks,
        JOB,
        group=[{"CPU": 1}] * 2,
        fill=fill,
        share=share,
        await_room=lambda *_: None,
        progress=None,
    )
    assert pools == [pool]

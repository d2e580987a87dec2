"""Runs share a scorer: one of them trains it, and where it is whole nobody does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from planted_world import context_of

from djsandbox_ray.hooks import scorer
from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.hooks.scorer import TrainScorer
from djsandbox_ray.records import Dataset
from djsandbox_ray.storage import lease
from djsandbox_ray.storage.store import Storage

SECTION = {"dataset": {"type": "shapes", "samples": 100}, "budget": 100}
TRUSTED = Dataset("dataset-trusted", "datasets/dataset-trusted/samples.lance", 100, 0)


class Here:
    """What the hook uses of Ray; a task is done at once, in this thread, unless it is delayed."""

    looks = 0
    """How often a task is not yet done."""

    def remote(self, **_: object) -> Callable[..., _Task]:
        return _Task

    def wait(self, tasks: list[Any], *, timeout: float) -> tuple[list[Any], list[Any]]:
        self.looks -= 1
        return ([], tasks) if self.looks >= 0 else (tasks, [])

    def get(self, done: Any) -> Any:
        return done


class _Task:
    def __init__(self, function: Callable[..., Any]) -> None:
        self.remote = function

    def options(self, **_: object) -> _Task:
        return self


class Training:
    """Stands for the training; counts, and says when it begins."""

    def __init__(self) -> None:
        self.times = 0
        self.begun: Callable[[], object] = lambda: None

    def __call__(self, uri: str, rows: int, config: Any, arch: Any, folder: Path, _: Any) -> float:
        self.times += 1
        self.begun()
        (folder / "model.safetensors").write_bytes(b"weights")
        return 0.5


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> Training:
    made = Training()
    monkeypatch.setattr(scorer, "train_scorer", made)
    monkeypatch.setattr(scorer, "ray", Here())
    monkeypatch.setattr(scorer, "ingest", lambda *_, **__: TRUSTED)
    monkeypatch.setattr(Context, "await_room", lambda *_: None)
    monkeypatch.setattr(lease, "_LOOK", 0.01)
    return made


def hook(storage: Storage) -> TrainScorer:
    context, _ = context_of(storage, scorer=SECTION)
    return TrainScorer(context)


def test_what_is_whole_is_not_trained_again(storage: Storage, training: Training) -> None:
    first = hook(storage).run()
    assert hook(storage).run() == first
    assert training.times == 1
    assert hook(storage).broken(first) == {}
    storage.write_bytes(f"{first.path}/model.safetensors", b"")
    assert hook(storage).run() == first
    assert training.times == 2
    assert hook(storage).broken(first) == {}


def test_a_second_run_waits_and_takes_the_model_of_the_first(
    storage: Storage, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work, waited_for = threading.Event(), threading.Event()
    said: list[str] = []

    def begun() -> None:
        at_work.set()
        assert waited_for.wait(60), "nobody waits for who trains"

    def say(line: str) -> None:
        said.append(line)
        waited_for.set()

    training.begun = begun
    with ThreadPoolExecutor() as threads:
        first = threads.submit(hook(storage).run)
        assert at_work.wait(60)
        training.begun = waited_for.set
        second = hook(storage)
        monkeypatch.setattr(second, "note", say)
        assert second.run() == first.result()
    assert training.times == 1
    assert second.spent.samples == 0
    (line,) = said
    assert line.startswith("scorer: the scorer scorer-")
    assert line.endswith("and waiting for it")


def test_who_was_taken_for_dead_trains_no_further(
    storage: Storage, training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(_: lease.Lease) -> None:
        raise lease.Lost("taken over")

    monkeypatch.setattr(Here, "looks", 1)
    monkeypatch.setattr(lease.Lease, "check", check)
    with pytest.raises(lease.Lost):
        hook(storage).run()

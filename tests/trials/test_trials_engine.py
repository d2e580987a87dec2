"""Real trials under Ray Tune, with families of our own that misbehave."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from math import nan
from pathlib import Path
from typing import Any

import pytest
import ray
from trial_world import Arena, Counter, World, starts

from djsandbox_ray.errors import BadInput, SandboxError, StorageFailed
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.retrieval import RetrievalConfig
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.records import RungReport, TrialRecord, TrialState
from djsandbox_ray.settings.sections import Component
from djsandbox_ray.storage.backlog import Backlog
from djsandbox_ray.storage.own import MARKER, marker
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials import engine
from djsandbox_ray.trials.checkpoint import ALONE
from djsandbox_ray.trials.clip.family import Clip, ClipConfig
from djsandbox_ray.trials.config import Resources
from djsandbox_ray.trials.engine import _Keeper, clear_left, run_trials
from djsandbox_ray.trials.family import Diverged, ModelFamily, TrialTask
from djsandbox_ray.trials.reporter import merged
from djsandbox_ray.trials.stopping.stopping import Decision, NoStopping, StoppingConfig
from djsandbox_ray.trials.worker import TrialWorker

BUDGET = 512


class Moody(ModelFamily):
    """Says which process it ran in; fails as the seed tells it to."""

    def train(self, task: TrialTask, shared: Any) -> Iterator[RungReport]:
        for samples in task.rungs:
            last = samples == task.rungs[-1]
            if last and task.seed == 1:
                raise Diverged("the training loss is nan after 7 samples")
            if last and task.seed == 2:
                raise RuntimeError("first line\nlast line")
            if last and task.seed == 3:
                os._exit(1)
            if last and task.seed == 4:
                return
            if task.seed == 5:
                samples += 1
            loss = nan if task.seed == 6 else 1.0
            metrics = {"process": float(os.getpid()), "rows": float(task.rows.sum())}
            yield RungReport(samples, loss, metrics, 0.1, 0.0, time.time_ns() // 1_000_000)


class Mortal(Counter):
    """Fails twice on its way to the last rung: raises, then takes its process with it."""

    def work(self, task: TrialTask, shared: Path, rung: int) -> None:
        if rung == task.rungs[-1]:
            attempts = len(starts(shared))
            if attempts == 1:
                raise RuntimeError("a first mishap")
            if attempts == 2:
                os._exit(1)


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    folder.mkdir()
    return folder


@pytest.fixture
def arena(ray_cluster: None, storage: Storage) -> Arena:
    return Arena(storage)


def _progress(seen: list[TrialRecord], trial: str) -> list[tuple[str, list[int]]]:
    return [
        (str(record.state), [report.samples for report in record.reports])
        for record in seen
        if record.spec.id == trial
    ]


def test_one_bad_trial_does_not_take_others_with_it(arena: Arena) -> None:
    arena = replace(arena, seeds=range(9), retries=0)
    seen, last = arena.run(Moody(Component(type="moody")), None)
    last = {name.removeprefix("s-0-"): record for name, record in last.items()}
    failed = {name for name, record in last.items() if record.state is TrialState.FAILED}
    assert failed == {"1", "2", "3", "4", "5", "6"}
    assert {last[name].state for name in last if name not in failed} == {TrialState.COMPLETED}
    assert {name for name in failed if last[name].diverged} == {"1", "6"}
    reasons = {name: record.error or "" for name, record in last.items()}
    assert reasons["1"] == "Diverged: the training loss is nan after 7 samples"
    assert reasons["2"] == "RuntimeError: first line"
    assert "died" in reasons["3"], "a process that died must leave a reason"
    assert "ended before the budget" in reasons["4"]
    assert "21 samples were seen, more than the budget 20" in reasons["5"]
    assert "not finite after 10 samples: loss" in reasons["6"]
    assert "last line" in (last["2"].traceback or "")
    assert last["1"].final is None
    assert _progress(seen, "s-0-7") == [
        ("RUNNING", []),
        ("RUNNING", [10]),
        ("RUNNING", [10, 20]),
        ("COMPLETED", [10, 20]),
    ]
    assert arena.storage.names("tune") == [], "Tune's own files are removed"


@pytest.mark.parametrize("checkpoints", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_crashed_trial_goes_on_from_its_last_rung(
    arena: Arena, notes: Path, checkpoints: bool
) -> None:
    record = arena.run(Mortal(checkpoints=checkpoints), notes)[1]["s-0-0"]
    assert record.state is TrialState.COMPLETED
    assert [report.samples for report in record.reports] == [10, 20], "nothing stands twice"
    assert record.attempts == 3
    begun = [start["from"] for start in starts(notes)]
    assert begun == ([0, 10, 10] if checkpoints else [0, 0, 0])
    assert len({start["pid"] for start in starts(notes)}) == 3
    assert not arena.storage.exists("trials/s-0-0"), "checkpoints of completed trials are removed"


def test_a_diverged_trial_is_tried_again_only_where_that_is_asked_for(arena: Arena) -> None:
    arena = replace(arena, seeds=(1,), retries=1, retry_diverged=True)
    record = arena.run(Moody(Component(type="moody")), None)[1]["s-0-1"]
    assert (record.state, record.diverged, record.attempts) == (TrialState.FAILED, True, 2)
    assert record.error == "Diverged: the training loss is nan after 7 samples"


def test_retries_come_to_an_end(arena: Arena, notes: Path) -> None:
    record = replace(arena, retries=1).run(Mortal(), notes)[1]["s-0-0"]
    assert record.state is TrialState.FAILED
    assert record.attempts == 2
    assert not record.diverged
    assert [report.samples for report in record.reports] == [10]
    assert arena.storage.exists(f"trials/s-0-0/{ALONE}/10/done.json"), (
        "another run may go on from there"
    )


def test_a_later_run_goes_on_from_the_checkpoint(arena: Arena, notes: Path) -> None:
    first = replace(arena, retries=0)
    known = first.run(Mortal(), notes)[1]
    known = replace(first, retries=0).run(Mortal(), notes, known=known)[1]
    # The driver died between the checkpoint and the record of it.
    lost = {key: replace(record, reports=()) for key, record in known.items()}
    seen, last = first.run(Counter(), notes, known=lost)
    assert [start["from"] for start in starts(notes)] == [0, 10, 10]
    assert _progress(seen, "s-0-0")[-1] == ("COMPLETED", [10, 20])
    assert last["s-0-0"].attempts == known["s-0-0"].attempts + 1
    assert last["s-0-0"].held_seconds > known["s-0-0"].held_seconds > 0


def test_processes_are_reused_and_seeds_draw_their_own_rows(arena: Arena) -> None:
    arena = replace(arena, seeds=range(10, 16), rungs=(10,))
    last = arena.run(Moody(Component(type="moody")), None)[1]
    metrics = [record.reports[-1].metrics for record in last.values()]
    assert len({entry["process"] for entry in metrics}) <= 2
    assert len({entry["rows"] for entry in metrics}) == 6


def test_pools_given_up_earlier_are_not_trained_again(arena: Arena, notes: Path) -> None:
    arena = replace(arena, buckets=2, decisions=[Decision(10, ("s/0",), (), {}, 1.0)])
    last = arena.run(Counter(), notes)[1]
    assert last["s-0-0"].state is TrialState.STOPPED
    assert last["s-1-0"].state is TrialState.COMPLETED
    assert len(starts(notes)) == 1


def test_checkpoints_that_a_killed_driver_left_are_removed(arena: Arena, notes: Path) -> None:
    arena = replace(arena, buckets=2)
    spec = arena.specs[0]
    report = RungReport(20, 1.0, {}, 1.0, 0.0, 1)
    known = {spec.id: TrialRecord(spec, TrialState.COMPLETED, (report,))}
    arena.storage.write_json(f"trials/{spec.id}/{ALONE}/20/done.json", {})
    arena.run(Counter(), notes, known=known)
    assert not arena.storage.exists(f"trials/{spec.id}")


def test_a_study_with_trials_that_nobody_runs_is_refused(arena: Arena) -> None:
    arena = replace(arena, buckets=2)
    choice = NoStopping(StoppingConfig(type="none"))
    shared = arena.shared(Counter(), None)
    with pytest.raises(ValueError, match="pool 's/1', seed 0\\) is not settled, nor run"):
        run_trials(arena.specs[:1], shared, choice, arena.competition(), print, "tune")


def test_what_the_caller_raises_ends_the_run_as_it_is(arena: Arena, notes: Path) -> None:
    def refuse(record: TrialRecord) -> None:
        if record.reports:
            raise SandboxError("the disk is full")

    choice = NoStopping(StoppingConfig(type="none"))
    shared = arena.shared(Counter(), notes)
    with pytest.raises(SandboxError, match=r"^the disk is full$"):
        run_trials(arena.specs, shared, choice, arena.competition(), refuse, "tune")


@pytest.mark.slow
def test_clip_trials_repeat_exactly_and_report_rungs(
    ray_cluster: None, world: World, storage: Storage
) -> None:
    family = Clip(ClipConfig(type="clip", batch_size=64, learning_rate=1e-3))
    prepared = world.prepared(family)
    split = EvaluationSet.read(world.evaluation.id, world.uri(world.evaluation), {})
    suite = Suite([RetrievalConfig(type="retrieval", k=[5])], [split])
    arena = Arena(storage, seeds=(0, 1), rungs=(BUDGET // 2, BUDGET))

    def results() -> dict[str, list[tuple[int, float, dict[str, float]]]]:
        last: dict[str, TrialRecord] = {}
        run_trials(
            arena.specs,
            replace(arena.shared(family, prepared), suite=suite),
            NoStopping(StoppingConfig(type="none")),
            arena.competition(),
            lambda record: last.update({record.spec.id: record}),
            "tune",
        )
        return {
            name: [(report.samples, report.loss, report.metrics) for report in record.reports]
            for name, record in last.items()
        }

    first = results()
    assert first == results()
    assert [report[0] for report in first["s-0-0"]] == [256, 512]
    names = {"retrieval/image_to_text_r5", "retrieval/text_to_image_r5"}
    assert set(first["s-0-0"][0][2]) == names
    assert first["s-0-0"] != first["s-0-1"]


@pytest.mark.parametrize("resources", [{"gpus_per_worker": 0.5}, {"cpus_per_worker": 64}])
def test_what_no_node_has_is_refused_before_anything_starts(
    arena: Arena, resources: dict[str, float]
) -> None:
    if resources.get("gpus_per_worker") and ray.cluster_resources().get("GPU"):
        pytest.skip("this machine has the GPU that the test asks for in vain")
    with pytest.raises(BadInput, match=r"trials\.resources asks for"):
        replace(arena, resources=Resources(**resources)).run(Counter(), None)


def test_what_was_reported_is_not_trained_again_before_a_decision(
    storage: Storage, notes: Path
) -> None:
    """Without its checkpoint a trial that was given up waits with the reports of its record."""
    arena = Arena(storage)
    (spec,) = arena.specs
    report = RungReport(10, 1.0, {"quality": 10.0}, 1.0, 0.0, 1)
    worker = TrialWorker(arena.shared(Counter(checkpoints=False), notes))
    trial = {**asdict(spec), "draw": spec.draw_hash, "reports": [asdict(report)]}
    worker.begin(trial, 0)
    assert worker.step() == {"report": asdict(report), "done": False}
    assert not starts(notes)
    assert worker.step()["report"]["samples"] == 20, "behind it, from the begin"
    assert [start["from"] for start in starts(notes)] == [0]


def test_rows_that_are_not_those_of_the_plan_are_refused(storage: Storage, notes: Path) -> None:
    arena = Arena(storage)
    worker = TrialWorker(arena.shared(Counter(), notes))
    trial = {**asdict(arena.specs[0]), "draw": "another", "reports": []}
    with pytest.raises(BadInput, match="are not those that trial s-0-0 was planned with"):
        worker.begin(trial, 0)


def _keeper(
    arena: Arena, save: Callable[[TrialRecord], None], backlog: Backlog, **changes: Any
) -> _Keeper:
    shared = replace(arena.shared(Counter(), None), **changes)
    return _Keeper(shared, arena.competition(), lambda record: None, save, backlog)


def test_what_a_decision_is_made_of_is_saved_before_it(storage: Storage) -> None:
    arena, done = Arena(storage, buckets=5), []
    arena.decisions = Said(done)  # type: ignore[assignment]

    def save(record: TrialRecord) -> None:
        time.sleep(0.01)
        done.append(record.spec.id)

    with Backlog("test") as backlog:
        keeper = _keeper(arena, save, backlog)
        for spec in arena.specs:
            keeper.keep(TrialRecord(spec, TrialState.RUNNING))
        keeper.decide(Decision(10, ("s/0",), (), {}, 1.0))
    assert sorted(done[:-1]) == sorted(spec.id for spec in arena.specs)
    assert done[-1] == "decided"


class Said(list[Any]):
    """Says that a decision was kept."""

    def __init__(self, done: list[str]) -> None:
        super().__init__()
        self._done = done

    def append(self, decision: Decision) -> None:
        self._done.append("decided")


@pytest.mark.parametrize(
    ("state", "decided", "changes", "stays"),
    [
        (TrialState.COMPLETED, False, {}, False),
        (TrialState.STOPPED, True, {}, False),
        (TrialState.STOPPED, True, {"keep_stopped": True}, True),
        (TrialState.STOPPED, False, {}, True),
        (TrialState.FAILED, False, {}, True),
        (TrialState.RUNNING, False, {}, True),
    ],
)
def test_a_checkpoint_goes_when_nobody_needs_it(
    storage: Storage, state: TrialState, decided: bool, changes: dict[str, Any], stays: bool
) -> None:
    arena = Arena(storage)
    (spec,) = arena.specs
    storage.write_json(f"trials/{spec.id}/{ALONE}/10/done.json", {})
    there: list[bool] = []

    def save(record: TrialRecord) -> None:
        there.append(storage.exists(f"trials/{spec.id}/{ALONE}/10"))

    with Backlog("test") as backlog:
        keeper = _keeper(arena, save, backlog, **changes)
        if decided:
            keeper.decide(Decision(10, ("s/0",), (), {}, 1.0))
        keeper.keep(TrialRecord(spec, state))
        backlog.flush()
        assert storage.exists(f"trials/{spec.id}") is stays
        keeper.conclude()
    assert there[0], "not before the record is there"
    kept = stays and (state is not TrialState.STOPPED or bool(changes))
    assert storage.exists(f"trials/{spec.id}") is kept, "at the end, too"


def test_while_a_crashed_trial_is_to_be_tried_again_stopped_ones_may_go_on(
    storage: Storage,
) -> None:
    arena = Arena(storage, buckets=2)
    first, second = arena.specs
    storage.write_json(f"trials/{first.id}/{ALONE}/10/done.json", {})
    with Backlog("test") as backlog:
        keeper = _keeper(arena, lambda record: None, backlog)
        keeper.keep(TrialRecord(first, TrialState.STOPPED))
        keeper.keep(TrialRecord(second, TrialState.FAILED))
        keeper.conclude()
    assert storage.exists(f"trials/{first.id}/{ALONE}/10")


def test_reports_are_merged_by_samples() -> None:
    first, second = (RungReport(n, 1.0, {}, 1.0, 0.0, n) for n in (10, 20))
    assert merged((), first) == (first,)
    assert merged((first, second), first) == (first, second), "the same again changes nothing"
    other = replace(first, loss=2.0)
    assert merged((first, second), other) == (other,), "what was built on it is no longer true"
    assert merged((first,), second) == (first, second)


def test_only_what_killed_drivers_left_of_tune_is_removed(storage: Storage) -> None:
    for name in ("tune-left", "tune-copied"):
        ours = marker("files of Tune", "runs/r/tune-left").encode()
        storage.write_bytes(f"runs/r/{name}/{MARKER}", ours)
        storage.write_bytes(f"runs/r/{name}/trials/x", b"")
    foreign = ("tune-of-the-user/precious", "tune/precious", f"tune-else/{MARKER}")
    for name in foreign:
        storage.write_bytes(f"runs/r/{name}", b"{}")
    Path(storage.uri("runs/r/tune-link")).symlink_to(storage.uri("runs/r/tune-of-the-user"))
    clear_left(storage, "runs/r")
    assert not storage.exists("runs/r/tune-left")
    kept = ("tune-copied/trials/x", "tune-link/precious", *foreign)
    assert all(storage.exists(f"runs/r/{name}") for name in kept)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SandboxError("a job failed")])
def test_what_clearing_away_raises_does_not_cover_how_a_study_ended(
    storage: Storage,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: BaseException,
) -> None:
    class Tuner:
        def fit(self) -> None:
            monkeypatch.setattr(Storage, "remove", refuse)
            raise error

    def refuse(self: Storage, path: str, **_: str) -> None:
        raise StorageFailed("the storage is read-only")

    monkeypatch.setattr(engine, "_tuner", lambda *_: Tuner())
    arena = Arena(storage)
    shared = arena.shared(Counter(), tmp_path)
    stopping = NoStopping(StoppingConfig(type="none"))
    given = (arena.specs, shared, stopping, arena.competition(), lambda record: None, "tune")
    with pytest.raises(type(error)) as caught:
        run_trials(*given, await_room=lambda *_: None)
    assert caught.value is error
    assert "is removed, after an error: StorageFailed: the storage is read-only" in caplog.text


def test_what_makes_files_of_tune_ours_is_removed_last(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a driver that is killed during it leaves the rest for ever."""
    left = "runs/r/tune-left"
    storage.write_bytes(f"{left}/{MARKER}", marker("files of Tune", left).encode())
    for number in range(16):
        storage.write_bytes(f"{left}/{number}/x", b"")
    unlink = os.unlink

    def killed(path: str, **more: Any) -> None:
        unlink(path, **more)
        if Path(path).name == MARKER:
            raise KeyboardInterrupt

    monkeypatch.setattr(os, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        clear_left(storage, "runs/r")
    assert storage.names(left) == []

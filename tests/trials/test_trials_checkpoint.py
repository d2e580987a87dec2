"""Checkpoints: whole or not there, on a disk and on a store that is none."""

from __future__ import annotations

import math
import threading
import uuid
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest

from djsandbox_ray.records import RungReport
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.checkpoint import Checkpoint
from djsandbox_ray.trials.strategies.strategy import Group

REPORT = RungReport(10, 0.5, {"m": 1 / 3, "k/l": 1.0}, 1.5, 0.5, 77)


@pytest.fixture(params=["disk", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path) if request.param == "disk" else f"memory://{uuid.uuid4().hex}"


def _write(text: str, name: str = "state") -> object:
    def write(folder: Path) -> None:
        (folder / "deep").mkdir(exist_ok=True)
        (folder / "deep" / name).write_text(text)

    return write


def _state(checkpoint: Checkpoint, name: str = "state") -> tuple[int, str] | None:
    with checkpoint.load() as kept:
        return None if kept is None else (kept[0], (kept[1] / "deep" / name).read_text())


def test_nothing_is_there_at_first(url: str) -> None:
    checkpoint = Checkpoint(url, "t")
    assert _state(checkpoint) is None
    assert checkpoint.reports() == ()
    checkpoint.remove()


def test_the_newest_rung_is_kept_with_all_reports_up_to_it(url: str) -> None:
    checkpoint, later = Checkpoint(url, "t"), replace(REPORT, samples=20)
    checkpoint.save(REPORT, _write("ten"))
    assert _state(Checkpoint(url, "t")) == (10, "ten")
    checkpoint.save(later, _write("twenty"))
    again = Checkpoint(url, "t")
    assert _state(again) == (20, "twenty")
    assert again.reports() == (REPORT, later), "to the last digit"
    assert Storage(url).names("trials/t/alone@000000") == ["20"], "older rungs are removed"
    again.remove()
    assert _state(checkpoint) is None
    assert not Storage(url).exists("trials/t")


def test_a_rung_whose_writer_died_does_not_count(url: str) -> None:
    checkpoint = Checkpoint(url, "t")
    checkpoint.save(REPORT, _write("ten"))

    def dies(folder: Path) -> None:
        (folder / "left").write_text("half")
        raise KeyboardInterrupt

    later = replace(REPORT, samples=20)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(later, dies)
    assert _state(Checkpoint(url, "t")) == (10, "ten")
    Checkpoint(url, "t").save(later, _write("twenty"))
    assert _state(Checkpoint(url, "t")) == (20, "twenty")
    with Checkpoint(url, "t").load() as kept:
        assert kept is not None
        assert not (kept[1] / "left").exists(), "nothing of the first attempt is mixed in"


@pytest.mark.parametrize(
    "report",
    [
        replace(REPORT, samples=20, loss=math.nan),
        replace(REPORT, samples=20, metrics={"m": math.inf}),
    ],
)
def test_a_diverged_rung_is_not_kept(url: str, report: RungReport) -> None:
    checkpoint = Checkpoint(url, "t")
    checkpoint.save(REPORT, _write("ten"))
    checkpoint.save(report, _write("twenty"))
    assert _state(Checkpoint(url, "t")) == (10, "ten")


def test_trials_do_not_see_each_other(url: str) -> None:
    Checkpoint(url, "t").save(REPORT, _write("ten"))
    Checkpoint(url, "u").save(REPORT, _write("other"))
    Checkpoint(url, "u").remove()
    assert _state(Checkpoint(url, "t")) == (10, "ten")


class Threads(Group):
    """Workers of one trial as threads; the barrier is real."""

    meeting = threading.Barrier(2, timeout=300)

    def barrier(self) -> None:
        self.meeting.wait()


def _save_in_two(url: str, report: RungReport) -> None:
    def worker(rank: int) -> None:
        Checkpoint(url, "t", Threads(rank, 2, "fsdp")).save(
            report if rank == 0 else replace(report, metrics={}),
            _write(f"of {rank}", f"state-{rank}"),
        )

    threads = [threading.Thread(target=worker, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=300)
        assert not thread.is_alive()


def test_every_worker_keeps_its_part_and_sees_all(url: str) -> None:
    _save_in_two(url, REPORT)
    for rank in range(2):
        checkpoint = Checkpoint(url, "t", Threads(rank, 2, "fsdp"))
        assert checkpoint.reports() == (REPORT,)
        assert _state(checkpoint, "state-0") == (10, "of 0")
        assert _state(checkpoint, "state-1") == (10, "of 1")


def test_another_number_of_workers_begins_anew(url: str) -> None:
    _save_in_two(url, replace(REPORT, samples=20))
    alone = Checkpoint(url, "t")
    assert _state(alone) is None
    assert alone.reports() == ()
    assert Checkpoint(url, "t", Group(0, 2, "ddp")).reports() == ()
    alone.save(REPORT, _write("ten"))
    assert _state(alone) == (10, "ten")
    assert Storage(url).names("trials/t/alone@000000") == ["10", "20"], (
        "another run's are not touched"
    )
    alone.remove()
    assert Storage(url).names("trials") == []


def test_a_disk_is_written_in_place(tmp_path: Path) -> None:
    checkpoint = Checkpoint(str(tmp_path), "t")
    places: list[Path] = []
    checkpoint.save(REPORT, places.append)
    with checkpoint.load() as kept:
        assert kept is not None
        assert places == [kept[1]]
    assert tmp_path in places[0].parents


def test_elsewhere_nothing_is_left_on_this_machine() -> None:
    root = uuid.uuid4().hex
    checkpoint = Checkpoint(f"memory://{root}", "t")
    places: list[Path] = []
    checkpoint.save(REPORT, places.append)
    with checkpoint.load() as kept:
        assert kept is not None
        places.append(kept[1])
    assert not any(place.exists() for place in places)
    assert fsspec.filesystem("memory").find(f"/{root}"), "but there"

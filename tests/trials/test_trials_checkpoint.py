"""Checkpoints: whole or not there, on a disk and on a store that is none."""

from __future__ import annotations

import errno
import math
import os
import threading
import uuid
from dataclasses import replace
from pathlib import Path

import fsspec
import pytest
from damages import DAMAGES

from djsandbox_ray.errors import StorageFailed
from djsandbox_ray.records import RungReport
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.checkpoint import ALONE, Checkpoint
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


def _saved(url: str) -> Checkpoint:
    checkpoint = Checkpoint(url, "t")
    checkpoint.save(REPORT, _write("weights"))
    checkpoint.save(replace(REPORT, samples=20), _write("weights " * 100))
    return Checkpoint(url, "t")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["deep/state", "done.json"])
def test_a_checkpoint_that_is_damaged_is_discarded_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, damage: str
) -> None:
    checkpoint = _saved(str(tmp_path))
    DAMAGES[damage](tmp_path / "trials" / "t" / ALONE / "20" / name)
    assert checkpoint.reports() == ()
    assert _state(checkpoint) is None, "the trial begins anew"
    if (name, damage) != ("done.json", "gone"):  # as a writer leaves it that is killed
        assert caplog.text.count("a checkpoint is discarded") == 1
        assert "trials/t/alone@000000/20" in caplog.text
    checkpoint.save(REPORT, _write("anew"))
    assert _state(Checkpoint(str(tmp_path), "t")) == (10, "anew")


def test_an_upload_that_was_cut_off_does_not_count() -> None:
    url = f"memory://{uuid.uuid4().hex}"
    checkpoint = _saved(url)
    Storage(url).write_bytes("trials/t/alone@000000/20/deep/state", b"weights")
    assert _state(checkpoint) is None


def test_a_checkpoint_of_an_earlier_version_does_not_count(tmp_path: Path) -> None:
    checkpoint, storage = _saved(str(tmp_path)), Storage(str(tmp_path))
    mark = storage.read_sealed("trials/t/alone@000000/20/done.json")
    del mark["files"]
    storage.write_json("trials/t/alone@000000/20/done.json", mark)
    assert _state(checkpoint) is None


def test_weights_are_on_the_disk_before_the_mark_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync = os.fsync

    def watched(file: int) -> None:
        done.append(Path(f"/proc/self/fd/{file}").resolve().name)
        fsync(file)

    monkeypatch.setattr(os, "fsync", watched)
    Checkpoint(str(tmp_path), "t").save(REPORT, _write("weights"))
    *before, mark = done
    assert set(before) == {"state", "deep", "10"}
    assert mark.startswith("done.json")


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "no"), "no space is left on the device"),
        (OSError(errno.EROFS, "no"), "read-only"),
        (RuntimeError("[enforce fail at inline_container.cc] . unexpected pos 576 vs 534"), None),
    ],
)
def test_a_checkpoint_without_room_is_a_storage_that_failed(
    url: str, error: Exception, told: str | None
) -> None:
    """Before a store gets it, it lies on a disk of the node."""

    def fails(folder: Path) -> None:
        (folder / "state").write_text("half")
        raise error

    checkpoint = Checkpoint(url, "t")
    with pytest.raises(StorageFailed if told else RuntimeError, match=told or "unexpected pos"):
        checkpoint.save(REPORT, fails)
    assert _state(checkpoint) is None


def test_torch_does_not_say_that_a_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(folder: Path) -> None:
        raise RuntimeError("unexpected pos 576 vs 534")

    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "no")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageFailed, match="no space is left on the device"):
        Checkpoint(str(tmp_path), "t").save(REPORT, fails)

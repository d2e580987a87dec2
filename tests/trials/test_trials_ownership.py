"""Two runs may train one trial: each has its own checkpoints, and goes on from what others left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from djsandbox_ray.records import RungReport
from djsandbox_ray.storage.lease import take
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.checkpoint import Checkpoint
from djsandbox_ray.trials.ownership import clear, lease_path, owner_name, take_over
from djsandbox_ray.trials.strategies.strategy import Group

REPORT = RungReport(10, 0.5, {"m": 1 / 3}, 1.5, 0.5, 77)
ONE = Group()


def _save(storage: Storage, owner: str, samples: int, group: Group = ONE) -> None:
    def write(folder: Path) -> None:
        (folder / "deep").mkdir(exist_ok=True)
        (folder / "deep" / "state").write_text(owner)

    Checkpoint(storage.url, "t", group, owner).save(replace(REPORT, samples=samples), write)


def _state(storage: Storage, owner: str) -> tuple[int, str] | None:
    with Checkpoint(storage.url, "t", owner=owner).load() as kept:
        return None if kept is None else (kept[0], (kept[1] / "deep" / "state").read_text())


def test_a_driver_goes_on_with_what_former_ones_of_its_run_left(place: Storage) -> None:
    first, second, third = (owner_name("r", number) for number in (1, 2, 3))
    _save(place, first, 10)
    _save(place, second, 20)
    take_over(place, ["t", "u"], third, ONE)
    assert _state(place, third) == (20, second)
    assert place.names("trials/t") == [third]
    take_over(place, ["t"], third, ONE)
    assert _state(place, third) == (20, second), "once more changes nothing"


def _interrupted_move(place: Storage, source: str, target: str) -> None:
    """Leave what a kill leaves of a move that goes file by file."""
    folder = f"trials/t/{target}/20/deep"
    place.copy(f"trials/t/{source}/20/deep", folder, ["state"])


def test_a_move_that_was_cut_off_loses_nothing(place: Storage) -> None:
    first, second, third = (owner_name("r", number) for number in (2, 3, 4))
    _save(place, first, 20)
    _interrupted_move(place, first, second)
    take_over(place, ["t"], third, ONE)
    assert _state(place, third) == (20, first)
    assert place.names("trials/t") == [third]


def test_what_former_drivers_left_goes_only_once_the_best_of_it_is_ours(place: Storage) -> None:
    former, ours = owner_name("r", 1), owner_name("r", 2)
    _save(place, former, 20)
    _interrupted_move(place, former, ours)
    take_over(place, ["t"], ours, ONE)
    assert _state(place, ours) == (20, former)
    assert place.names("trials/t") == [ours]


def test_a_driver_that_was_succeeded_takes_nothing_from_its_successor(storage: Storage) -> None:
    """As one that slept, and has not noticed yet that its run was taken over."""
    asleep, successor = owner_name("r", 3), owner_name("r", 4)
    with take(storage, lease_path("r"), "r"):
        _save(storage, successor, 10)
        take_over(storage, ["t"], asleep, ONE)
        clear(storage, ["t"], asleep)
        assert _state(storage, successor) == (10, successor)


def test_what_another_run_has_is_copied_and_left_alone(place: Storage) -> None:
    ours, theirs = owner_name("ours", 3), owner_name("theirs", 1)
    _save(place, ours, 10)
    _save(place, theirs, 30)
    with take(place, lease_path("theirs"), "theirs"):
        take_over(place, ["t"], ours, Group(0, 1))
        _save(place, theirs, 50)
        Checkpoint(place.url, "t", owner=ours).remove()
        clear(place, ["t"], ours)
        assert _state(place, ours) is None
        assert _state(place, theirs) == (50, theirs)
    clear(place, ["t"], ours)
    assert owner_name("theirs", 1) not in place.names("trials/t"), (
        "its run is over, and so is the trial"
    )


def test_the_newer_one_counts_whoever_has_it(place: Storage) -> None:
    ours, theirs = owner_name("ours", 3), owner_name("theirs", 1)
    _save(place, ours, 20)
    _save(place, theirs, 10)
    take_over(place, ["t"], ours, ONE)
    assert _state(place, ours) == (20, ours)
    _save(place, theirs, 30)
    take_over(place, ["t"], ours, ONE)
    assert _state(place, ours) == (30, theirs)


def test_what_vanishes_while_it_is_copied_does_not_count(
    place: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = owner_name("ours", 1), owner_name("theirs", 1)
    _save(place, theirs, 10)
    copy = Storage.copy

    def raced(self: Storage, source: str, target: str, names: list[str]) -> None:
        copy(self, source, target, names)
        Checkpoint(self.url, "t", owner=theirs).remove()

    monkeypatch.setattr(Storage, "copy", raced)
    take_over(place, ["t"], ours, ONE)
    assert _state(place, ours) is None
    assert place.names(f"trials/t/{ours}") == []


def test_what_is_not_ours_stays(storage: Storage) -> None:
    ours = owner_name("ours", 1)
    _save(storage, ours, 10)
    foreign = ("notes.txt", "of the user/10/done.json", "a@b/10/done.json", "a@000001/10/x")
    for name in foreign:
        storage.write_bytes(f"trials/t/{name}", b"{}")
    storage.write_bytes("elsewhere/10/done.json", b"{}")
    for name in ("ours@000002", "theirs@000001"):
        Path(storage.uri(f"trials/t/{name}")).symlink_to(storage.uri("elsewhere"))
    take(storage, lease_path("theirs"), "theirs").release()
    take_over(storage, ["t"], ours, ONE)
    clear(storage, ["t"], ours)
    assert all(storage.exists(f"trials/t/{name}") for name in foreign)
    assert storage.exists("elsewhere/10/done.json")
    assert not storage.exists(f"trials/t/{ours}")

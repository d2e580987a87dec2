"""A folder that runs share holds what was written, by whoever has its lease."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from djsandbox_ray.storage.lease import Lost, take
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.shared_folder import SharedFolder

MODEL = "models/m"


@pytest.fixture
def shared(storage: Storage) -> SharedFolder:
    return SharedFolder(storage, MODEL, "base.json")


def filling(**files: bytes) -> Callable[[Path], dict[str, Any]]:
    def fill(folder: Path) -> dict[str, Any]:
        (folder / "deep").mkdir()
        for name, data in files.items():
            (folder / "deep" / name).write_bytes(data)
        return {"found": len(files)}

    return fill


def test_what_a_killed_upload_has_left_is_not_sealed_in(
    storage: Storage, shared: SharedFolder
) -> None:
    storage.write_bytes(f"{MODEL}/model-00002-of-00002.safetensors", b"of a killed process")
    with take(storage, f"{MODEL}.lease", "m") as lease:
        shared.write(filling(one=b"1", two=b"2"), lease.owner)
        assert [*storage.stamps(MODEL)] == ["base.json", "deep/one", "deep/two"]
        marker = storage.read_sealed(f"{MODEL}/base.json")
        assert [*marker["files"]] == ["deep/one", "deep/two"]
        assert marker["found"] == 2
        assert not shared.broken()
        shared.write(filling(one=b"3"), lease.owner)
        assert [*storage.stamps(MODEL)] == ["base.json", "deep/one"]
        assert not shared.broken()


def test_who_has_lost_the_lease_touches_nothing(storage: Storage, shared: SharedFolder) -> None:
    with take(storage, f"{MODEL}.lease", "m") as lease:
        former = lease.owner

    def fill(folder: Path) -> dict[str, Any]:
        """Takes so long that another run has made it meanwhile."""
        with take(storage, f"{MODEL}.lease", "m") as lease:
            shared.write(filling(one=b"1"), lease.owner)
        return filling(other=b"2")(folder)

    with pytest.raises(Lost, match="models/m was taken over by process"):
        shared.write(fill, former)
    assert not shared.broken()
    assert [*storage.stamps(MODEL)] == ["base.json", "deep/one"]


def test_who_loses_it_while_the_files_are_written_marks_nothing(
    storage: Storage, shared: SharedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, lease = Storage.upload, take(storage, f"{MODEL}.lease", "m")

    def late(self: Storage, source: Path, folder: str) -> None:
        upload(self, source, folder)
        storage.remove(f"{MODEL}.lease")

    monkeypatch.setattr(Storage, "upload", late)
    with pytest.raises(Lost, match="models/m was removed while it was at work"):
        shared.write(filling(one=b"1"), lease.owner)
    assert not storage.exists(f"{MODEL}/base.json")
    lease.release()

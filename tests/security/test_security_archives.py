"""A tar is read, never unpacked: no member reads or writes a file beside it."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from djsandbox_ray.dataset.source import SOURCES, Item, Rejection, Remark, Sample
from djsandbox_ray.outside.program import Snapshot

SECRET = b"what lies beside the archive"
KINDS = {"symlink": tarfile.SYMTYPE, "hard link": tarfile.LNKTYPE}


def _image() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    return buffer.getvalue()


def _member(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def _link(archive: tarfile.TarFile, name: str, target: str, kind: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    archive.addfile(member)


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _read(path: Path) -> list[Item]:
    kind = SOURCES.get("webdataset")
    source = kind(kind.Config.model_validate({"type": "webdataset", "path": str(path)}))
    items = [item for shard in source.shards() for item in shard.read()]
    assert isinstance(items[-1], Remark)  # links and devices are said
    return items[:-1]


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("absolute", [True, False])
def test_a_link_gives_nothing_of_what_it_points_to(
    tmp_path: Path, kind: bytes, absolute: bool
) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_bytes(SECRET)
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "a.tar"
    with tarfile.open(path, "w") as archive:
        _member(archive, "a.jpg", _image())
        _link(archive, "a.txt", str(secret) if absolute else "../secret.txt", kind)
        _link(archive, "folder", str(tmp_path) if absolute else "..", kind)
        _member(archive, "folder/b.jpg", _image())
        _member(archive, "folder/b.txt", b"a caption")
    before = _files(tmp_path)
    first, second = _read(path)
    assert isinstance(first, Rejection)
    assert first.reason == "missing_member"
    assert isinstance(second, Sample)
    assert second.text == "a caption"
    assert _files(tmp_path) == before


@pytest.mark.parametrize("name", ["/planted", "../planted", "a/../../planted", "//planted", "./b"])
def test_a_name_leads_nowhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "a.tar"
    with tarfile.open(path, "w") as archive:
        _member(archive, f"{name}.jpg", _image())
        _member(archive, f"{name}.txt", b"a caption")
        device = tarfile.TarInfo("console")
        device.type = tarfile.CHRTYPE
        archive.addfile(device)
    before = _files(tmp_path)
    (sample,) = _read(path)
    assert isinstance(sample, Sample)
    assert _files(tmp_path) == before
    assert not Path("/planted.jpg").exists()


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_code_for_nodes_is_unpacked_inside_its_folder(tmp_path: Path, kind: bytes) -> None:
    (tmp_path / "secret.txt").write_bytes(SECRET)
    members = {
        "link": "../secret.txt",
        "absolute": str(tmp_path / "secret.txt"),
        "../planted": None,
    }
    for number, (name, target) in enumerate(members.items()):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            if target is None:
                _member(archive, name, b"x")
            else:
                _link(archive, name, target, kind)
        with pytest.raises(tarfile.FilterError):
            Snapshot("hash", buffer.getvalue()).unpack(tmp_path / f"code{number}")
    assert _files(tmp_path) == {"secret.txt": SECRET}

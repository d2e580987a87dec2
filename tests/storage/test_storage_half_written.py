"""What is written appears whole; what a killed writer left goes, and nothing that looks like it."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from pathlib import Path

import pytest

from djsandbox_ray.storage.half_written import Leftovers, written
from djsandbox_ray.storage.store import Storage

ELSEWHERE = f"x.json.01234567-12-345-{'0' * 32}.part"


def _killed(target: Path) -> None:
    code = (
        "import os, sys\nfrom pathlib import Path\n"
        "from djsandbox_ray.storage.half_written import written\n"
        "with written(Path(sys.argv[1])) as file:\n    os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(target)], check=False)


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "a"
    with written(target) as file:
        file.write(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new"
    with pytest.raises(ZeroDivisionError), written(target) as file:
        file.write(bytes(1 // 0))
    assert target.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [target]


def test_what_a_killed_writer_left_is_removed_at_once(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    _killed(tmp_path / "deep" / "a.json")
    assert [path.suffix for path in (tmp_path / "deep").iterdir()] == [".part"]
    with written(tmp_path / "b.json"):
        before = len(list(tmp_path.iterdir()))
        Leftovers([tmp_path], 3600)
        assert len(list(tmp_path.iterdir())) == before, "its writer lives"
    assert list((tmp_path / "deep").iterdir()) == []


def test_of_a_writer_elsewhere_nothing_is_known_until_it_was_silent(tmp_path: Path) -> None:
    part = tmp_path / ELSEWHERE
    part.touch()
    Leftovers([tmp_path], 3600).look_again()
    assert part.exists(), "it was not watched for long enough"
    left = Leftovers([tmp_path], 0)
    part.write_text("it writes")
    left.look_again()
    assert part.exists()
    left = Leftovers([tmp_path], 0)
    with part.open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        left.look_again()
    assert part.exists(), "it holds the lock"
    left.look_again()
    assert not part.exists()


def test_what_only_looks_like_it_stays(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    names = ("a.part", "a.0123.part", f"a.{'0' * 32}.part", f"table.lance/{ELSEWHERE}")
    for name in names:
        (foreign / name).parent.mkdir(parents=True, exist_ok=True)
        (foreign / name).touch()
    (tmp_path / "behind").mkdir()
    (tmp_path / "behind" / ELSEWHERE).touch()
    (foreign / "link").symlink_to(tmp_path / "behind")
    (foreign / ELSEWHERE).symlink_to(tmp_path / "behind" / ELSEWHERE)
    before = set(tmp_path.rglob("*"))
    Leftovers([foreign, tmp_path / "none"], 0).look_again()
    assert set(tmp_path.rglob("*")) == before


def test_parts_are_no_files_of_a_storage(storage: Storage) -> None:
    storage.write_bytes("a/whole", b"")
    _killed(Path(storage.uri("a/half")))
    assert storage.names("a") == ["whole"]
    assert list(storage.stamps("a")) == ["whole"]

from __future__ import annotations

import os
from pathlib import Path

import pytest

from djsandbox_ray.dataset.files import find_files
from djsandbox_ray.errors import BadInput


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.tar", "a.tar", "deep/c.tar", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


def names(paths: str | tuple[str, ...]) -> list[str]:
    return [file.name for file in find_files(paths, (".tar",))]


def test_a_file_whatever_its_suffix(folder: Path) -> None:
    assert names(str(folder / "notes.txt")) == ["notes.txt"]


def test_a_folder_is_searched_deeply_and_sorted(folder: Path) -> None:
    assert names(str(folder)) == ["a.tar", "b.tar", "deep/c.tar"]


def test_a_glob_and_a_list_keep_the_order_of_the_list(folder: Path) -> None:
    assert names((str(folder / "deep"), str(folder / "?.tar"))) == ["deep/c.tar", "a.tar", "b.tar"]


def test_urls_are_read_through_fsspec() -> None:
    import fsspec

    fsspec.filesystem("memory").pipe("/files_test/x.tar", b"content")
    (file,) = find_files("memory://files_test/*.tar", (".tar",))
    with file.open() as handle:
        assert (file.name, handle.read()) == ("x.tar", b"content")


def test_names_and_stamps_do_not_depend_on_the_place(folder: Path, tmp_path_factory) -> None:
    other = tmp_path_factory.mktemp("other") / "moved"
    os.rename(folder / "deep", other)  # noqa: PTH104 (keeps the time of the last change)
    (moved,) = find_files(str(other), (".tar",))
    assert moved.name == "c.tar"
    assert str(folder) not in str(moved.stamp)


def test_a_changed_file_changes_the_stamp(folder: Path) -> None:
    path = folder / "a.tar"
    (before,) = find_files(str(path), (".tar",))
    os.utime(path, ns=(1, 1))
    (after,) = find_files(str(path), (".tar",))
    assert before.stamp != after.stamp


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing.tar", "does not exist"),
        ("*.parquet", "no file matches"),
        ("empty", "holds no file that ends with .tar"),
        ("nowhere://x", "cannot be opened"),
    ],
)
def test_what_is_not_there_is_said(folder: Path, path: str, message: str) -> None:
    (folder / "empty").mkdir()
    full = path if "://" in path else str(folder / path)
    with pytest.raises(BadInput, match=message) as error:
        find_files(full, (".tar",))
    assert full in str(error.value)


def test_a_file_named_twice_is_an_error(folder: Path) -> None:
    with pytest.raises(BadInput, match="named twice"):
        find_files((str(folder / "a.tar"), str(folder / "*.tar")), (".tar",))


def test_no_path_at_all_is_an_error() -> None:
    with pytest.raises(BadInput, match="names no file"):
        find_files((), (".tar",))

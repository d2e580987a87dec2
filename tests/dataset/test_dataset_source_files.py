"""Neither more nor less is found than is there, and what is passed over is said."""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from djsandbox_ray.dataset.debris import told
from djsandbox_ray.dataset.paths import alternatives, several
from djsandbox_ray.dataset.source_files import discover, find_files
from djsandbox_ray.errors import BadInput

SUFFIXES = (".tar", ".tar.gz")


def place(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(name.encode("utf-8", "surrogateescape"))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return place(tmp_path / "data", "b.tar", "a.tar", "deep/c.tar", "notes.txt")


def names(paths: str | tuple[str, ...] | Path) -> list[str]:
    found = find_files(str(paths) if isinstance(paths, Path) else paths, SUFFIXES)
    return [file.name for file in found]


def passed(path: Path | str) -> str:
    return told(discover(str(path), SUFFIXES).passed_over)


def test_a_file_whatever_its_suffix(folder: Path) -> None:
    assert names(folder / "notes.txt") == ["notes.txt"]


def test_a_folder_is_searched_deeply_and_sorted(folder: Path) -> None:
    assert names(folder) == ["a.tar", "b.tar", "deep/c.tar"]
    assert passed(folder) == ""


def test_a_glob_and_a_list_keep_the_order_of_the_list(folder: Path) -> None:
    assert names((str(folder / "deep"), str(folder / "?.tar"))) == ["deep/c.tar", "a.tar", "b.tar"]


def test_urls_are_read_through_fsspec() -> None:
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


def test_the_stamp_of_a_link_is_that_of_the_file(folder: Path) -> None:
    (folder / "link").symlink_to("a.tar")
    (before,) = find_files(str(folder / "link"), SUFFIXES)
    os.utime(folder / "a.tar", ns=(1, 1))
    (after,) = find_files(str(folder / "link"), SUFFIXES)
    (file,) = find_files(str(folder / "a.tar"), SUFFIXES)
    assert before.stamp != after.stamp == file.stamp


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing.tar", "does not exist"),
        ("missing/*.tar", "no file matches"),
        ("*.parquet", "no file matches"),
        ("empty", "holds no file that ends with .tar"),
        ("nowhere://x", "cannot be opened"),
        ("zip://a.tar::nowhere.zip", "cannot be opened: .*No such file"),
        ("zip://a.tar::a.tar", "cannot be opened: File is not a zip file"),
        ("data:,x", "cannot be read"),
        ("a.tar/*", "no file matches"),
        ("a" * 300, "does not exist"),
        ("a" * 300 + "*", "no file matches"),
        ("{a,b,c}.tar", r"1 of the 3 paths .*c\.tar' does not exist"),
        ("{a,x}*.tar", r"no file matches"),
        ("{0..99999999}.tar", "stand for more than 1,000,000 files"),
        ("{a,b}" * 40, "stand for more than 1,000,000 files"),
        ("{" * 3000, "does not exist"),
        ("{a," * 1300, "does not exist"),
        ("{a,b}" * 2000, "has 10,0.. characters|characters, 4,096 at most"),
        ("a.tar::", "before and behind every '::'"),
        ("a\0.tar", "zero byte"),
    ],
)
def test_what_is_not_there_is_said(
    folder: Path, path: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    (folder / "empty").mkdir()
    with pytest.raises(BadInput, match=message) as error:
        find_files(path, SUFFIXES)
    assert path[:20] in str(error.value).replace("\\x00", "\0")


def test_a_file_named_twice_is_an_error(folder: Path) -> None:
    with pytest.raises(BadInput, match="named twice"):
        find_files((str(folder / "a.tar"), str(folder / "*.tar")), (".tar",))
    (folder / "link").symlink_to("a.tar")
    with pytest.raises(BadInput, match=r"same file as .*a\.tar': it is named twice"):
        find_files((str(folder / "a.tar"), str(folder / "link")), (".tar",))


def test_no_path_at_all_is_an_error() -> None:
    with pytest.raises(BadInput, match="names no file"):
        find_files((), (".tar",))


@pytest.mark.parametrize(
    "name",
    [
        "._a.tar",
        ".a.tar",
        ".ipynb_checkpoints/a-checkpoint.tar",
        "deep/.ipynb_checkpoints/c-checkpoint.tar",
        ".git/objects/x.tar",
        "a-checkpoint.tar",
        "_temporary/0/x.tar",
        "__MACOSX/x.tar",
        "x.tar.part",
        "x.tar~",
        ".tar",
    ],
)
@pytest.mark.parametrize("pattern", ["", "/**/*", "/**/*.tar*", "/**"])
@pytest.mark.parametrize("scheme", ["", "memory:/"])
def test_what_is_no_data_is_passed_over_and_said(
    tmp_path: Path, name: str, pattern: str, scheme: str
) -> None:
    there = ["a.tar", "deep/c.tar", name]
    if scheme:
        memory = fsspec.filesystem("memory")
        memory.pipe({f"{tmp_path}/data/{one}": b"x" for one in there})
        assert names(f"memory:/{tmp_path}/data{pattern}") == ["a.tar", "deep/c.tar"]
    else:
        place(tmp_path / "data", *there)
        assert names(f"{tmp_path}/data{pattern}") == ["a.tar", "deep/c.tar"]
    assert passed(f"{scheme}{tmp_path}/data{pattern}").startswith("1 ")
    assert names(f"{scheme}{tmp_path}/data/{name}") == [name.rpartition("/")[2]]  # named


def test_who_writes_a_pattern_of_hidden_files_means_them(folder: Path) -> None:
    place(folder, ".x/one.tar", ".y.tar", "_temporary/t.tar")
    assert names(folder / ".*.tar") == [".y.tar"]
    assert names(folder / ".x" / "*.tar") == ["one.tar"]
    assert names(folder / ".x") == ["one.tar"]
    assert names(folder / ".?/*.tar") == ["one.tar"]
    assert names(folder / "_temporary/*") == ["t.tar"]


def test_a_checkpoint_that_copies_nothing_is_data(folder: Path) -> None:
    place(folder, "last-checkpoint.tar")
    assert "last-checkpoint.tar" in names(folder)


def test_a_folder_of_nothing_but_debris_says_so(tmp_path: Path) -> None:
    place(tmp_path, ".a.tar", "b.tar.part")
    with pytest.raises(BadInput, match=r"passed over: 1 hidden \(.a.tar\), 1 unfinished"):
        find_files(str(tmp_path), SUFFIXES)


@pytest.mark.parametrize("pattern", ["", "/*.tar", "/*", "/[b-d].tar"])
def test_endings_may_be_in_upper_case(tmp_path: Path, pattern: str) -> None:
    place(tmp_path, "b.TAR", "c.Tar", "d.tar")
    assert names(f"{tmp_path}{pattern}") == ["b.TAR", "c.Tar", "d.tar"]
    memory = fsspec.filesystem("memory")
    memory.pipe({f"{tmp_path}/{one}": b"x" for one in ("b.TAR", "c.Tar", "d.tar")})
    assert names(f"memory:/{tmp_path}{pattern}") == ["b.TAR", "c.Tar", "d.tar"]


def test_links_are_followed_once(tmp_path: Path) -> None:
    data = place(tmp_path / "data", "a.tar", "sub/b.tar")
    place(tmp_path / "elsewhere", "c.tar", "inner/d.tar", "blob")
    (data / "out").symlink_to(tmp_path / "elsewhere")
    (data / "again").symlink_to(tmp_path / "elsewhere")
    (data / "inside").symlink_to("sub")
    (data / "round").symlink_to(data)
    (data / "sub" / "up").symlink_to("..")
    (data / "above").symlink_to(tmp_path)
    (data / "itself.tar").symlink_to("itself.tar")
    (data / "gone").symlink_to("/no/such/folder")
    (data / "gone.tar").symlink_to("/no/such/file")
    (data / "x.tar").symlink_to("a.tar")
    (data / "named.tar").symlink_to(tmp_path / "elsewhere" / "blob")
    (tmp_path / "elsewhere" / "back").symlink_to(data)
    found = discover(str(data), SUFFIXES)
    assert [file.name for file in found.files] == [
        *("a.tar", "again/c.tar", "again/inner/d.tar", "named.tar", "sub/b.tar"),
    ]
    assert {kind: sorted(those) for kind, those in found.passed_over.items()} == {
        "dangling link": ["gone", "gone.tar", "itself.tar"],
        "link to a folder around it": ["above/", "again/back/", "round/", "sub/up/"],
        "reached twice": ["inside/", "out/", "x.tar"],
    }
    with (data / "named.tar").open("rb") as file:
        assert file.read() == b"blob"


def test_globs_follow_links_too(tmp_path: Path) -> None:
    data = place(tmp_path / "data", "a.tar", "one/b.tar")
    (data / "two").symlink_to("one")
    (data / "x.tar").symlink_to("a.tar")
    (data / "gone.tar").symlink_to("no")
    assert names(data / "*.tar") == ["a.tar"]
    assert passed(data / "*.tar") == "1 dangling link (gone.tar), 1 reached twice (x.tar)"
    assert names(data / "*" / "*.tar") == ["b.tar"]
    assert passed(data / "*" / "*.tar") == "1 reached twice (two/b.tar)"
    assert names(data / "**" / "*.tar") == ["a.tar", "one/b.tar"]


def test_the_cache_of_a_hub_is_links_to_blobs(tmp_path: Path) -> None:
    """As huggingface_hub lays it out: names are links, contents have no ending."""
    hub = place(tmp_path, "blobs/0a1", "blobs/0b2")
    (hub / "snapshots" / "rev").mkdir(parents=True)
    for name, blob in (("train-0.tar", "0a1"), ("train-1.tar", "0b2")):
        (hub / "snapshots" / "rev" / name).symlink_to(f"../../blobs/{blob}")
    assert names(hub / "snapshots" / "rev") == ["train-0.tar", "train-1.tar"]
    assert names(hub / "snapshots" / "*" / "*.tar") == ["train-0.tar", "train-1.tar"]


def test_a_named_link_that_leads_nowhere_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.tar").symlink_to("gone.tar")
    with pytest.raises(BadInput, match=r"is a link to 'gone.tar', which does not exist"):
        find_files(str(tmp_path / "x.tar"), SUFFIXES)


@pytest.mark.parametrize(
    "odd", ["data[1]", "a?b", "x*y", "{a,b}", "{1..3}", "a::b", "[", "**", " "]
)
def test_names_with_signs_are_taken_as_they_are(tmp_path: Path, odd: str) -> None:
    place(tmp_path, f"{odd}/one.tar", "data1/no.tar", "axb/no.tar", "xzy/no.tar", "a/no.tar")
    assert names(tmp_path / odd) == ["one.tar"]
    assert names(tmp_path / odd / "one.tar") == ["one.tar"]
    if "::" not in odd:
        assert names(tmp_path / odd / "*.tar") == ["one.tar"]
        assert names(tmp_path / odd / "o?e.tar") == ["one.tar"]


def test_a_file_that_is_called_like_a_pattern_of_others(tmp_path: Path) -> None:
    place(tmp_path, "*.tar", "b.tar", "c[1].tar", "c1.tar")
    with pytest.raises(BadInput, match=r"is a file, and a pattern that 3 more names match"):
        find_files(str(tmp_path / "*.tar"), SUFFIXES)
    assert names(tmp_path / "c[1].tar") == ["c[1].tar"]


def test_braces_and_several_sources_in_one_text(tmp_path: Path) -> None:
    place(tmp_path, *(f"{d}/{k:05}.tar" for d in ("cc", "yfcc") for k in range(12)))
    cc, both = f"{tmp_path}/cc", f"{tmp_path}/cc/*.tar::{tmp_path}/yfcc/*.tar"
    assert names(f"{cc}/{{00000..00001}}.tar") == ["00000.tar", "00001.tar"]
    assert len(names(f"{cc}/{{00009,{{00000..00002..2}}}}.tar")) == 3
    assert len(names(both)) == 24
    assert len(names((both.partition("::")[0], both.partition("::")[2]))) == 24
    assert len(names(f"{tmp_path}/{{cc,yfcc}}/*.tar")) == 24
    assert len(names(f"{tmp_path}/{{cc,yfcc}}/0000?.tar :: {cc}/{{00010..00011}}.tar")) == 22
    assert len(names(f"{tmp_path}/{{cc,yfcc}}")) == 24
    assert names(f"{{{cc},{tmp_path}/yfcc}}/00011.tar") == ["cc/00011.tar", "yfcc/00011.tar"]


def test_several_sources_elsewhere() -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe({f"/many/{d}/{k:02}.tar": b"x" for d in "ab" for k in range(3)})
    assert names("memory://many/a/{00..02}.tar") == ["00.tar", "01.tar", "02.tar"]
    assert len(names("memory://many/a/*.tar::memory://many/b/{00,01}.tar")) == 5
    with pytest.raises(BadInput, match=r"2 of the 5 paths .*03\.tar' does not exist; .*04\.tar'"):
        names("memory://many/a/{00..04}.tar")


@pytest.mark.parametrize(
    ("text", "sources"),
    [
        ("a", ["a"]),
        ("a::b::c", ["a", "b", "c"]),
        ("s3://a/x::s3://b/y", ["s3://a/x", "s3://b/y"]),
        ("zip://*.tar::s3://b/a.zip::c", ["zip://*.tar::s3://b/a.zip", "c"]),
        ("simplecache::s3://b/a.tar", ["simplecache::s3://b/a.tar"]),
        ("c::simplecache::s3://b/a", ["c", "simplecache::s3://b/a"]),
        ("http://[::1]:80/a.tar", ["http://[::1]:80/a.tar"]),
        (" a", [" a"]),
    ],
)
def test_what_several_sources_are(text: str, sources: list[str]) -> None:
    assert several(text) == sources


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("{00..02}", "00 01 02"),
        ("{8..11}", "8 9 10 11"),
        ("{08..11}", "08 09 10 11"),
        ("{3..1}", "3 2 1"),
        ("{0..10..5}", "0 5 10"),
        ("{a..c}x", "ax bx cx"),
        ("{a,b}{0..1}", "a0 a1 b0 b1"),
        ("{a,b{1,2}}", "a b1 b2"),
        ("x{,y}", "x xy"),
        ("{x}", "{x}"),
        ("{x{a,b}}", "{xa} {xb}"),
        ("{a,b", "{a,b"),
        ("a}{b", "a}{b"),
        ("{}", "{}"),
    ],
)
def test_what_braces_stand_for(text: str, meant: str) -> None:
    assert alternatives(text) == meant.split(" ")


@given(st.text("{},.0a1", max_size=40))
def test_braces_never_fail_otherwise(text: str) -> None:
    with contextlib.suppress(BadInput):
        assert alternatives(text)


def test_a_glob_that_leaves_the_ending_open_means_files_of_the_kind(tmp_path: Path) -> None:
    """As img2dataset leaves them: beside each tar, its statistics."""
    place(tmp_path, "00000.tar", "00000.parquet", "00000_stats.json", "_SUCCESS", "old/x.tar")
    assert names(tmp_path / "*") == ["00000.tar"]
    assert passed(tmp_path / "*") == (
        "1 left by a program (_SUCCESS), "
        "2 of another ending (00000.parquet, 00000_stats.json), 1 folder (old/)"
    )
    assert names(tmp_path / "*.json") == ["00000_stats.json"]
    (tmp_path / "00000.tar").unlink()
    assert names(tmp_path / "0*") == ["00000.parquet", "00000_stats.json"]


def test_folders_that_a_glob_means(tmp_path: Path) -> None:
    """As Spark writes: a folder that is called like a file."""
    place(tmp_path, "a.tar/part-0.tar", "a.tar/_SUCCESS", "b/c.tar")
    assert names(tmp_path / "*.tar") == ["part-0.tar"]
    assert names(f"{tmp_path}/*/") == ["a.tar/part-0.tar", "b/c.tar"]
    with pytest.raises(BadInput, match=r"no file matches .*passed over: 1 folder \(b/\)"):
        find_files(str(tmp_path / "b*"), SUFFIXES)


def test_files_of_another_ending_that_may_have_been_meant(tmp_path: Path) -> None:
    place(tmp_path, "a.tar", "b.tar.zst", "c.txt")
    assert names(tmp_path) == ["a.tar"]
    assert passed(tmp_path) == "1 of another ending (b.tar.zst)"


def test_names_that_are_no_unicode(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.tar")
    place(tmp_path, name, "b.tar", os.fsdecode(b".caf\xe9.tar"))
    files = find_files(str(tmp_path), SUFFIXES)
    assert [file.name for file in files] == ["b.tar", "caf\\xe9.tar"]
    with files[1].open() as handle:
        assert handle.read() == b"caf\xe9.tar"
    assert passed(tmp_path) == "1 hidden ('.caf\\udce9.tar')"


def test_what_is_no_file_is_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.tar")
    place(tmp_path, "a.tar")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.tar"))
        assert names(tmp_path) == ["a.tar"]
        assert passed(tmp_path) == "2 neither file nor folder (pipe.tar, s.tar)"
    with pytest.raises(BadInput, match="neither a file nor a folder"):
        find_files(str(tmp_path / "pipe.tar"), SUFFIXES)


def test_a_folder_that_cannot_be_read_is_an_error(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = os.scandir

    def refused(path: str) -> object:
        if str(path).endswith("deep"):
            raise PermissionError(13, "Permission denied", path)
        return scan(path)

    monkeypatch.setattr(os, "scandir", refused)
    for path in (folder, folder / "*" / "*.tar"):
        with pytest.raises(BadInput, match=r"cannot be read: .*deep': Permission denied"):
            find_files(str(path), SUFFIXES)

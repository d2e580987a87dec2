"""Sources in an object store give what the same files give on a disk."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from s3_server import S3Server

from djsandbox_ray.dataset.media import VideosConfig
from djsandbox_ray.dataset.prepare import prepared
from djsandbox_ray.dataset.references import read_reference
from djsandbox_ray.dataset.source import Source
from djsandbox_ray.dataset.staging import Staging
from djsandbox_ray.errors import BadInput, Damaged, SandboxError
from djsandbox_ray.storage.lease import take
from djsandbox_ray.storage.store import Storage

_ABSENT = r"does not exist|no file matches"


def _samples(source: Source) -> list[Any]:
    """Read every shard as another process would."""
    shards = pickle.loads(pickle.dumps(prepared(source)))
    return [(shard.name, item) for shard in shards for item in shard.read()]


@pytest.mark.parametrize("form", ["parquet", "jsonl", "webdataset"])
@pytest.mark.parametrize("place", ["data", "data/*"], ids=["folder", "glob"])
def test_the_same_samples_come_from_a_bucket(
    s3: S3Server,
    tmp_path: Path,
    pairs: list[Any],
    open_source: Callable[..., Source],
    request: pytest.FixtureRequest,
    form: str,
    place: str,
) -> None:
    if form == "parquet":
        request.getfixturevalue("write_parquet")(pairs, row_group_size=3)
    elif form == "webdataset":
        members = [
            (f"{number}.{end}", data)
            for number, (image, text) in enumerate(pairs)
            for end, data in (("jpg", image), ("txt", text.encode()))
        ]
        request.getfixturevalue("write_tar")(members)
    else:
        lines = [{"text": text, "images": [f"{i}.jpg"]} for i, (_, text) in enumerate(pairs)]
        images = {f"{i}.jpg": image for i, (image, _) in enumerate(pairs)}
        request.getfixturevalue("write_jsonl")([*lines, {"text": "x", "images": ["no"]}], images)
    storage = Storage(f"{s3.url}/{form}-{len(place)}")
    storage.upload(tmp_path / "data", "data")
    there = place.replace("*", "a.*")
    here = open_source(form, path=f"{tmp_path}/{there}")
    remote = open_source(form, path=f"{storage.url}/{there}")
    found = _samples(remote)
    assert found == _samples(here)
    assert len(found) == len(pairs) + (form == "jsonl")
    storage.remove("data")
    with pytest.raises(BadInput, match=_ABSENT):  # no listing is remembered
        remote.shards()


def test_videos_stay_in_a_bucket(
    s3: S3Server, tmp_path: Path, open_source: Callable[..., Source], video: Callable[..., bytes]
) -> None:
    (tmp_path / "data").mkdir()
    for number in range(2):
        (tmp_path / "data" / f"{number}.mp4").write_bytes(video(number))
    storage = Storage(f"{s3.url}/clips")
    storage.upload(tmp_path / "data", "data")
    options = {"path": f"{storage.url}/data", "content": "videos", "caption": "a clip"}
    shards = prepared(open_source("folder", **options), videos=VideosConfig(store="reference"))
    first, second = (item for shard in shards for item in shard.read())
    place = first.media[0].place
    assert (place.uri, place.name) == (f"{storage.url}/data/0.mp4", "0.mp4")
    assert place.version  # its hash: a bucket has one
    assert [read_reference(item.media[0].place) for item in (first, second)] == [
        video(0),
        video(1),
    ]
    (tmp_path / "data" / "0.mp4").write_bytes(video(0)[::-1])  # of the same size
    storage.upload(tmp_path / "data", "data")
    with pytest.raises(Damaged, match="it has changed"):
        read_reference(place)
    storage.remove("data")
    with pytest.raises(Damaged, match="it is gone"):
        read_reference(second.media[0].place)


def test_what_is_not_in_a_bucket_is_bad_input(
    s3: S3Server, open_source: Callable[..., Source]
) -> None:
    for path in (f"{s3.url}/none", f"{s3.url}/none/*.parquet", "s3://no-such-bucket/a.parquet"):
        with pytest.raises(BadInput, match=_ABSENT):
            open_source("parquet", path=path).shards()


def _placed(storage: Storage, run: str, meanwhile: Callable[[], Any] = lambda: None) -> str:
    """Place a table of two files that a run builds while something else happens."""
    folder = f"datasets/.staging-{run}"
    staged = Staging(storage, folder, take(storage, f"{folder}/lease", folder))

    def build(uri: str) -> None:
        assert uri == storage.uri(staged.table)
        for name in ("data/one", "data/two"):
            storage.write_bytes(f"{staged.table}/{name}", run.encode())
        meanwhile()

    return staged.place("datasets/one", build)


def _put(storage: Storage, run: str, meanwhile: Callable[[], Any] = lambda: None) -> str:
    """Ingest as one run does: the table, then the marker that names it."""
    table = _placed(storage, run, meanwhile)
    storage.write_json("datasets/one/dataset.json", _mark(table))
    return table


def _mark(table: str) -> dict[str, Any]:
    """Return the marker of a dataset, as earlier versions wrote it: without the sizes of files."""
    return {"id": "one", "table": table, "rows": 1, "rejected": 0}


def test_runs_that_ingest_the_same_at_once_leave_each_other_whole(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(f"{s3.url}/at-once")
    monkeypatch.setattr(Storage, "move", lambda *_: pytest.fail("an object store only copies"))
    # The first is through while the second still builds its own.
    tables: list[str] = []
    tables.append(_put(storage, "slow", lambda: tables.append(_put(storage, "fast"))))
    assert tables == ["tables/fast.lance", "tables/fast.lance"]
    assert storage.read_bytes("tables/fast.lance/data/two") == b"fast"
    assert storage.read_json("datasets/one/dataset.json") == _mark("tables/fast.lance")
    # Both are through at once: each has a table of its own.
    storage.remove("datasets")
    tables = [_placed(storage, run) for run in "ab"]
    assert tables == ["tables/a.lance", "tables/b.lance"]
    assert [storage.read_bytes(f"{table}/data/one") for table in tables] == [b"a", b"b"]


def test_a_dataset_of_a_former_version_is_read_where_it_lies(s3: S3Server) -> None:
    storage = Storage(f"{s3.url}/former")
    table = "datasets/one/samples.lance"
    storage.write_json("datasets/one/dataset.json", _mark(table))
    storage.write_bytes(f"{table}/data/one", b"rows")
    assert _placed(storage, "staged", lambda: pytest.fail("built")) == table


def test_what_killed_runs_left_on_a_disk_gives_way(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    storage.write_bytes("datasets/one/samples.lance/data/old", b"")
    assert _put(storage, "staged") == "datasets/one/samples.lance"
    assert sorted(storage.stamps("datasets/one/samples.lance")) == ["data/one", "data/two"]


class _Files(SimpleHTTPRequestHandler):
    """Gives files, and says nothing of it."""

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        for code in (403, 503):
            if f"{code}.jpg" in self.path:
                return self.send_error(code)
        return super().do_GET()


@contextmanager
def _served(folder: Path) -> Iterator[str]:
    """Give the address of a server of what lies in a folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Files, directory=folder)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_one_file_that_a_server_refuses_costs_its_row(tmp_path: Path, open_source, jpeg) -> None:
    (tmp_path / "0.jpg").write_bytes(jpeg(0))
    lines = [json.dumps({"text": "a", "images": [name]}) for name in ("403.jpg", "0.jpg")]
    (tmp_path / "list.jsonl").write_text("\n".join(lines))
    busy = json.dumps({"text": "a", "images": ["503.jpg"]})
    (tmp_path / "busy.jsonl").write_text(busy)
    with _served(tmp_path) as address:
        (_, refused), (_, pair) = _samples(open_source("jsonl", path=f"{address}/list.jsonl"))
        with pytest.raises(SandboxError, match=r"503\.jpg"):
            _samples(open_source("jsonl", path=f"{address}/busy.jsonl"))
    assert (refused.reason, refused.lost) == ("missing_image", 1)
    assert "refuses it" in refused.detail
    assert pair.image == jpeg(0)


def test_media_beside_a_list_are_read_from_a_server(
    tmp_path: Path, open_source, jpeg, video
) -> None:
    folder = tmp_path / "data" / "clips"
    folder.mkdir(parents=True)
    (folder / "0.mp4").write_bytes(video(0))
    (folder / "0.jpg").write_bytes(jpeg(0))
    (tmp_path / "data" / "list.csv").write_text("video,text\n./clips/0.mp4,a\n../list.csv,b\n")
    (tmp_path / "data" / "list.jsonl").write_text('{"text": "a", "images": ["clips/0.jpg"]}\n')
    with _served(tmp_path) as root:
        address = f"{root}/data"
        ((_, pair),) = _samples(open_source("jsonl", path=f"{address}/list.jsonl"))
        source = open_source("csv", path=f"{address}/list.csv", content="videos")
        (_, clip), (_, escaped) = _samples(source)
        shards = prepared(source, videos=VideosConfig(store="reference"))
        referred = next(item for shard in shards for item in shard.read())
        assert read_reference(referred.media[0].place) == video(0)
    assert pair.image == jpeg(0)
    assert clip.media[0].data == video(0)
    assert escaped.reason == "escaping_path"
    assert referred.media[0].place.uri == f"{address}/clips/0.mp4"

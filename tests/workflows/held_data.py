"""Small data in the layouts that people have, one function each: it writes into a new folder."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from tempfile import NamedTemporaryFile

import av
import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

ROWS = 240
CLIPS = 24
"""Of these there are fewer: their frames are decoded."""
WORDS = ["red", "green", "blue", "small", "large", "bright", "dark", "old", "new"]


def picture(number: int) -> bytes:
    pixels = np.random.default_rng(number).integers(0, 256, (16, 12 + number % 9, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def caption(number: int) -> str:
    chance = np.random.default_rng(number)
    return f"a {' '.join(chance.choice(WORDS, 1 + number % 7))} thing, number {number}!"


def photos(folder: Path) -> list[str]:
    names = [f"{'even' if number % 2 == 0 else 'odd'}/{number:03}.jpg" for number in range(ROWS)]
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(picture(number))
    return names


def _tar(path: Path, samples: Iterable[tuple[str, list[tuple[str, bytes]]]]) -> None:
    """Write a tar of samples: a key, and the ending and content of each of its members."""
    path.mkdir()
    with tarfile.open(path / "00000.tar", "w") as archive:
        for key, members in samples:
            for ending, data in members:
                info = tarfile.TarInfo(f"{key}.{ending}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


def _lines(path: Path, entries: Iterable[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def folder(path: Path) -> None:
    photos(path)


def folder_with_texts(path: Path) -> None:
    for number, name in enumerate(photos(path)):
        (path / name).with_suffix(".txt").write_text(caption(number))


def imagefolder(path: Path) -> None:
    lines = [{"file_name": name, "text": caption(n)} for n, name in enumerate(photos(path))]
    _lines(path / "metadata.jsonl", lines)


def csv_list(path: Path) -> None:
    rows = [(caption(number), name) for number, name in enumerate(photos(path))]
    with (path / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("caption", "path"), *rows])


def jsonl(path: Path) -> None:
    lines = [{"text": caption(n), "images": [name]} for n, name in enumerate(photos(path))]
    _lines(path / "list.jsonl", lines)


def jsonl_beside(path: Path) -> None:
    """Lines in a folder of their own, as datasets with texts and images apart have them."""
    lines = [
        {"text": caption(number), "images": [f"../images/{name}"]}
        for number, name in enumerate(photos(path / "images"))
    ]
    _lines(path / "texts" / "pairs.jsonl", lines)


def parquet(path: Path) -> None:
    path.mkdir()
    table = {"jpg": map(picture, range(ROWS)), "title": map(caption, range(ROWS))}
    pq.write_table(
        pa.table({key: list(values) for key, values in table.items()}), path / "a.parquet"
    )


def webdataset(path: Path) -> None:
    parts = (("jpg", picture(n)) for n in range(ROWS))
    _tar(path, ((f"{n:05}", [part, ("txt", caption(n).encode())]) for n, part in enumerate(parts)))
    (path / "00000.parquet").write_bytes(b"img2dataset writes one beside each tar")


def huggingface(path: Path) -> None:
    images = [{"bytes": picture(number), "path": None} for number in range(ROWS)]
    columns = {"image": images, "text": [caption(number) for number in range(ROWS)]}
    kinds = {"image": datasets.Image(), "text": datasets.Value("string")}
    made = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
    made.save_to_disk(path)


def coco(path: Path) -> None:
    names = photos(path / "val2017")
    images = [{"id": number, "file_name": name} for number, name in enumerate(names)]
    notes = [{"image_id": number, "caption": caption(number)} for number in range(ROWS)]
    written = {"info": {}, "images": images, "annotations": notes}
    (path / "captions.json").write_text(json.dumps(written))
    (path / "notes.json").write_text('{"other": 1}')


PAIRS = {
    coco: "coco",
    huggingface: "huggingface",
    folder: "folder",
    folder_with_texts: "folder",
    imagefolder: "folder",
    csv_list: "csv",
    jsonl: "jsonl",
    jsonl_beside: "jsonl",
    parquet: "parquet",
    webdataset: "webdataset",
}


def _talk(number: int, who: str, what: str) -> list[dict[str, str]]:
    return [
        {who: "user", what: "<image>\nWhat is it?"},
        {who: "assistant", what: caption(number)},
    ]


def llava(path: Path) -> None:
    names = photos(path / "pictures")
    entries: list[dict[str, object]] = [
        {"image": name, "conversations": _talk(number, "from", "value")}
        for number, name in enumerate(names)
    ]
    (path / "instruct.json").write_text(json.dumps(entries))


def llava_lines(path: Path) -> None:
    llava(path)
    entries = json.loads((path / "instruct.json").read_text())
    (path / "instruct.json").unlink()
    _lines(path / "instruct.jsonl", entries)


def chats(path: Path) -> None:
    path.mkdir()
    table = {
        "images": [[picture(number)] for number in range(ROWS)],
        "messages": [_talk(number, "role", "content") for number in range(ROWS)],
    }
    pq.write_table(pa.table(table), path / "a.parquet")


def saved_chats(path: Path) -> None:
    made = datasets.Dataset.from_dict(
        {
            "image": [{"bytes": picture(number), "path": None} for number in range(ROWS)],
            "messages": [_talk(number, "role", "content") for number in range(ROWS)],
        }
    )
    made.save_to_disk(path)


def mmc4(path: Path) -> None:
    lines = [
        {
            "text_list": [caption(number)],
            "image_info": [{"image_name": name, "matched_text_index": 0}],
        }
        for number, name in enumerate(photos(path / "pictures"))
    ]
    _lines(path / "docs.jsonl", lines)


def obelics(path: Path) -> None:
    path.mkdir()
    table = {
        "images": [[picture(number), None] for number in range(ROWS)],
        "texts": [[None, caption(number)] for number in range(ROWS)],
    }
    pq.write_table(pa.table(table), path / "a.parquet")


def documents(path: Path) -> None:
    """Data-Juicer's layout: a text with two images, or none."""
    names = photos(path)
    token = "<__dj__image>"
    lines: list[dict[str, object]] = [
        {"text": f"{token} {caption(n)} {token} and another", "images": [name, names[n - 1]]}
        if n % 3 < 2
        else {"text": caption(n)}
        for n, name in enumerate(names)
    ]
    _lines(path / "docs.jsonl", lines)


@cache
def clip(number: int) -> bytes:
    """Return a small MP4 of noise; sizes and lengths differ."""
    chance = np.random.default_rng(number)
    height, width = 32 + 16 * (number % 2), 32 + 16 * (number % 3)
    with NamedTemporaryFile() as file:
        with av.open(file.name, "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=12)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for _ in range(4 + number):
                pixels = chance.integers(0, 256, (height, width, 3), dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
        return Path(file.name).read_bytes()


def film(number: int) -> bytes:
    """Return one of a few clips."""
    return clip(number % 6)


def films(folder: Path, name: str = "{}.mp4") -> list[str]:
    names = [name.format(f"{number:03}") for number in range(CLIPS)]
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(film(number))
    return names


def videos(path: Path) -> None:
    films(path)


def actions(path: Path) -> None:
    films(path / "jump")
    films(path / "run")


def videofolder(path: Path) -> None:
    lines = [{"file_name": name, "text": caption(n)} for n, name in enumerate(films(path))]
    _lines(path / "metadata.jsonl", lines)


def csv_of_videos(path: Path) -> None:
    rows = [(caption(number), name) for number, name in enumerate(films(path))]
    with (path / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("caption", "path"), *rows])


def webvid(path: Path) -> None:
    films(path / "videos" / "000001_000050")
    head = ("videoid", "name", "page_dir", "contentUrl")
    rows = [(f"{n:03}", caption(n), "000001_000050", "http://a") for n in range(CLIPS)]
    with (path / "train.csv").open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])


def jsonl_of_videos(path: Path) -> None:
    names = films(path)
    token = "<__dj__video>"
    lines = [{"text": f"{token} {caption(n)}", "videos": [name]} for n, name in enumerate(names)]
    _lines(path / "list.jsonl", lines)


def parquet_of_videos(path: Path) -> None:
    path.mkdir()
    columns = {"mp4": [film(n) for n in range(CLIPS)], "title": [caption(n) for n in range(CLIPS)]}
    pq.write_table(pa.table(columns), path / "a.parquet")


def tar_of_videos(path: Path) -> None:
    parts = ([("mp4", film(n)), ("txt", caption(n).encode())] for n in range(CLIPS))
    _tar(path, ((f"{n:05}", part) for n, part in enumerate(parts)))


def saved_videos(path: Path) -> None:
    clips = [{"bytes": film(n), "path": None} for n in range(CLIPS)]
    texts = [caption(n) for n in range(CLIPS)]
    datasets.Dataset.from_dict({"video": clips, "text": texts}).save_to_disk(path)


def csv_of_texts(path: Path) -> None:
    path.mkdir()
    with (path / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("caption", "source"), *((caption(n), n) for n in range(ROWS))])


def jsonl_of_texts(path: Path) -> None:
    _lines(path / "list.jsonl", ({"text": caption(n), "images": []} for n in range(ROWS)))


def parquet_of_texts(path: Path) -> None:
    path.mkdir()
    columns = {"text": [caption(n) for n in range(ROWS)], "id": list(range(ROWS))}
    pq.write_table(pa.table(columns), path / "a.parquet")


def tar_of_texts(path: Path) -> None:
    _tar(path, ((f"{n:05}", [("txt", caption(n).encode())]) for n in range(ROWS)))


def saved_texts(path: Path) -> None:
    datasets.Dataset.from_dict({"text": [caption(n) for n in range(ROWS)]}).save_to_disk(path)


def parquet_of_pixels(path: Path) -> None:
    """Images in a column that is called as no other."""
    path.mkdir()
    columns = {"pixels": [picture(n) for n in range(9)], "text": [caption(n) for n in range(9)]}
    pq.write_table(pa.table(columns), path / "a.parquet")

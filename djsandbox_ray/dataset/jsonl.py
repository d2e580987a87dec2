"""JSON Lines in the layout of Data-Juicer: text with special tokens, paths of media beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar

from djsandbox_ray.dataset.beside import medium_beside, read_beside
from djsandbox_ray.dataset.faults import META_LEFT_OUT, Unusable, attempt, described, kept_meta
from djsandbox_ray.dataset.files import FileSource, SourceFile
from djsandbox_ray.dataset.media import (
    PAIR_TOKENS,
    Content,
    Kind,
    Media,
    tokens_in,
    without_tokens,
)
from djsandbox_ray.dataset.source import Item, Remark, Sample, Shard, SourceConfig
from djsandbox_ray.errors import BadInput

_SHARD_ROWS = 1024
_PEEKED = 1 << 16


class JsonlConfig(SourceConfig):
    """Where the files are and which keys to read."""

    path: str | tuple[str, ...]
    """A file, a folder or a glob, local or a URL; or a list of these."""
    text: str = "text"
    """Key of the text. Data-Juicer's special tokens are taken out of a caption, and stay where
    they stand in a document (``content: any``)."""
    images: str = "images"
    """Key of the images' paths, relative to the file: a text, or a list; of pairs exactly one."""
    videos: str = "videos"
    """Key of the videos' paths, as those of images; of pairs it is kept as meta data."""


class JsonlSource(FileSource):
    """A shard is a file, split into 1024 lines each.

    The stamp is that of the file with the lines: an image changed in place goes unnoticed, and one
    needs to touch the file with the lines to have it read again.
    """

    SUFFIXES: ClassVar[tuple[str, ...]] = (".jsonl",)
    CONTENTS: ClassVar[tuple[Content, ...]] = ("pairs", "videos", "texts", "any")
    HAS_PLACES: ClassVar[bool] = True
    Config = JsonlConfig
    config: JsonlConfig

    def shards(self) -> list[Shard]:
        """Look at the first lines of the files; where the others begin is for tasks to find out."""
        files = self.files()
        for file in files:
            _refuse_list(file)
        return [
            Shard(
                file.name,
                file.stamp,
                partial(_read_whole, file, self.config),
                split=partial(_split, file, self.config),
            )
            for file in files
        ]


def _refuse_list(file: SourceFile) -> None:
    """Say what to do with a file that is one JSON list, as LLaVA's are."""
    with file.open() as handle:
        start = handle.read(_PEEKED).removeprefix(b"\xef\xbb\xbf").lstrip()
    first, _, rest = start.partition(b"\n")
    if not start.startswith(b"[") or (first.rstrip().endswith(b"]") and rest.strip()):
        return
    try:
        entry, _ = json.JSONDecoder().raw_decode(start[1:].lstrip().decode(errors="replace"))
        keys = f"; its first entry has the keys {', '.join(entry)}"
    except (ValueError, TypeError, RecursionError):
        keys = ""
    raise BadInput(
        f"{file.name} is one JSON list; JSON Lines are needed, an object on each line with a text "
        f"and the path of an image (`jq -c '.[]' {file.name}` writes a list as lines; the keys "
        f"text and images of the source name what to read{keys})"
    )


def _split(file: SourceFile, config: JsonlConfig) -> list[Shard]:
    """Read through a file for the byte offsets of its lines."""
    return [
        Shard(
            f"{file.name}#{line}",
            file.stamp,
            partial(_read, file, config, offset, line, rows),
            rows,
        )
        for offset, line, rows in _chunks(file)
    ]


def _read_whole(file: SourceFile, config: JsonlConfig) -> Iterator[Item]:
    for shard in _split(file, config):
        yield from shard.read()


def _chunks(file: SourceFile) -> Iterator[tuple[int, int, int]]:
    """Yield (byte offset, first line, number of lines that are not blank) of each shard."""
    start = offset = first = rows = line = 0
    with file.open() as handle:
        for content in handle:
            line += 1
            offset += len(content)
            rows += not content.isspace()
            if rows == _SHARD_ROWS:
                yield start, first, rows
                start, first, rows = offset, line, 0
    if rows:
        yield start, first, rows


def _read(
    file: SourceFile, config: JsonlConfig, offset: int, line: int, rows: int
) -> Iterator[Item]:
    with file.open() as handle:
        handle.seek(offset)
        while rows:
            content = handle.readline()
            if not content:
                raise BadInput(f"{file.name} has changed while it was read: it is shorter now")
            if not content.isspace():
                source = f"{file.name}#{line}"
                yield from attempt(source, partial(_items, file, config, source, content))
                rows -= 1
            line += 1


def _entries(line: bytes, config: JsonlConfig) -> int:
    """Return of how many entries a line is made: of two where the break between them is damaged."""
    keys = (json.dumps(key).encode() for key in (config.text, config.images))
    return max(1, min(line.count(key) for key in keys))


def _items(file: SourceFile, config: JsonlConfig, source: str, line: bytes) -> list[Item]:
    try:
        entry = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        said = f"{described(error)}; each line is to be an object of its own"
        raise Unusable("bad_json", said, _entries(line, config)) from None
    if not isinstance(entry, dict):
        raise Unusable("bad_json", f"an object is needed, not {type(entry).__name__}")
    keys = ", ".join(entry)
    text, images = entry.pop(config.text, None), entry.pop(config.images, None)
    if not isinstance(text, str):
        raise Unusable(
            "bad_text", f"key {config.text!r}: {_found(text)} is no text (the line has {keys})"
        )
    if config.content != "pairs":
        videos = entry.pop(config.videos, None)
        by_kind: dict[Kind, list[str]] = {
            "image": _paths(config.images, images, keys),
            "video": _paths(config.videos, videos, keys),
        }
        media = _media(file, by_kind, tokens_in(text))
        meta, remarks = _meta(source, entry)
        caption = text.strip() if config.content == "any" else without_tokens(text)
        return [Sample(b"", caption, source, meta, media), *remarks]
    paths = [images] if isinstance(images, str) else images
    if not isinstance(paths, list) or len(paths) != 1 or not isinstance(paths[0], str):
        found = len(paths) if isinstance(paths, list) else _found(images)
        raise Unusable(
            "image_count", f"key {config.images!r}: one path, not {found} (the line has {keys})"
        )
    image = read_beside(file, paths[0])
    meta, remarks = _meta(source, entry)
    return [Sample(image, without_tokens(text, PAIR_TOKENS), source, meta), *remarks]


def _found(value: object) -> str:
    return "nothing" if value is None else type(value).__name__


def _paths(key: str, value: object, keys: str) -> list[str]:
    """Return the paths under a key; none where it is missing or null."""
    paths = [value] if isinstance(value, str) else [] if value is None else value
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        said = f"key {key!r}: paths are needed, not {_found(value)} (the line has {keys})"
        raise Unusable("media_count", said)
    return paths


def _media(
    file: SourceFile, paths: dict[Kind, list[str]], tokens: tuple[Kind, ...]
) -> tuple[Media, ...]:
    """Read media in the order of their tokens; where there are none, images before videos."""
    order = tokens or tuple(kind for kind, some in paths.items() for _ in some)
    for kind, some in paths.items():
        if order.count(kind) != len(some):
            said = f"the text has {order.count(kind)} tokens of {kind}s, there are {len(some)}"
            raise Unusable("bad_tokens", said)
    left = {kind: iter(some) for kind, some in paths.items()}
    return tuple(medium_beside(file, next(left[kind]), kind) for kind in order)


def _meta(source: str, entry: dict[str, Any]) -> tuple[dict[str, Any], list[Item]]:
    """Join the keys beside text and images with those of ``meta``; the former hold if both do."""
    below = entry.pop("meta", None)
    meta, remarks = kept_meta(source, lambda: below)
    beside, more = kept_meta(source, lambda: entry)
    if twice := beside.keys() & meta.keys():
        said = f"keys both in 'meta' and beside it: {', '.join(sorted(twice))}"
        more = [*more, Remark(source, META_LEFT_OUT, said)]
    return {**meta, **beside}, [*remarks, *more][:1]

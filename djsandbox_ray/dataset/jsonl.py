"""JSON Lines in the layout of Data-Juicer: text with special tokens, image paths beside it."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from fsspec.implementations.local import LocalFileSystem

from djsandbox_ray.dataset.files import FileSource, SourceFile
from djsandbox_ray.dataset.source import Rejection, Sample, Shard, SourceConfig

SPECIAL_TOKENS = ("<__dj__image>", "<|__dj__eoc|>")
_SHARD_ROWS = 1024


class JsonlConfig(SourceConfig):
    """Where the files are and which keys to read."""

    path: str | tuple[str, ...]
    """A file, a folder or a glob, local or a URL; or a list of these."""
    text: str = "text"
    """Key of the text; Data-Juicer's special tokens are taken out of it."""
    images: str = "images"
    """Key of the list of image paths, relative to the file; exactly one path is needed."""


class JsonlSource(FileSource):
    """A shard is 1024 lines of a file.

    The stamp is that of the file with the lines: an image changed in place goes unnoticed, and one
    needs to touch the file with the lines to have it read again.
    """

    SUFFIXES: ClassVar[tuple[str, ...]] = (".jsonl",)
    Config = JsonlConfig
    config: JsonlConfig

    def shards(self) -> list[Shard]:
        """Read through the files once, for the byte offsets of the lines."""
        return [
            Shard(
                f"{file.name}#{line}",
                file.stamp,
                partial(_read, file, self.config, offset, line, rows),
                rows,
            )
            for file in self.files()
            for offset, line, rows in _chunks(file)
        ]


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
) -> Iterator[Sample | Rejection]:
    with file.open() as handle:
        handle.seek(offset)
        while rows:
            content = handle.readline()
            if not content.isspace():
                yield _item(file, config, f"{file.name}#{line}", content)
                rows -= 1
            line += 1


def _item(file: SourceFile, config: JsonlConfig, source: str, line: bytes) -> Sample | Rejection:
    try:
        entry = json.loads(line.decode())
    except ValueError as error:
        return Rejection(source, "bad_json", str(error))
    if not isinstance(entry, dict):
        return Rejection(source, "bad_json", f"an object is needed, not {type(entry).__name__}")
    text, images = entry.pop(config.text, None), entry.pop(config.images, None)
    if not isinstance(text, str):
        return Rejection(source, "bad_text", f"key {config.text!r}: {type(text).__name__}")
    if not isinstance(images, list) or len(images) != 1 or not isinstance(images[0], str):
        found = len(images) if isinstance(images, list) else type(images).__name__
        return Rejection(source, "image_count", f"key {config.images!r}: one path, not {found}")
    path = _inside(file, images[0])
    if path is None:
        return Rejection(source, "escaping_path", f"{images[0]!r} leads out of the file's folder")
    try:
        meta = _meta(entry)
        image = bytes(file.fs.cat_file(path))
    except ValueError as error:
        return Rejection(source, "bad_meta", str(error))
    except (FileNotFoundError, IsADirectoryError):
        return Rejection(source, "missing_image", f"there is no file {images[0]!r}")
    return Sample(image, _plain_text(text), source, meta)


def _inside(file: SourceFile, path: str) -> str | None:
    """Resolve a path against the folder of the file; None when it leads out of the folder."""
    folder = posixpath.dirname(file.path)
    full = posixpath.normpath(posixpath.join(folder, path))
    inside = full.startswith(folder.rstrip("/") + "/")
    if inside and isinstance(file.fs, LocalFileSystem):  # a link may lead out all the same
        inside = Path(full).resolve().is_relative_to(Path(folder).resolve())
    return full if inside else None


def _plain_text(text: str) -> str:
    for token in SPECIAL_TOKENS:
        text = text.replace(token, "")
    return text.strip()


def _meta(entry: dict[str, Any]) -> dict[str, Any]:
    """Join the keys beside text and images with those of ``meta``."""
    meta = entry.pop("meta", None)
    if meta is None:
        return entry
    if not isinstance(meta, dict):
        raise ValueError(f"key 'meta': an object is needed, not {type(meta).__name__}")
    twice = entry.keys() & meta.keys()
    if twice:
        raise ValueError(f"keys both in 'meta' and beside it: {', '.join(sorted(twice))}")
    return {**entry, **meta}

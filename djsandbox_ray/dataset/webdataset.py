"""WebDataset tars: the files of a sample follow each other and share a name up to the first dot.

Tars are streamed and nothing is extracted to disk, so names inside them cannot do harm.
"""

from __future__ import annotations

import json
import posixpath
import tarfile
import zlib
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from typing import Any, ClassVar, NamedTuple

from djsandbox_ray.dataset.files import FileSource, SourceFile
from djsandbox_ray.dataset.source import Rejection, Sample, Shard, SourceConfig

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")


class WebDatasetConfig(SourceConfig):
    """Where the tars are and which members to read."""

    path: str | tuple[str, ...]
    """A tar, a folder or a glob, local or a URL; or a list of these."""
    image: tuple[str, ...] = IMAGE_EXTENSIONS
    """Extensions of the image, in lower case; a sample has exactly one."""
    text: str = "txt"
    """Extension of the caption. A member ``json`` (an object) becomes ``meta``; others are left."""


class WebDatasetSource(FileSource):
    """A shard is a tar."""

    SUFFIXES: ClassVar[tuple[str, ...]] = (".tar", ".tar.gz", ".tgz")
    Config = WebDatasetConfig
    config: WebDatasetConfig

    def shards(self) -> list[Shard]:
        """Find the tars; none is opened."""
        files = self.files()
        return [
            Shard(file.name, file.stamp, partial(_read, file, self.config.image, self.config.text))
            for file in files
        ]


class _Member(NamedTuple):
    key: str
    extension: str
    data: bytes


def _read(file: SourceFile, images: tuple[str, ...], text: str) -> Iterator[Sample | Rejection]:
    # The last key is where a broken archive ends.
    wanted, last = {*images, text, "json"}, ""
    try:
        for key, members in groupby(_members(file, wanted), key=lambda member: member.key):
            last = key
            yield _sample(f"{file.name}#{key}", list(members), images, text)
    except (tarfile.TarError, zlib.error, EOFError) as error:
        after = f"after {last!r}" if last else "at its start"
        yield Rejection(f"{file.name}#{last}", "broken_shard", f"the tar ends {after}: {error}")


def _members(file: SourceFile, wanted: set[str]) -> Iterator[_Member]:
    """Yield the regular files of a tar, with the bytes of the wanted ones only."""
    with file.open() as handle, tarfile.open(fileobj=handle, mode="r|*") as archive:
        for member in archive:
            archive.members = []  # type: ignore[attr-defined]  # it would keep all it has passed
            if not member.isfile():
                continue
            folder, name = posixpath.split(member.name)
            stem, _, extension = name.partition(".")
            extension = extension.lower()
            content = archive.extractfile(member) if extension in wanted else None
            data = b"" if content is None else content.read()
            yield _Member(posixpath.join(folder, stem), extension, data)


def _sample(
    source: str, members: list[_Member], images: tuple[str, ...], text: str
) -> Sample | Rejection:
    by_extension = {member.extension: member.data for member in members}
    if len(by_extension) < len(members):
        names = ", ".join(member.extension for member in members)
        return Rejection(source, "duplicate_member", f"members: {names}")
    found = [extension for extension in images if extension in by_extension]
    if len(found) > 1:
        return Rejection(source, "image_count", f"several images: {', '.join(found)}")
    if not found or text not in by_extension:
        lacking = f".{text}" if found else f"image ({', '.join(images)})"
        has = ", ".join(f".{extension}" for extension in by_extension)
        return Rejection(source, "missing_member", f"no {lacking}; it has {has}")
    try:
        meta = _meta(by_extension.get("json", b"{}"))
    except ValueError as error:
        return Rejection(source, "bad_meta", f"the json member: {error}")
    try:
        caption = by_extension[text].decode()
    except UnicodeDecodeError as error:
        return Rejection(source, "bad_text", str(error))
    return Sample(by_extension[found[0]], caption, source, meta)


def _meta(data: bytes) -> dict[str, Any]:
    meta = json.loads(data.decode())
    if not isinstance(meta, dict):
        raise ValueError("not an object")
    return meta

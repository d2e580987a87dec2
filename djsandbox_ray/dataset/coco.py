"""Captions as COCO has them: one JSON object with lists of images and of annotations."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, ClassVar, Literal

from djsandbox_ray.dataset.beside import placed, read_beside
from djsandbox_ray.dataset.faults import Unusable, attempt, described, kept_meta
from djsandbox_ray.dataset.media import Content
from djsandbox_ray.dataset.source import Item, Rejection, Sample, Shard, SourceConfig
from djsandbox_ray.dataset.source_files import FileSource, SourceFile
from djsandbox_ray.errors import BadInput

_SHARD_IMAGES = 4096
_ID, _FILE, _CAPTION = "id", "file_name", "caption"
_KEPT = ("id", "license", "coco_url", "flickr_url")


class CocoConfig(SourceConfig):
    """Where annotations and images are."""

    LOCATION: ClassVar[frozenset[str]] = frozenset({"path", "images"})

    path: str | tuple[str, ...]
    """``captions_*.json``, or several; local or URLs."""
    images: str | None = None
    """The folder that holds the images; if left out, that of the file."""
    captions: Literal["first", "all"] = "first"
    """Of an image's captions: one sample of the first, or one of each."""


class CocoSource(FileSource):
    """A shard is a file, split into 4096 images each.

    A file is read as a whole, in a task, once in a process, which remembers the last one: it holds
    no images.
    """

    SUFFIXES: ClassVar[tuple[str, ...]] = (".json",)
    Config = CocoConfig
    VERSION: ClassVar[int | None] = 2
    CONTENTS: ClassVar[tuple[Content, ...]] = ("pairs",)
    config: CocoConfig

    def shards(self) -> list[Shard]:
        """Find the files; what is in them is for tasks to find out."""
        return [
            Shard(
                file.name, file.stamp, partial(_read_whole, *place), split=partial(_split, *place)
            )
            for file in self.files()
            for place in [(file, self._images(file), self.config.captions)]
        ]

    def _images(self, file: SourceFile) -> SourceFile:
        return file if self.config.images is None else placed(file, self.config.images)


def _split(file: SourceFile, images: SourceFile, captions: str) -> list[Shard]:
    count = len(_annotated(file).entries)
    return [
        Shard(
            f"{file.name}#{start}",
            file.stamp,
            partial(_read, file, images, captions, start, start + _SHARD_IMAGES),
        )
        for start in range(0, count, _SHARD_IMAGES)
    ]


def _read_whole(file: SourceFile, images: SourceFile, captions: str) -> Iterator[Item]:
    for shard in _split(file, images, captions):
        yield from shard.read()


@dataclass(frozen=True)
class _Annotated:
    """What stands in a file, of which nothing may be changed."""

    entries: list[Any]
    """The list of images."""
    texts: dict[int | str, list[Any]]
    """Captions, by the id of their image."""
    several: frozenset[int | str]
    """Ids that stand for several images: nobody knows whose captions theirs are."""
    stray: list[int]
    """Annotations, by number, that name no image of the list."""


@lru_cache(maxsize=1)
def _annotated(file: SourceFile) -> _Annotated:
    """Read a file.

    Raises:
        BadInput: it is not in the layout of COCO's captions.
    """
    try:
        with file.open() as handle:
            written = json.load(handle)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{file.name} cannot be read: {described(error)}") from None
    lists = ("images", "annotations")
    if not isinstance(written, dict) or not all(isinstance(written.get(k), list) for k in lists):
        raise BadInput(f"{file.name}: an object with lists 'images' and 'annotations' is needed")
    entries = written["images"]
    ids = Counter[int | str](
        entry[_ID]
        for entry in entries
        if isinstance(entry, dict) and isinstance(entry.get(_ID), int | str)
    )
    texts: dict[int | str, list[Any]] = {one: [] for one in ids}
    stray = []
    for number, note in enumerate(written["annotations"]):
        image = note.get("image_id") if isinstance(note, dict) else None
        if isinstance(image, int | str) and image in texts:
            texts[image].append(note.get(_CAPTION))
        else:
            stray.append(number)
    # A process may remember them for long: what no sample has is left out.
    kept = (*_KEPT, _FILE)
    entries = [
        {key: entry[key] for key in kept if key in entry} if isinstance(entry, dict) else entry
        for entry in entries
    ]
    several = frozenset(one for one, times in ids.items() if times > 1)
    return _Annotated(entries, texts, several, stray)


def _read(
    file: SourceFile, images: SourceFile, captions: str, start: int, stop: int
) -> Iterator[Item]:
    """Yield the samples of some images; the first shard tells of captions that belong to none."""
    written = _annotated(file)
    for number in written.stray if start == 0 else ():
        said = "it names no image of the file's list"
        yield Rejection(f"{file.name}#annotations/{number}", "missing_image", said)
    for number, entry in enumerate(written.entries[start:stop], start):
        source = f"{file.name}#{number}"
        yield from attempt(source, partial(_items, images, captions, source, entry, written))


def _items(
    images: SourceFile, captions: str, source: str, entry: Any, written: _Annotated
) -> list[Item]:
    if not isinstance(entry, dict) or not isinstance(entry.get(_ID), int | str):
        raise Unusable("bad_row", f"an image is an object with {_ID!r} and {_FILE!r}")
    if not isinstance(entry.get(_FILE), str):
        raise Unusable("missing_image", f"{_FILE!r} is no path")
    if entry[_ID] in written.several:
        raise Unusable("bad_row", f"the id {entry[_ID]!r} stands for several images")
    found = written.texts.get(entry[_ID], [])
    if not found:
        raise Unusable("bad_text", f"no annotation has the image {entry[_ID]!r}")
    image = read_beside(images, entry[_FILE])
    kept = {key: entry[key] for key in _KEPT if key in entry}
    meta, remarks = kept_meta(source, lambda: kept)
    items: list[Item] = []
    for number, text in enumerate(found if captions == "all" else found[:1]):
        place = f"{source}/{number}" if captions == "all" else source
        if isinstance(text, str):
            items.append(Sample(image, text.strip(), place, meta))
        else:
            items.append(Rejection(place, "bad_text", f"{_CAPTION!r} is no text"))
    return [*items, *remarks]

"""The files of a benchmark as a table with a row for every image, and all that is asked about it.

Several questions share an image (18 in POPE): as one row, it is stored and checked once.
The questions stand in the row's meta data, under ``questions``, by benchmark; they are few enough
that evaluators hold them all in memory.

A benchmark is measured whole: what its files lack is an error, no rejected sample.
"""

from __future__ import annotations

import base64
import binascii
import json
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from fsspec.implementations.local import LocalFileSystem

from djsandbox_ray.dataset.beside import placed, read_beside
from djsandbox_ray.dataset.faults import Unusable, described
from djsandbox_ray.dataset.media import Content
from djsandbox_ray.dataset.source import Item, Sample, Shard, SourceConfig
from djsandbox_ray.dataset.source_files import FileSource, SourceFile
from djsandbox_ray.dataset.tables import json_rows
from djsandbox_ray.errors import BadInput

QUESTIONS = "questions"
"""The key of the meta data: a mapping of benchmarks to lists of questions about the image."""
WHOLE = "whole"
"""The key under which every row says how many images and questions the benchmark has."""

_SHARD_IMAGES = 256
_SHOWN = 3
_WHOLE_ONLY = "a benchmark is measured whole; `limit` asks about a part of it, for all trials alike"


class PicturesConfig(SourceConfig):
    """Where a benchmark's questions and images are."""

    LOCATION: ClassVar[frozenset[str]] = frozenset({"path", "images"})

    path: str | tuple[str, ...]
    """Its files, a folder of them or a glob; local or URLs."""
    images: str | None = None
    """The folder of the images; if left out, that of the file with the questions."""


@dataclass(frozen=True)
class BenchmarkImage:
    """An image of a benchmark, with all that is asked about it."""

    place: str
    """Where it is named first, for messages: ``file:line``."""
    paths: tuple[str, ...] = ()
    """Below the folder of images; the first that is there counts. Empty where ``read`` is given."""
    read: Callable[[], bytes] | None = None
    """Picklable; returns an image that lies in a file of the benchmark itself."""
    questions: list[dict[str, Any]] = field(default_factory=list)


class PicturesSource(FileSource):
    """A shard is 256 images of a benchmark; all files are read through once, in a task.

    The stamp is that of the files with the questions: an image changed in place goes unnoticed.
    """

    Config = PicturesConfig
    CONTENTS: ClassVar[tuple[Content, ...]] = ("pairs",)
    BENCHMARK: ClassVar[str]
    """What stands in the meta data over its questions."""
    config: PicturesConfig

    @abstractmethod
    def pictures(self, files: Sequence[SourceFile]) -> list[BenchmarkImage]:
        """Read the questions of a benchmark; no image is looked at.

        Args:
            files: all of its files.

        Raises:
            BadInput: they are not whole, or not in its format; says which file and line.
        """

    def home(self, files: Sequence[SourceFile]) -> SourceFile:
        """Return a file beside which the images lie where no folder of theirs is configured."""
        return files[0]

    def all_pictures(self) -> list[BenchmarkImage]:
        """Find the files, and read the questions.

        Raises:
            BadInput: see :meth:`pictures`; or there are none.
        """
        return self._read(self.files())

    def shards(self) -> list[Shard]:
        """Find the files; what is in them is for a task to find out."""
        files = self.files()
        stamp = {file.name: file.stamp for file in files}
        split = partial(self._split, files)
        return [Shard(self.BENCHMARK, stamp, partial(_read_all, split), split=split)]

    def _read(self, files: Sequence[SourceFile]) -> list[BenchmarkImage]:
        pictures = self.pictures(files)
        if not pictures:
            raise BadInput(
                f"{self.BENCHMARK}: no question in {_named(file.name for file in files)}"
            )
        return pictures

    def _split(self, files: Sequence[SourceFile]) -> list[Shard]:
        pictures = self._read(files)
        folder = self.home(files)
        if any(picture.paths for picture in pictures) and self.config.images is not None:
            folder = placed(folder, self.config.images)
        _check_there(pictures, folder)
        whole = {
            "images": len(pictures),
            "questions": sum(len(picture.questions) for picture in pictures),
        }
        stamp = {file.name: file.stamp for file in files}
        shards = []
        for start in range(0, len(pictures), _SHARD_IMAGES):
            some = pictures[start : start + _SHARD_IMAGES]
            read = partial(_samples, self.BENCHMARK, folder, some, start, whole)
            shards.append(Shard(f"{self.BENCHMARK}#{start}", stamp, read, len(some)))
        return shards


def row_meta(
    questions: Mapping[str, Sequence[Mapping[str, Any]]], whole: Mapping[str, int] | None
) -> dict[str, Any]:
    """Return the meta data of a row that evaluators of questions read.

    Args:
        questions: about its image, by benchmark.
        whole: how many images and questions all rows have together, where that is known.
    """
    meta: dict[str, Any] = {
        QUESTIONS: {name: [dict(one) for one in some] for name, some in questions.items()}
    }
    return meta if whole is None else {**meta, WHOLE: dict(whole)}


def _read_all(split: Callable[[], list[Shard]]) -> Iterator[Item]:
    for shard in split():
        yield from shard.read()


def _samples(
    benchmark: str, folder: SourceFile, pictures: Sequence[BenchmarkImage], start: int, whole: Any
) -> Iterator[Item]:
    for number, picture in enumerate(pictures, start):
        text = "\n".join(str(one["question"]) for one in picture.questions)
        meta = row_meta({benchmark: picture.questions}, whole)
        yield Sample(_image(picture, folder), text, f"{benchmark}#{number}", meta)


def _image(picture: BenchmarkImage, folder: SourceFile) -> bytes:
    if picture.read is not None:
        return picture.read()
    for path in picture.paths:
        try:
            return read_beside(folder, path)
        except Unusable as error:
            fault = error
            if error.reason != "missing_image":
                break
    raise BadInput(f"{picture.place}: {fault.detail}; {_WHOLE_ONLY}")


def _check_there(pictures: Sequence[BenchmarkImage], folder: SourceFile) -> None:
    """Say how many images a folder of this machine lacks, before any is read."""
    if not isinstance(folder.fs, LocalFileSystem):
        return
    here = Path(folder.path).parent
    lacking = [
        picture
        for picture in pictures
        if picture.paths and not any((here / path).is_file() for path in picture.paths)
    ]
    if lacking:
        first = lacking[0]
        raise BadInput(
            f"images: {len(lacking)} of {len(pictures)} images are not in {str(here)!r}, the first "
            f"is {' or '.join(map(repr, first.paths))} ({first.place}); {_WHOLE_ONLY}"
        )


def grouped(
    pictures: Sequence[BenchmarkImage], by: Callable[[BenchmarkImage], Any]
) -> list[BenchmarkImage]:
    """Join pictures that are the same image, in the order in which each is met first.

    Args:
        pictures: of a question or more each.
        by: what tells one image from another.
    """
    found: dict[Any, BenchmarkImage] = {}
    for picture in pictures:
        first = found.setdefault(by(picture), picture)
        if first is not picture:
            first.questions.extend(picture.questions)
    return list(found.values())


def decoded(place: str, cell: str) -> bytes:
    """Return the file that a text in base64 stands for.

    Raises:
        BadInput: it is none.
    """
    try:
        return base64.b64decode(cell.encode(), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadInput(f"{place}: the image is not in base64: {described(error)}") from None


def objects_of(file: SourceFile) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the objects of a file of JSON Lines, with their places.

    Raises:
        BadInput: a line is none.
    """
    for row in json_rows(file):
        place = f"{file.name}:{row.line + 1}"
        if row.fault:
            raise BadInput(f"{place}: {row.fault}; each line is to be an object of its own")
        yield place, row.values


def document_of(file: SourceFile) -> Any:
    """Return what a file of JSON holds.

    Raises:
        BadInput: it holds none.
    """
    try:
        with file.open() as handle:
            return json.load(handle)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{file.name} cannot be read: {described(error)}") from None


def text_at(place: str, entry: Mapping[str, Any], *keys: str, blank: bool = False) -> str:
    """Return the text under the first of some keys that is there; a number as text.

    Args:
        place: of the entry, for messages.
        entry: an object or a row.
        keys: of which one must be there.
        blank: whether it may be empty.

    Raises:
        BadInput: none is there, or it is no text.
    """
    value = next((entry[key] for key in keys if entry.get(key) is not None), None)
    if isinstance(value, int | float) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or not (blank or value.strip()):
        found = ", ".join(map(str, entry)) or "nothing"
        wanted = " or ".join(map(repr, keys))
        raise BadInput(f"{place}: no text under {wanted} (there are: {found})")
    return value


def _named(names: Iterator[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:_SHOWN]) + (", ..." if len(listed) > _SHOWN else "")

"""What lies at a path: which source reads it, and what a first look at it shows."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from djsandbox_ray.dataset.files import find_files
from djsandbox_ray.dataset.folder import IMAGES, METADATA
from djsandbox_ray.dataset.huggingface import first_split
from djsandbox_ray.dataset.prepare import prepared
from djsandbox_ray.dataset.source import SOURCES, Rejection, Sample
from djsandbox_ray.errors import BadInput

_LOOKED_AT = 2000
_CAPTION = "a photo of a {label}"
_SHOWN = 200
_TARS = "webdataset"
_ENDINGS = {
    _TARS: (".tar", ".tar.gz", ".tgz"),
    "parquet": (".parquet",),
    "csv": (".csv", ".tsv"),
    "jsonl": (".jsonl",),
    "huggingface": (".arrow",),
    "folder": IMAGES,
}


@dataclass(frozen=True)
class Recognised:
    """What a first look at some data shows."""

    options: dict[str, Any]
    """The section of a configuration that reads it."""
    found: tuple[str, ...]
    """What the source found out without having been told."""
    rows: int | None
    """None where only reading through the data tells."""
    texts: tuple[str | None, ...]
    """Of the first rows, in order; None where one cannot be used."""
    usable: int
    """Of these, so many can be used."""
    rejected: int
    """And so many cannot."""
    first: Sample

    @property
    def lines(self) -> list[str]:
        """What a user is told."""
        rows = f"{self.usable + self.rejected:,} and more" if self.rows is None else self.rows
        return [
            f"layout: {self.options['type']}",
            *self.found,
            f"rows: {rows}; of the first, {self.usable:,} can be used and {self.rejected:,} cannot",
            "each row: one image and one text",
            f"meta data: {', '.join(self.first.meta) or 'none'}",
            f"first caption: {self.first.text[:_SHOWN]!r}",
        ]


def recognise(path: str) -> Recognised:
    """Look at a file or folder.

    Args:
        path: local or a URL.

    Raises:
        BadInput: it is of no known layout, or of several, or holds no sample among its first rows.
    """
    options: dict[str, Any] = {"type": _kind(path), "path": path}
    if options["type"] == "huggingface":
        options.update(first_split(path))
    looked = _look(options)
    if options["type"] == "folder" and isinstance(looked, Rejection):
        looked = _look({**options, "caption": _CAPTION})
    if isinstance(looked, Rejection):
        raise BadInput(
            f"{path!r} is taken for {options['type']}, but none of its first rows can be used: "
            f"{looked.source}: {looked.reason}: {looked.detail}"
        )
    return looked


def _kind(path: str) -> str:
    try:
        files = find_files(path, tuple(chain.from_iterable(_ENDINGS.values())))
    except BadInput as error:
        raise BadInput(f"{error} (known are {_known()})") from None
    tars = {_stem(file.path) for file in files if file.path.lower().endswith(_ENDINGS[_TARS])}
    names = [
        posixpath.basename(file.path).lower()
        for file in files
        # img2dataset writes a list in Parquet beside each tar.
        if not (file.path.lower().endswith(".parquet") and _stem(file.path) in tars)
    ]
    kinds = {
        kind
        for kind, ends in _ENDINGS.items()
        if any(name.endswith(ends) and name not in METADATA for name in names)
    }
    lists = sorted(kinds - {"folder"})
    if len(lists) > 1:
        raise BadInput(f"{path!r} holds several layouts, {', '.join(lists)}: name the files of one")
    if not kinds:
        raise BadInput(f"{path!r} is of no known layout (known are {_known()})")
    return lists[0] if lists else "folder"


def _stem(path: str) -> str:
    folder, name = posixpath.split(path)
    return posixpath.join(folder, name.partition(".")[0])


def _known() -> str:
    return "; ".join(f"{kind}: {' '.join(ends)}" for kind, ends in _ENDINGS.items())


def _look(options: dict[str, Any]) -> Recognised | Rejection:
    """Read the first rows; return the first rejection, where there is no sample among them."""
    kind = SOURCES.get(options["type"])
    source = kind(kind.Config.model_validate(options))
    shards = prepared(source)
    known = [shard.rows for shard in shards]
    first: Sample | None = None
    bad: Rejection | None = None
    texts: list[str | None] = []
    rejected = 0
    for item in islice(chain.from_iterable(shard.read() for shard in shards), _LOOKED_AT):
        if isinstance(item, Sample):
            first = first or item
            texts.append(item.text)
        elif isinstance(item, Rejection):
            bad, rejected = bad or item, rejected + item.lost
            texts.append(None)
    if first is None:
        return bad or Rejection(str(options["path"]), "no_rows", "there are no rows")
    rows = None if None in known else sum(number or 0 for number in known)
    usable = sum(text is not None for text in texts)
    return Recognised(options, source.found(), rows, tuple(texts), usable, rejected, first)

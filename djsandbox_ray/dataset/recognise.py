"""What lies at a path: which source reads it, and what a first look at it shows."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from fsspec.implementations.local import LocalFileSystem

from djsandbox_ray.dataset.folder import IMAGES, METADATA, VIDEOS
from djsandbox_ray.dataset.huggingface import first_split
from djsandbox_ray.dataset.layouts import (
    of_delimited,
    of_lines,
    of_list,
    of_saved,
    of_table,
    of_tar,
)
from djsandbox_ray.dataset.media import MODALITIES, Content
from djsandbox_ray.dataset.prepare import prepared
from djsandbox_ray.dataset.source import SOURCES, Rejection, Sample
from djsandbox_ray.dataset.source_files import SourceFile, find_files
from djsandbox_ray.errors import BadInput

_LOOKED_AT = 2000
_WATCHED = 200
"""Of videos, whose frames must be decoded, so many are looked at."""
_CAPTIONS = {
    "pairs": ("a photo of a {label}",),
    "videos": ("a video of a {label}", "a video"),
}
"""What is tried where nothing else describes the files of a folder."""
_SHOWN = 200
_TARS = "webdataset"
_ENDINGS = {
    _TARS: (".tar", ".tar.gz", ".tgz"),
    "parquet": (".parquet",),
    "csv": (".csv", ".tsv"),
    "jsonl": (".jsonl",),
    "huggingface": (".arrow",),
    "folder": (*IMAGES, *VIDEOS),
}
_LOOKS = {
    _TARS: of_tar,
    "parquet": of_table,
    "csv": of_delimited,
    "jsonl": of_lines,
    "huggingface": of_saved,
}
"""Which of these may hold something else than pairs."""
_JSON = ".json"
_WITH_FOLDER = ("llava", "interleaved", "coco", "csv")
"""Sources whose media may lie in a folder that the data do not name."""
_MOST_FOLDERS = 5


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
    modalities: tuple[str, ...]
    """What there is in these, of ``text``, ``image``, ``video`` and ``turns``."""
    first: Sample
    content: Content

    @property
    def lines(self) -> list[str]:
        """What a user is told."""
        rows = f"{self.usable + self.rejected:,} and more" if self.rows is None else self.rows
        return [
            f"layout: {self.options['type']}",
            f"content: {self.content} ({', '.join(self.modalities)})",
            *self.found,
            f"rows: {rows}; of the first, {self.usable:,} can be used and {self.rejected:,} cannot",
            f"each row: {self._row}",
            f"meta data: {', '.join(self.first.meta) or 'none'}",
            f"first {'caption' if self.content in _CAPTIONS else 'text'}: "
            f"{self.first.text[:_SHOWN]!r}",
        ]

    @property
    def _row(self) -> str:
        told = {
            "pairs": "one image and one text",
            "videos": "one video and one text",
            "texts": "a text",
        }
        if self.content in told:
            return told[self.content]
        media, turns = len(self.first.all_media), len(self.first.turns)
        what = "a document, media in order"
        if self.content == "conversations":
            what = "a conversation, its text what the assistant says"
        there = [f"{turns} turns"] if turns else []
        return f"{what} (in the first {', '.join([*there, f'{media} media'])})"


def recognise(path: str) -> Recognised:
    """Look at a file or folder.

    Args:
        path: local or a URL.

    Raises:
        BadInput: it is of no known layout, or of several, or holds no sample among its first rows.
    """
    options = _options(path)
    kind, content = options["type"], options.get("content", "pairs")
    if kind == "huggingface":
        options.update(first_split(path))
    looked = _look(options)
    if kind == "folder" and isinstance(looked, Rejection):
        looked = _captioned(options, content)
    elif kind in _WITH_FOLDER and (isinstance(looked, Rejection) or looked.rejected):
        looked = _with_folder(options, looked)
    elif kind == "jsonl" and isinstance(looked, Rejection) and looked.reason == "escaping_path":
        looked = _above(options, looked)
    elif kind == "jsonl" and _misfits(looked):
        looked = _better(looked, _look({**options, "content": "any"}))
    if isinstance(looked, Rejection):
        said = f" with content: {content}" if "content" in options else ""
        raise BadInput(
            f"{path!r} is taken for {kind}{said}, but none of its first rows can be used: "
            f"{looked.source}: {looked.reason}: {looked.detail}"
        )
    return looked


def _misfits(looked: Recognised | Rejection) -> bool:
    """Say whether lines do not hold what the first one does: more than a few pairs, or any."""
    if isinstance(looked, Rejection):
        return looked.reason in ("media_count", "image_count", "bad_tokens")
    return looked.rejected > (looked.usable if looked.content == "pairs" else 0)


def _better(*looks: Recognised | Rejection) -> Recognised | Rejection:
    """Return the first one of those that can use the most."""
    return max(looks, key=lambda one: one.usable if isinstance(one, Recognised) else 0)


def _captioned(options: dict[str, Any], content: Content) -> Recognised | Rejection:
    """Look at a folder where nothing describes the media, but maybe the names of folders do.

    Raises:
        BadInput: these do not, either.
    """
    *most, last = _CAPTIONS[content]
    for caption in most:
        try:
            return _look({**options, "caption": caption})
        except BadInput:  # all media lie in one folder
            continue
    return _look({**options, "caption": last})


def _with_folder(options: dict[str, Any], looked: Recognised | Rejection) -> Recognised | Rejection:
    """Try the folders beside a file, or in a folder, as those of its media; keep the best one."""
    path = Path(options["path"]).expanduser()
    beside = path if path.is_dir() else path.parent
    if not beside.is_dir():  # a URL
        return looked
    key = "videos" if options.get("content") == "videos" else "images"
    folders = sorted(one for one in beside.iterdir() if one.is_dir() and one.name[0] != ".")
    tried = [_look({**options, key: str(folder)}) for folder in folders[:_MOST_FOLDERS]]
    return _better(looked, *tried)


def _above(options: dict[str, Any], looked: Recognised | Rejection) -> Recognised | Rejection:
    """Allow media in a folder around that of the lines, where paths lead out of that."""
    path = Path(options["path"]).expanduser()
    folder = (path if path.is_dir() else path.parent).resolve()
    if not folder.is_dir():  # a URL
        return looked
    around = (folder, folder.parent)
    return _better(*(_look({**options, "media_root": str(one)}) for one in around), looked)


def _options(path: str) -> dict[str, Any]:
    """Return the section that reads what lies at a path."""
    endings = (*chain.from_iterable(_ENDINGS.values()), _JSON)
    try:
        files = find_files(path, endings)
    except BadInput as error:
        raise BadInput(f"{error} (known are {_known()})") from None
    tars = {_stem(file.path) for file in files if file.path.lower().endswith(_ENDINGS[_TARS])}
    kinds: dict[str, SourceFile] = {}
    """The first file of each."""
    for file in files:
        name = posixpath.basename(file.path).lower()
        # img2dataset writes a list in Parquet beside each tar.
        if name in METADATA or (name.endswith(".parquet") and _stem(file.path) in tars):
            continue
        for kind, ends in _ENDINGS.items():
            if name.endswith(ends):
                kinds.setdefault(kind, file)
    lists = sorted(kinds.keys() - {"folder"})
    if len(lists) > 1:
        raise BadInput(f"{path!r} holds several layouts, {', '.join(lists)}: name the files of one")
    if lists:
        (kind,) = lists
        look = _LOOKS.get(kind)
        return {**(look(kinds[kind]) if look else {"type": kind}), "path": path}
    # Other files of JSON lie beside images, too: only those count that are of a known layout.
    known = [(file, of_list(file)) for file in files if file.path.lower().endswith(_JSON)]
    told = [(file, options) for file, options in known if options]
    if len({options["type"] for _, options in told}) > 1 or 1 < len(told) < len(known):
        names = ", ".join(file.name for file, _ in told)
        raise BadInput(f"{path!r} holds several layouts: name the files of one (there are {names})")
    if told:
        (file, options), *_ = told
        alone = len(told) < len(known) and isinstance(file.fs, LocalFileSystem)
        return {**options, "path": file.path if alone else path}
    if not kinds:
        raise BadInput(f"{path!r} is of no known layout (known are {_known()})")
    # An animation may be either; among images it is one.
    has_images = any(file.path.lower().endswith(IMAGES) for file in files)
    return {"type": "folder", **({} if has_images else {"content": "videos"}), "path": path}


def _stem(path: str) -> str:
    folder, name = posixpath.split(path)
    return posixpath.join(folder, name.partition(".")[0])


def _known() -> str:
    known = (f"{kind}: {' '.join(ends)}" for kind, ends in _ENDINGS.items())
    return "; ".join([*known, f"llava, coco: {_JSON}"])


def _look(options: dict[str, Any]) -> Recognised | Rejection:
    """Read the first rows; return the first rejection, where there is no sample among them."""
    kind = SOURCES.get(options["type"])
    source = kind(kind.Config.model_validate(options))
    content: Content = source.config.content
    shards = prepared(source)
    known = [shard.rows for shard in shards]
    samples = chain.from_iterable(shard.read() for shard in shards)
    first: Sample | None = None
    bad: Rejection | None = None
    texts: list[str | None] = []
    held: set[str] = {"text"}
    rejected = 0
    for item in islice(samples, _WATCHED if content == "videos" else _LOOKED_AT):
        if isinstance(item, Sample):
            first = first or item
            texts.append(item.text)
            held |= {medium.kind for medium in item.all_media}
            held |= {"turns"} if item.turns else set()
        elif isinstance(item, Rejection):
            bad, rejected = bad or item, rejected + item.lost
            texts.append(None)
    if first is None:
        return bad or Rejection(str(options["path"]), "no_rows", "there are no rows")
    return Recognised(
        options=options,
        found=source.found(),
        rows=None if None in known else sum(number or 0 for number in known),
        texts=tuple(texts),
        usable=sum(text is not None for text in texts),
        rejected=rejected,
        modalities=tuple(one for one in MODALITIES["any"] if one in held),
        first=first,
        content=content,
    )

"""JSON Lines in the layout of Data-Juicer: text with special tokens, paths of media beside it."""

from __future__ import annotations

import json
from functools import partial
from typing import Any, ClassVar

from pydantic import Field

from djsandbox_ray.dataset.beside import read_beside, rooted
from djsandbox_ray.dataset.conversation import turn_marks
from djsandbox_ray.dataset.entries import Keys, meta_beside, no_text, read_entry, type_named
from djsandbox_ray.dataset.faults import Unusable
from djsandbox_ray.dataset.json_files import PEEKED, Marks, lines_of
from djsandbox_ray.dataset.media import PAIR_TOKENS, Content, without_tokens
from djsandbox_ray.dataset.source import Item, Sample, Shard, SourceConfig
from djsandbox_ray.dataset.source_files import FileSource, SourceFile
from djsandbox_ray.errors import BadInput


class JsonlConfig(SourceConfig):
    """Where the files are and which keys to read."""

    LOCATION: ClassVar[frozenset[str]] = SourceConfig.LOCATION | {"media_root"}
    path: str | tuple[str, ...]
    """A file, a folder or a glob, local or a URL; or a list of these."""
    text: str = "text"
    """Key of the text. Data-Juicer's special tokens are taken out of a caption, and stay where
    they stand in a document (``content: any``)."""
    images: str = "images"
    """Key of the images' paths, relative to the file: a text, or a list; of pairs exactly one."""
    videos: str = "videos"
    """Key of the videos' paths, as those of images; of pairs it is kept as meta data."""
    turns: str | None = None
    """Key of a conversation's turns; if left out, ``conversations``, ``messages``, ``turns``, or
    Data-Juicer's ``query``, ``response`` and ``history``."""
    media_root: str | None = Field(default=None, min_length=1)
    """The folder in which media may lie, where paths such as ``../images/1.jpg`` lead out of that
    of the file; they stay relative to the file, which lies in it, too."""


class JsonlSource(FileSource):
    """A shard is a file, split into 1024 lines each.

    The stamp is that of the file with the lines: an image changed in place goes unnoticed, and one
    needs to touch the file with the lines to have it read again.
    """

    SUFFIXES: ClassVar[tuple[str, ...]] = (".jsonl",)
    CONTENTS: ClassVar[tuple[Content, ...]] = ("pairs", "videos", "texts", "conversations", "any")
    HAS_PLACES: ClassVar[bool] = True
    Config = JsonlConfig
    config: JsonlConfig

    def shards(self) -> list[Shard]:
        """Look at the first lines of the files; where the others begin is for tasks to find out."""
        files = self.files()
        for file in files:
            _refuse_list(file)
        if (root := self.config.media_root) is not None:
            files = [rooted(file, root) for file in files]
        return [self._shard(file) for file in files]

    def stamp(self) -> dict[str, Any]:
        """Add whether media may lie elsewhere: more samples may be usable then."""
        elsewhere = {} if self.config.media_root is None else {"media_root": True}
        return {**super().stamp(), **elsewhere}

    def _shard(self, file: SourceFile) -> Shard:
        config = self.config
        if config.content == "pairs":
            marks: Marks = ((config.text, config.images),)
            return lines_of(file, marks, partial(_pair, file, config))
        keys = Keys(config.text, (config.images,), (config.videos,), config.turns)
        marks = turn_marks(config.turns)
        if config.content == "any":
            marks = (*marks, (config.text, config.images))
        elif config.content != "conversations":
            marks = ((config.text,),)
        return lines_of(file, marks, partial(read_entry, file, keys, config.content))


def _refuse_list(file: SourceFile) -> None:
    """Say what to do with a file that is one JSON list, as LLaVA's are."""
    with file.open() as handle:
        start = handle.read(PEEKED).removeprefix(b"\xef\xbb\xbf").lstrip()
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
        "text and images of the source name what to read; lists of conversations are for the "
        f"source 'llava'{keys})"
    )


def _pair(file: SourceFile, config: JsonlConfig, source: str, entry: dict[str, Any]) -> list[Item]:
    keys = ", ".join(entry)
    text, images = entry.pop(config.text, None), entry.pop(config.images, None)
    if not isinstance(text, str):
        raise no_text(config.text, text, keys)
    paths = [images] if isinstance(images, str) else images
    if not isinstance(paths, list) or len(paths) != 1 or not isinstance(paths[0], str):
        count = len(paths) if isinstance(paths, list) else type_named(images)
        raise Unusable(
            "image_count", f"key {config.images!r}: one path, not {count} (the line has {keys})"
        )
    image = read_beside(file, paths[0])
    meta, remarks = meta_beside(source, entry)
    return [Sample(image, without_tokens(text, PAIR_TOKENS), source, meta), *remarks]

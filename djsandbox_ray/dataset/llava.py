"""Conversations about images, as LLaVA and ShareGPT hold them: a JSON list, or JSON Lines."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from djsandbox_ray.dataset.beside import placed
from djsandbox_ray.dataset.conversation import turn_marks
from djsandbox_ray.dataset.entries import Keys, read_entry
from djsandbox_ray.dataset.json_files import is_list, lines_of, list_of
from djsandbox_ray.dataset.media import Content
from djsandbox_ray.dataset.source import Shard, SourceConfig
from djsandbox_ray.dataset.source_files import FileSource

_KEYS = Keys(images=("image", "images"), videos=("video", "videos"))


class LlavaConfig(SourceConfig):
    """Where conversations and their images are."""

    LOCATION: ClassVar[frozenset[str]] = frozenset({"path", "images"})

    path: str | tuple[str, ...]
    """Files of JSON or JSON Lines, a folder of them or a glob; local or URLs."""
    images: str | None = None
    """The folder that images and videos lie in; if left out, that of the file."""
    content: Content = "conversations"


class LlavaSource(FileSource):
    """A shard is a file, split into 1024 conversations each.

    A list is read through once for where its entries begin, and never held as a whole. The stamp is
    that of the file with the conversations: a medium changed in place goes unnoticed.
    """

    SUFFIXES: ClassVar[tuple[str, ...]] = (".json", ".jsonl")
    Config = LlavaConfig
    CONTENTS: ClassVar[tuple[Content, ...]] = ("conversations",)
    HAS_PLACES: ClassVar[bool] = True
    VERSION: ClassVar[int | None] = 2
    config: LlavaConfig

    def shards(self) -> list[Shard]:
        """Look at the first characters of the files; the rest is for tasks."""
        shards = []
        for file in self.files():
            folder = self.config.images
            place = file if folder is None else placed(file, folder)
            items = partial(read_entry, place, _KEYS, self.config.content)
            cut = list_of if is_list(file) else lines_of
            shards.append(cut(file, turn_marks(None), items))
        return shards

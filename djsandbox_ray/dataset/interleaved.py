"""Documents in which texts and images take turns, as OBELICS and MMC4 hold them.

OBELICS has ``texts`` and ``images``, two lists of one length: at each place one of them is filled.
MMC4 has sentences in ``text_list``, and in ``image_info`` images with the number of the sentence
that each belongs to; an image stands before its sentence.

Such data are lists of addresses, of which never all can be fetched: an image that is not there is
left out of its document, with a remark. Only a document that is left without any is set aside.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar

from djsandbox_ray.dataset.beside import placed
from djsandbox_ray.dataset.entries import meta_beside, read_medium, type_named
from djsandbox_ray.dataset.faults import Unusable, shown
from djsandbox_ray.dataset.json_files import Marks, lines_of
from djsandbox_ray.dataset.media import IMAGE_TOKEN, Content, Media
from djsandbox_ray.dataset.object_rows import ObjectColumns
from djsandbox_ray.dataset.parquet import ParquetFiles
from djsandbox_ray.dataset.source import Item, Remark, Sample, Shard, SourceConfig
from djsandbox_ray.dataset.source_files import SourceFile
from djsandbox_ray.errors import BadInput

NOT_DOWNLOADED = "images of documents that were not downloaded"

TEXTS, IMAGES = "texts", "images"
SENTENCES, PICTURES = "text_list", "image_info"
_NAME, _PLACE = "image_name", "matched_text_index"
_LEFT_OUT = "similarity_matrix"
"""Of MMC4: says of places in lists that are no more what they were."""
DOCUMENT_MARKS: Marks = ((TEXTS, IMAGES), (SENTENCES, PICTURES))
"""Keys, or columns, of a document."""
_LINES = ".jsonl"


class InterleavedConfig(SourceConfig):
    """Where documents and their images are."""

    LOCATION: ClassVar[frozenset[str]] = frozenset({"path", "images"})

    path: str | tuple[str, ...]
    """Files of JSON Lines or of Parquet, a folder of them or a glob; local or URLs."""
    images: str | None = None
    """The folder that images lie in, where they are paths; if left out, that of the file."""
    meta_columns: tuple[str, ...] = ()
    """Columns of Parquet files to keep as ``meta``; of a line all keys are kept."""
    content: Content = "any"


class InterleavedSource(ParquetFiles):
    """A shard is 1024 lines, or a few row groups of a Parquet file."""

    SUFFIXES: ClassVar[tuple[str, ...]] = (_LINES, ".parquet")
    Config = InterleavedConfig
    CONTENTS: ClassVar[tuple[Content, ...]] = ("any",)
    VERSION: ClassVar[int | None] = 2
    config: InterleavedConfig

    def shards(self) -> list[Shard]:
        """Find the files, and look at the columns of those that have some.

        Raises:
            BadInput: there are lines and tables, or columns of neither layout.
        """
        files = self.files()
        lines = [file for file in files if file.path.lower().endswith(_LINES)]
        if not lines:
            return super().shards()
        if len(lines) < len(files):
            raise BadInput(f"path: {self.config.path!r} holds JSON Lines and Parquet: name one")
        if self.config.meta_columns:
            raise BadInput("meta_columns: for Parquet files; of JSON Lines all keys are kept")
        return [
            lines_of(file, DOCUMENT_MARKS, partial(document, self._images(file))) for file in lines
        ]

    def columns(self, file: SourceFile, names: list[str]) -> ObjectColumns:
        """Choose the columns of a file.

        Raises:
            BadInput: they are of neither layout.
        """
        for held in DOCUMENT_MARKS:
            if set(held) <= set(names):
                items = partial(document, self._images(file))
                said = f"documents from the columns {' and '.join(map(repr, held))}"
                return ObjectColumns(items, held, self.config.meta_columns, said)
        raise BadInput(f"{file.name} has no columns {_layouts()} (it has {', '.join(names)})")

    def _images(self, file: SourceFile) -> SourceFile:
        return file if self.config.images is None else placed(file, self.config.images)


def _layouts() -> str:
    return ", or ".join(f"{one!r} and {other!r}" for one, other in DOCUMENT_MARKS)


def document(place: SourceFile, source: str, entry: dict[str, Any]) -> list[Item]:
    """Return the sample that an object is, with a token where each image stands.

    Args:
        place: a file beside which the images lie.
        source: where it stands.
        entry: is used up.

    Raises:
        Unusable: it is no document, one of its paths leads astray, or no image of several is there.
    """
    if entry.get(SENTENCES) is not None:
        pieces, between = _sentences(entry), " "
        entry.pop(_LEFT_OUT, None)
    elif entry.get(TEXTS) is not None:
        pieces, between = _aligned(entry), "\n"
    else:
        has = ", ".join(entry) or "no keys"
        raise Unusable("bad_row", f"a document has {_layouts()} (there are {has})")
    words: list[str] = []
    media: list[Media] = []
    absent: list[str] = []
    for text, image in pieces:
        if text is not None:
            words.append(text)
        elif isinstance(medium := _fetched(place, image), Media):
            words.append(IMAGE_TOKEN)
            media.append(medium)
        else:
            absent.append(medium)
    if absent and not media:
        raise Unusable("not_downloaded", f"none of its images is there: {absent[0]}")
    meta, remarks = meta_beside(source, entry)
    if absent:
        remarks = [*remarks, Remark(source, NOT_DOWNLOADED, absent[0], len(absent))]
    return [Sample(b"", between.join(words).strip(), source, meta, tuple(media)), *remarks]


_Piece = tuple[str | None, Any]
"""A text, or None and an image."""


def _aligned(entry: dict[str, Any]) -> Iterable[_Piece]:
    """Return what stands in OBELICS' two lists, in order."""
    texts, images = entry.pop(TEXTS), entry.pop(IMAGES, None)
    for key, held in ((TEXTS, texts), (IMAGES, images)):
        if not isinstance(held, list):
            raise Unusable("bad_row", f"{key!r} is a list, not {type_named(held)}")
    if len(texts) != len(images):
        said = f"{TEXTS!r} has {len(texts)} places, {IMAGES!r} {len(images)}"
        raise Unusable("bad_row", f"{said}; at each, one of them is filled")
    for place, (text, image) in enumerate(zip(texts, images, strict=True)):
        if text is not None and not isinstance(text, str):
            raise Unusable("bad_text", f"{TEXTS}[{place}] is no text but {type_named(text)}")
        if text and not _is_empty(image):
            raise Unusable("bad_row", f"place {place} has both a text and an image")
    # Who has no nulls writes an empty text in place of one.
    pairs = zip(texts, images, strict=True)
    return [(text if _is_empty(image) else None, image) for text, image in pairs]


def _sentences(entry: dict[str, Any]) -> Iterable[_Piece]:
    """Return MMC4's sentences, each after the images that belong to it."""
    if PICTURES not in entry:  # misspelt, its images would be lost without a word
        raise Unusable("bad_row", f"a document with {SENTENCES!r} has {PICTURES!r} too")
    sentences, pictures = entry.pop(SENTENCES), entry.pop(PICTURES) or []
    if not isinstance(sentences, list) or not all(isinstance(one, str) for one in sentences):
        raise Unusable("bad_text", f"{SENTENCES!r} is a list of texts")
    if not isinstance(pictures, list):
        raise Unusable("bad_row", f"{PICTURES!r} is a list, not {type_named(pictures)}")
    before: list[list[_Piece]] = [[] for _ in sentences]
    for number, picture in enumerate(pictures):
        at = picture.get(_PLACE) if isinstance(picture, dict) else None
        if not isinstance(at, int) or isinstance(at, bool) or not 0 <= at < len(sentences):
            said = f"{_PLACE!r} is one of the {len(sentences)} sentences, not {shown(str(at))}"
            raise Unusable("bad_row", f"{PICTURES}[{number}]: {said}")
        before[at].append((None, picture.get(_NAME)))
    pieces = zip(before, sentences, strict=True)
    return [piece for images, text in pieces for piece in (*images, (text, None))]


def _is_empty(image: Any) -> bool:
    return not image or (isinstance(image, dict) and not any(map(image.get, ("bytes", "path"))))


def _fetched(place: SourceFile, image: Any) -> Media | str:
    """Return an image, or why there is none."""
    if isinstance(image, str) and "://" in image:
        return f"{shown(image)} is an address"
    if _is_empty(image):
        return "it is null, or empty"
    try:
        return read_medium(place, "image", image)
    except Unusable as error:
        if error.reason != "missing_image":
            raise
        return error.detail

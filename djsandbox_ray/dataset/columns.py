"""Which column holds what, where nobody said: by the names that people give to columns."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from djsandbox_ray.dataset.faults import Unusable, shown
from djsandbox_ray.dataset.media import Content, Kind
from djsandbox_ray.errors import BadInput

TEXT: Literal["text"] = "text"
IMAGE: Literal["image"] = "image"
VIDEO: Literal["video"] = "video"
What: TypeAlias = Literal["text"] | Kind
"""What a column may hold."""
_PATHS = ("file_name", "filename", "filepath", "file_path", "path")
_USUAL: dict[What, tuple[str, ...]] = {
    TEXT: (
        *("text", "caption", "captions", "title", "alt_text", "alt", "description", "sentence"),
        *("raw_caption", "prompt"),
    ),
    IMAGE: (
        *("image", "img", "jpg", "jpeg", "png", "webp", "image_path", "img_path", "image_file"),
        *_PATHS,
    ),
    VIDEO: (
        *("video", "clip", "mp4", "webm", "mkv", "mov", "avi", "video_path", "clip_path"),
        *("video_file", *_PATHS),
    ),
}
STATUS, ERROR = "status", "error_message"
DOWNLOADED = ("key", "url")
"""What is kept of the columns that img2dataset adds, beside these two."""
_ADDRESSES: dict[What, tuple[str, ...]] = {
    IMAGE: ("url", "image_url", "img_url"),
    VIDEO: ("url", "video_url", "contenturl"),
}
_FETCHERS: dict[What, str] = {IMAGE: "img2dataset", VIDEO: "video2dataset"}
META = "meta"
OWN_META = b"djsandbox_ray.meta"
"""In the schema of a Parquet file that was materialised: its column ``meta`` holds meta data."""


def choose(
    what: What,
    columns: Sequence[str],
    asked: str | None,
    file: str,
    key: str | None = None,
) -> str:
    """Return the column that holds the texts, the images or the videos.

    Args:
        what: ``TEXT``, ``IMAGE`` or ``VIDEO``.
        columns: of the file.
        asked: what the user chose.
        file: its name, for messages.
        key: by which a user chooses; ``text_column``, ``image_column`` or ``video_column``, if left
            out.

    Raises:
        BadInput: there is no such column, or several.
    """
    key = key or f"{what}_column"
    has = f"it has {', '.join(columns) or 'none'}"
    if asked is not None:
        if (times := columns.count(asked)) != 1:
            fault = f"has {times} columns" if times else "has no column"
            raise BadInput(f"{file} {fault} {asked!r} ({has})")
        return asked
    found = [column for column in columns if column.lower() in _USUAL[what]]
    if len(found) == 1:
        return found[0]
    if found:
        raise BadInput(
            f"{file}: {' and '.join(map(repr, found))} may hold the {what}s: {key} chooses one"
        )
    addresses = [column for column in columns if column.lower() in _ADDRESSES.get(what, ())]
    if addresses:
        raise BadInput(
            f"{file} names {what}s by addresses only ({', '.join(addresses)}), and nothing is "
            f"downloaded: let {_FETCHERS[what]} fetch them and read what it writes, or name a "
            f"column of paths by {key} ({has})"
        )
    raise BadInput(
        f"{file} has no column of a usual name for {what}s ({', '.join(_USUAL[what])}): "
        f"{key} chooses one ({has})"
    )


def content_of_names(columns: Collection[str]) -> Content | None:
    """Say what a table with such columns holds; None where their names do not tell.

    Paths and addresses may be those of images and of videos.
    """
    names = {column.lower() for column in columns}
    images = names & {*_USUAL[IMAGE], *_ADDRESSES[IMAGE]}
    videos = names & {*_USUAL[VIDEO], *_ADDRESSES[VIDEO]}
    if images - videos:
        return "pairs"
    if videos - images:
        return "videos"
    return "texts" if not videos and names & {*_USUAL[TEXT]} else None


def is_text_name(column: str) -> bool:
    """Say whether a column is called as those of texts usually are."""
    return column.lower() in _USUAL[TEXT]


def is_img2dataset(columns: Collection[str]) -> bool:
    """Say whether img2dataset, or its like for videos, has written rows with such columns."""
    return {STATUS, ERROR, *DOWNLOADED} <= set(columns)


def require_downloaded(values: Mapping[str, Any]) -> None:
    """Refuse a row of img2dataset whose file it could not fetch.

    Args:
        values: of its columns.

    Raises:
        Unusable: says why, in img2dataset's words.
    """
    if (status := values[STATUS]) != "success":
        said = f"img2dataset says {status}: {shown(str(values[ERROR]))}"
        raise Unusable("not_downloaded", said)

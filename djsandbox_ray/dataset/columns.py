"""Which column holds what, where nobody said: by the names that people give to columns."""

from __future__ import annotations

from collections.abc import Sequence

from djsandbox_ray.errors import BadInput

TEXT, IMAGE = "text", "image"
_USUAL = {
    TEXT: (
        *("text", "caption", "captions", "title", "alt_text", "alt", "description", "sentence"),
        *("raw_caption", "prompt"),
    ),
    IMAGE: (
        *("image", "img", "jpg", "jpeg", "png", "webp", "image_path", "img_path", "file_name"),
        *("filename", "filepath", "file_path", "image_file", "path"),
    ),
}
_ADDRESSES = ("url", "image_url", "img_url")


def choose(what: str, columns: Sequence[str], asked: str | None, file: str) -> str:
    """Return the column that holds the texts, or the images.

    Args:
        what: ``TEXT`` or ``IMAGE``; ``{what}_column`` is the key by which a user chooses.
        columns: of the file.
        asked: what the user chose.
        file: its name, for messages.

    Raises:
        BadInput: there is no such column, or several.
    """
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
            f"{file}: {' and '.join(map(repr, found))} may hold the {what}s: "
            f"{what}_column chooses one"
        )
    addresses = [column for column in columns if column.lower() in _ADDRESSES]
    if what == IMAGE and addresses:
        raise BadInput(
            f"{file} names images by addresses only ({', '.join(addresses)}), and nothing is "
            "downloaded: let img2dataset fetch them and read what it writes, or name a column of "
            f"paths by image_column ({has})"
        )
    raise BadInput(
        f"{file} has no column of a usual name for {what}s ({', '.join(_USUAL[what])}): "
        f"{what}_column chooses one ({has})"
    )

"""JSON Lines in Data-Juicer's layout: a text with its image token, and image files beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator

from djsandbox_ray.recipes.shards import Row, ShardFormat
from djsandbox_ray.recipes.tokens import tagged
from djsandbox_ray.storage import Storage


class Jsonl(ShardFormat):
    """A line has ``text``, ``images`` (one path, relative to the file) and ``meta``.

    The images of ``000000.jsonl`` lie in ``images/000000/``. Tokens stand around the caption, so
    that blanks at its ends do not survive, nor do tokens that stood inside it.
    """

    suffix = "jsonl"

    def write(self, output: Storage, name: str, rows: Iterator[Row]) -> None:
        """Write the images as they come; the file with the lines appears last."""
        folder = f"images/{name.removesuffix('.jsonl')}"
        with output.open_write(name) as file:
            for row in rows:
                path = f"{folder}/{row.name}.{row.image_extension}"
                output.write_bytes(path, row.image)
                line = {"text": tagged(row.text), "images": [path], "meta": row.meta_object}
                file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")

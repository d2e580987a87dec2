"""Rows as a dataset of Hugging Face: Parquet files whose images and videos its viewers show.

The folder is what ``datasets.load_dataset`` reads and what the hub takes: the schema of every file
says which columns are images and videos, and ``README.md`` is the card that the hub shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq

from djsandbox_ray.dataset.columns import META, OWN_META
from djsandbox_ray.dataset.media import IMAGE_TOKEN, VIDEO_TOKEN, Kind
from djsandbox_ray.dataset.writers.formats import Row, ShardFormat, Written
from djsandbox_ray.errors import BadInput
from djsandbox_ray.records import Dataset
from djsandbox_ray.storage.hub import CARD, card
from djsandbox_ray.storage.store import Storage

_GROUP_ROWS, _VIDEO_ROWS = 100, 8
"""Rows of a group: the viewer reads a group to show one of them."""
_FILE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_TURNS = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
_SIGNS = {IMAGE_TOKEN: "<image>", VIDEO_TOKEN: "<video>"}
"""What stands in turns where a medium belongs: the signs of LLaVA and of chat templates."""
_FEATURES: dict[Kind, dict[str, str]] = {"image": {"_type": "Image"}, "video": {"_type": "Video"}}


@dataclass(frozen=True)
class _Layout:
    """Which columns hold what the samples of a dataset are made of."""

    sole: Kind | None
    """The one medium that each has, in a column of its name."""
    listed: tuple[Kind, ...]
    """The media of which each has any number, in columns such as ``images``."""
    turns: bool
    """Whether there are conversations, in the column ``messages``."""

    @classmethod
    def of(cls, dataset: Dataset) -> _Layout:
        """Choose the columns by what the samples of the dataset have."""
        if dataset.pairs:
            return _PAIRS
        kinds: tuple[Kind, ...] = ("image", "video")
        there = tuple(kind for kind in kinds if kind in dataset.modalities)
        if there == ("video",) and "turns" not in dataset.modalities:
            return cls("video", (), turns=False)
        return cls(None, there, "turns" in dataset.modalities)

    @property
    def schema(self) -> pa.Schema:
        """The schema, with what Hugging Face and our own source are to know of it."""
        text: dict[str, Any] = {"dtype": "string", "_type": "Value"}
        columns: list[tuple[str, pa.DataType, Any]] = [
            ("row_id", pa.int64(), {"dtype": "int64", "_type": "Value"})
        ]
        if self.sole is not None:
            columns.append((self.sole, _FILE, _FEATURES[self.sole]))
        for kind in self.listed:
            columns.append((f"{kind}s", pa.list_(_FILE), [_FEATURES[kind]]))
        if self.turns:
            columns.append(("messages", _TURNS, [{"role": text, "content": text}]))
        columns += [("text", pa.string(), text), (META, pa.string(), text)]
        features = {name: feature for name, _, feature in columns}
        about = {
            b"huggingface": json.dumps({"info": {"features": features}}).encode(),
            OWN_META: b"json",
        }
        return pa.schema([(name, kind) for name, kind, _ in columns], about)

    @property
    def rows_of_group(self) -> int:
        """How many rows are held at once."""
        return _VIDEO_ROWS if "video" in (self.sole, *self.listed) else _GROUP_ROWS

    def values(self, row: Row) -> dict[str, Any]:
        """Return the values of a row by column.

        Raises:
            BadInput: it has more media than the columns hold.
        """
        files = [(medium.kind, {"bytes": medium.data, "path": name}) for name, medium in row.files]
        values: dict[str, Any] = {"row_id": row.row_id, "text": row.text, META: row.meta}
        if self.sole is not None:
            if len(files) > 1:
                raise BadInput(
                    f"row {row.row_id} has {len(files)} media: where there are only texts and "
                    f"{self.sole}s, huggingface holds one {self.sole} each; jsonl holds any samples"
                )
            return values | {self.sole: files[0][1] if files else None}
        if not row.is_in_order:
            values["text"] = row.tagged_text
        for kind in self.listed:
            values[f"{kind}s"] = [file for of, file in files if of == kind]
        if self.turns:
            values["messages"] = [
                {"role": turn.role, "content": _signed(turn.text)} for turn in row.turns
            ]
        return values


_PAIRS = _Layout("image", (), turns=False)


class HuggingFaceShards(ShardFormat):
    """Columns ``row_id``, ``image`` or ``video`` (or lists of both), ``text`` and ``meta`` (JSON).

    Of conversations also ``messages``, with ``<image>`` where an image belongs.
    """

    suffix: ClassVar[str] = "parquet"
    _layout = _PAIRS

    def begin(self, dataset: Dataset) -> None:
        """Choose the columns: the same in all files."""
        self._layout = _Layout.of(dataset)

    def write(self, output: Storage, name: str, rows: Iterator[Row]) -> None:
        """Write a Parquet file.

        Raises:
            BadInput: a sample that has more media than the columns hold.
        """
        layout, schema = self._layout, self._layout.schema
        # Media are compressed already.
        words = ["text", META]
        words += [f"messages.list.element.{part}" for part in ("role", "content") if layout.turns]
        with (
            output.open_write(name) as file,
            pq.ParquetWriter(
                file,
                schema,
                compression=dict.fromkeys(words, "zstd"),
                use_dictionary=False,
                write_page_index=True,
            ) as writer,
        ):
            while group := [layout.values(row) for row in islice(rows, layout.rows_of_group)]:
                writer.write_table(pa.Table.from_pylist(group, schema))

    def finish(self, output: Storage, written: Written) -> None:
        """Write the card, unless there is one: somebody may have written into it."""
        if output.exists(CARD):
            return
        count = f"{written.rows:,} rows, written by `djsandbox materialise`."
        said = [*written.about, count, _columns_said(self._layout)]
        files = {"config_name": "default", "data_files": [{"split": "train", "path": "*.parquet"}]}
        text = card("Rows chosen by their statistics", said, {"configs": [files]})
        output.write_bytes(CARD, text.encode())


def _columns_said(layout: _Layout) -> str:
    said = (
        "`row_id` is the position of the sample in the sample table of the run; `meta` is a JSON "
        "object of all else that was known of it."
    )
    if layout.turns:
        said += " In `messages`, `<image>` and `<video>` stand where the media belong, in order."
    return said


def _signed(text: str) -> str:
    """Return what is said in a turn with the signs of other programs for its media."""
    for token, sign in _SIGNS.items():
        text = text.replace(token, sign)
    return text

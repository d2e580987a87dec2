"""Latents of clips, stored once for all pools and seeds: a Lance table of half-precision numbers.

A codec is never trained, so that its latents of a clip are the same in every trial. In half
precision a number of unit variance is off by a two-thousandth at most; what is computed on the way
is rounded in the same way, so that a trial gets the same numbers with and without a store.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from djsandbox_ray.dataset.sample_table import lance_options
from djsandbox_ray.errors import BadInput, SandboxError, require
from djsandbox_ray.trials.growing import readable
from djsandbox_ray.trials.objective import noise
from djsandbox_ray.trials.t2v.codec import Codec
from djsandbox_ray.trials.t2v.training_clips import Clips

ROW = "row_id"
"""The column that latents are known by."""
_SHAPE, _WINDOWS = b"shape", b"windows"
_FIELD = "latent"
_AT_ONCE = 32
"""Clips that are encoded at once."""
_APART = 1 << 32
"""Added to a seed where something else of a sample is drawn than its noise."""


def encoded(codec: Codec, frames: NDArray[np.uint8]) -> NDArray[np.float16]:
    """Return the latents of clips in half precision.

    Args:
        codec: of the model.
        frames: shape (n, frames, height, width, 3).
    """
    torch = require("torch", "clip")
    with torch.inference_mode():
        found: NDArray[np.float16] = codec.encode(torch.from_numpy(frames)).half().cpu().numpy()
    if not np.isfinite(found).all():
        raise SandboxError("the codec's latents are not finite in half precision")
    return found


def write_latents(
    uri: str,
    clips: Clips,
    codec: Codec,
    windows: int = 1,
    beat: Callable[[], None] = lambda: None,
) -> None:
    """Write the latents of all rows of clips, a table that :class:`StoredLatents` reads.

    Args:
        uri: of the table, which is not there yet.
        clips: of rows in rising order, each once.
        codec: of the model.
        windows: of each clip, equally far apart.
        beat: called again and again.

    Raises:
        BadInput: a clip cannot be decoded, or there are none.
    """
    if not len(clips):
        raise BadInput(f"{uri}: there are no clips to be encoded")
    if np.any(np.diff(clips.rows) <= 0):
        raise SandboxError("latents are stored of rows in rising order, each once")
    schema = latents_schema(codec.ratios.shape(clips.shape.frames, *clips.shape.size), windows)
    lance.write_dataset(
        latent_batches(clips, codec, windows, beat),
        uri,
        schema=schema,
        mode="create",
        storage_options=lance_options(uri),
    )


def latents_schema(shape: Sequence[int], windows: int = 1) -> pa.Schema:
    """Return the columns of a table of latents.

    Args:
        shape: of one: channels, frames, height, width.
        windows: of each clip.
    """
    return pa.schema(
        [
            pa.field(ROW, pa.int64()),
            pa.field("window", pa.int32()),
            pa.field(_FIELD, pa.list_(pa.float16(), math.prod(shape))),
        ],
        metadata={_SHAPE: ",".join(map(str, shape)), _WINDOWS: str(windows)},
    )


def latent_batches(
    clips: Clips, codec: Codec, windows: int = 1, beat: Callable[[], None] = lambda: None
) -> Iterator[pa.RecordBatch]:
    """Decode and encode clips, some at a time; all windows of a row stand behind each other.

    Raises:
        BadInput: a clip cannot be decoded, or has no latents.
    """
    shape = codec.ratios.shape(clips.shape.frames, *clips.shape.size)
    schema = latents_schema(shape, windows)
    for start in range(0, len(clips), _AT_ONCE):
        positions = np.arange(start, min(start + _AT_ONCE, len(clips)))
        seen = [clips.windows(positions, number, windows) for number in range(windows)]
        frames = np.stack([clip for some in zip(*seen, strict=True) for clip in some])
        rows = np.repeat(clips.rows[positions], windows)
        numbers = np.tile(np.arange(windows, dtype=np.int32), len(positions))
        beat()
        flat = pa.array(encoded(codec, frames).reshape(-1))
        latents = pa.FixedSizeListArray.from_arrays(flat, math.prod(shape))
        yield pa.RecordBatch.from_arrays(
            [pa.array(rows), pa.array(numbers), latents], schema=schema
        )


class StoredLatents:
    """Random access to stored latents. Opened on first use; it can be sent to other processes.

    Args:
        uri: as :func:`write_latents` was given it.
        rows: whose latents are read; shape (n,).
        seed: with several windows, decides which is taken each time.
    """

    def __init__(self, uri: str, rows: NDArray[np.int64], seed: int = 0) -> None:
        self.uri, self._rows, self._seed = uri, rows, seed

    def __reduce__(self) -> tuple[type[StoredLatents], tuple[Any, ...]]:
        return StoredLatents, (self.uri, self._rows, self._seed)

    def __len__(self) -> int:
        return len(self._rows)

    @cached_property
    def _table(self) -> Any:
        with readable(self.uri):
            return lance.dataset(self.uri, storage_options=lance_options(self.uri))

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Channels, frames, height and width of one."""
        said = self._table.schema.metadata[_SHAPE].decode()
        return tuple(map(int, said.split(",")))

    @cached_property
    def windows(self) -> int:
        """How many there are of every row."""
        return int(self._table.schema.metadata[_WINDOWS])

    @cached_property
    def _held(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows of which there are latents, rising, and where the first window of each is."""
        with readable(self.uri):
            stored = self._table.to_table(columns=[ROW])[ROW].to_numpy()[:: self.windows]
        order = np.argsort(stored)
        return stored[order], order * self.windows

    def holds(self) -> NDArray[np.bool_]:
        """Return of which of the rows there are latents; shape (n,)."""
        found: NDArray[np.bool_] = np.isin(self._rows, self._held[0])
        return found

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        """Where the first window of each of the rows is in the table."""
        held = self.holds()
        if not held.all():
            missing = self._rows[~held]
            raise BadInput(
                f"{self.uri}: there are no latents of {len(missing)} of the rows, such as "
                f"{missing[0]}"
            )
        stored, places = self._held
        found: NDArray[np.int64] = places[np.searchsorted(stored, self._rows)]
        return found

    def take(
        self, positions: NDArray[np.int64], order: NDArray[np.int64] | None = None
    ) -> NDArray[np.float16]:
        """Return latents at some positions among the rows; shape (n, channels, f, h, w).

        Args:
            positions: among the rows.
            order: of several windows, these numbers decide which; without them, the first is taken.

        Raises:
            BadInput: there are none of a row.
        """
        places = self._places[positions]
        if order is not None and self.windows > 1:
            drawn = [noise(self._seed + _APART, number).integers(self.windows) for number in order]
            places = places + np.array(drawn)
        with readable(self.uri):
            column = self._table.take(places, columns=[_FIELD])[_FIELD].combine_chunks()
        flat: NDArray[np.float16] = column.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(positions), *self.shape)

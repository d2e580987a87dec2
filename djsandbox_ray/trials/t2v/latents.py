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
from djsandbox_ray.trials.growing import GrownRows
from djsandbox_ray.trials.t2v.codec import Codec
from djsandbox_ray.trials.t2v.training_clips import Clips

ROW = "row_id"
"""The column that latents are known by."""
_SHAPE = b"shape"
_FIELD = "latent"
_AT_ONCE = 32
"""Clips that are encoded at once."""


def encoded(codec: Codec, frames: NDArray[np.uint8]) -> NDArray[np.float16]:
    """Return the latents of clips in half precision.

    Args:
        codec: of the model.
        frames: shape (n, frames, height, width, 3).

    Raises:
        SandboxError: they are not finite.
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
    beat: Callable[[], None] = lambda: None,
) -> None:
    """Write the latents of all rows of clips, a table that :class:`StoredLatents` reads.

    Args:
        uri: of the table, which is not there yet.
        clips: of rows in rising order, each once.
        codec: of the model.
        beat: called again and again.

    Raises:
        BadInput: a clip cannot be decoded, or there are none.
    """
    if not len(clips):
        raise BadInput(f"{uri}: there are no clips to be encoded")
    if np.any(np.diff(clips.rows) <= 0):
        raise SandboxError("latents are stored of rows in rising order, each once")
    schema = latents_schema(codec.ratios.shape(clips.shape.frames, *clips.shape.size))
    lance.write_dataset(
        latent_batches(clips, codec, beat),
        uri,
        schema=schema,
        mode="create",
        storage_options=lance_options(uri),
    )


def latents_schema(shape: Sequence[int]) -> pa.Schema:
    """Return the columns of a table of latents.

    Args:
        shape: of one: channels, frames, height, width.
    """
    return pa.schema(
        [
            pa.field(ROW, pa.int64()),
            pa.field(_FIELD, pa.list_(pa.float16(), math.prod(shape))),
        ],
        metadata={_SHAPE: ",".join(map(str, shape))},
    )


def latent_batches(
    clips: Clips, codec: Codec, beat: Callable[[], None] = lambda: None
) -> Iterator[pa.RecordBatch]:
    """Decode and encode clips, some at a time.

    Raises:
        BadInput: a clip cannot be decoded, or has no latents.
    """
    shape = codec.ratios.shape(clips.shape.frames, *clips.shape.size)
    schema = latents_schema(shape)
    for start in range(0, len(clips), _AT_ONCE):
        positions = np.arange(start, min(start + _AT_ONCE, len(clips)))
        beat()
        flat = pa.array(encoded(codec, clips.take(positions)).reshape(-1))
        latents = pa.FixedSizeListArray.from_arrays(flat, math.prod(shape))
        rows = pa.array(clips.rows[positions])
        yield pa.RecordBatch.from_arrays([rows, latents], schema=schema)


class StoredLatents:
    """Random access to stored latents. Opened on first use; it can be sent to other processes.

    Args:
        uri: as :func:`write_latents` was given it.
        rows: whose latents are read; shape (n,).
    """

    def __init__(self, uri: str, rows: NDArray[np.int64]) -> None:
        self.uri, self._rows = uri, rows
        self._stored = GrownRows(uri, ROW)

    def __reduce__(self) -> tuple[type[StoredLatents], tuple[Any, ...]]:
        return StoredLatents, (self.uri, self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Channels, frames, height and width of one."""
        return tuple(map(int, self._stored.metadata[_SHAPE].decode().split(",")))

    def holds(self) -> NDArray[np.bool_]:
        """Return of which of the rows there are latents; shape (n,)."""
        return self._stored.holds(self._rows)

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.float16]:
        """Return latents at some positions among the rows; shape (n, channels, f, h, w).

        Raises:
            BadInput: there are none of a row.
        """
        column = self._stored.take(self._rows[positions], _FIELD).combine_chunks()
        flat: NDArray[np.float16] = column.flatten().to_numpy(zero_copy_only=False)
        return flat.reshape(len(positions), *self.shape)

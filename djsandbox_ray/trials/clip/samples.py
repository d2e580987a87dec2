"""Samples as arrays: decoded and tokenised once, shared by all trials through the object store.

``Packed`` holds the whole table as blocks in Ray's object store, which every process of a node
reads without a copy. ``Streamed`` decodes what is asked for at each call, for larger tables.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import psutil
import ray
from numpy.typing import NDArray
from PIL import Image
from ray.exceptions import RayTaskError

from djsandbox_ray.dataset.images import decode, shortened
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.nodes.connection import node_resources
from djsandbox_ray.nodes.kinds import NodeKind
from djsandbox_ray.trials.clip.arch import Tokenizer, image_size

Images = NDArray[np.uint8]
Tokens = NDArray[np.int32]

_BLOCK_ROWS = 2048
# A fraction of a CPU: no other task may be waiting for the rest.
_CPUS_PER_TASK = 0.5
# Of the object store, the share that samples may take; Ray Data and results need the rest.
_STORE_SHARE = 0.5


class Samples(Protocol):
    """Random access to preprocessed samples by row id."""

    def images(self, rows: NDArray[np.int64]) -> Images:
        """Return RGB images, shape (len(rows), side, side, 3)."""

    def tokens(self, rows: NDArray[np.int64]) -> Tokens:
        """Return token ids of captions, shape (len(rows), context_length)."""


@dataclass(frozen=True)
class Packed:
    """Blocks of equally many rows in the object store."""

    block_rows: int
    image_blocks: tuple[Any, ...] = field(repr=False)
    token_blocks: tuple[Any, ...] = field(repr=False)

    def images(self, rows: NDArray[np.int64]) -> Images:
        """Gather images from the blocks."""
        images: Images = _gather(self.image_blocks, self.block_rows, rows)
        return images

    def tokens(self, rows: NDArray[np.int64]) -> Tokens:
        """Gather tokens from the blocks."""
        tokens: Tokens = _gather(self.token_blocks, self.block_rows, rows)
        return tokens


@dataclass(frozen=True)
class Streamed:
    """Samples that are read and decoded at every call."""

    uri: str
    arch: dict[str, Any] = field(repr=False)
    threads: int

    def images(self, rows: NDArray[np.int64]) -> Images:
        """Read and decode images; JPEG decoding leaves the interpreter lock, so threads help."""
        table = SampleTable(self.uri)
        table.check(rows)
        data = table.take(rows, ["image"])["image"].to_pylist()
        side = image_size(self.arch)
        with ThreadPoolExecutor(self.threads) as pool:
            return np.stack(list(pool.map(lambda item: preprocess(item, side), data)))

    def tokens(self, rows: NDArray[np.int64]) -> Tokens:
        """Read and tokenise captions."""
        texts = SampleTable(self.uri).take(rows, ["text"])["text"].to_pylist()
        return Tokenizer(self.arch)(texts)


def share_samples(uri: str, arch: dict[str, Any], nodes: NodeKind) -> tuple[Samples, float]:
    """Decode and tokenise a table with Ray tasks, or stream it where it would not fit.

    Args:
        uri: the Lance table.
        arch: open_clip configuration: image size, context length and vocabulary.
        nodes: where the tasks run.

    Returns:
        The samples, and for how long the tasks have held CPUs: CPUs times seconds.
    """
    rows = SampleTable(uri).rows
    row_bytes = image_size(arch) ** 2 * 3 + 4 * int(arch["text_cfg"].get("context_length", 77))
    # A head that works for nobody holds no samples.
    stores = [node.get("object_store_memory", 0.0) for node in node_resources() if "CPU" in node]
    store = min(stores, default=0.0)
    if rows * row_bytes > _STORE_SHARE * store:
        return Streamed(uri, arch, threads=4), 0.0
    task: Any = ray.remote(num_cpus=_CPUS_PER_TASK, num_returns=3)(_pack).options(
        name="decode samples", resources=nodes.demand()
    )
    start = time.perf_counter()
    blocks = [
        task.remote(uri, arch, first, min(first + _BLOCK_ROWS, rows))
        for first in range(0, rows, _BLOCK_ROWS)
    ]
    images, tokens, ends = zip(*blocks, strict=True)
    held = _held_seconds(ends, start) * _CPUS_PER_TASK
    return Packed(_BLOCK_ROWS, images, tokens), held


def _held_seconds(ends: Sequence[Any], start: float) -> float:
    """Wait for tasks, and return for how long Ray held what they reserve, all together.

    A process takes one task after the other until none is left: it is held from the start, or
    from its own if there was no room before, to the end of its last task.
    """
    held: dict[str, float] = {}
    waiting = list(ends)
    while waiting:
        (ready,), waiting = ray.wait(waiting, num_returns=1)
        try:
            process, age = ray.get(ready)
        except RayTaskError as error:
            raise error.cause from None  # what it says is for the user, without Ray's traceback
        held[process] = min(time.perf_counter() - start, age)
    return sum(held.values())


def preprocess(data: bytes, side: int) -> Images:
    """Decode an image, scale its shorter side to ``side`` and crop the centre; (side, side, 3).

    Of a very long one only the middle is scaled: else it would fill the memory.
    """
    image = shortened(decode(data), side)
    scale = side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    if (width, height) != image.size:
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - side) // 2, (height - side) // 2
    return np.asarray(image.crop((left, top, left + side, top + side)), dtype=np.uint8)


def _pack(
    uri: str, arch: dict[str, Any], start: int, stop: int
) -> tuple[Images, Tokens, tuple[str, float]]:
    """Return a block, and which process made it, with its age in seconds."""
    table = SampleTable(uri)
    columns = table.scan(start, stop, ["image", "text", "digest"])
    table.check(np.arange(start, stop), columns)
    side = image_size(arch)
    images = np.stack([preprocess(item, side) for item in columns["image"].to_pylist()])
    tokens = Tokenizer(arch)(columns["text"].to_pylist())
    process = ray.get_runtime_context().get_worker_id()
    return images, tokens, (process, time.time() - psutil.Process().create_time())


def _gather(blocks: Sequence[Any], block_rows: int, rows: NDArray[np.int64]) -> Any:
    block_of, offset = np.divmod(rows, block_rows)
    result = None
    for number in np.unique(block_of):
        block = ray.get(blocks[number])
        here = block_of == number
        if result is None:
            result = np.empty((len(rows), *block.shape[1:]), block.dtype)
        result[here] = block[offset[here]]
    return result

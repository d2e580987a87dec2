"""What the tower sees of images: computed once for all trials, by actors, and stored.

A tower is never trained: of an image it sees the same in every trial, in both stages and where
questions are answered. Pools, seeds, studies and runs share a table for each dataset, in
``image_features/<id>/`` of the storage, known by the base, the dataset and how images become
squares: each adds the rows that are not there yet.

A trial in float32 gets the very numbers. Of one in bfloat16 they are stored in it: the first matrix
of its projector rounds them so anyway.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.errors import SandboxError, require
from djsandbox_ray.identity import content_id
from djsandbox_ray.trials.conversations import images_of, naming
from djsandbox_ray.trials.family import Preparing, device_for
from djsandbox_ray.trials.growing import GrowingTable, GrownRows, Keys, RowsJob, Wanted, grow
from djsandbox_ray.trials.llava.base_folder import Words, load_base
from djsandbox_ray.trials.llava.pixels import Aspect, Squares
from djsandbox_ray.trials.loop import lower_frozen
from djsandbox_ray.trials.model_folders import folder_content, made_base

VERSION = 1
"""Part of the ids of tables: to be raised when the tower sees the same images otherwise."""
FEATURES = "image features"
"""The name of what is stored of the pool's images."""
MOST = 20_000_000_000
"""Bytes of a table that ``auto`` stores at most."""
_ROW, _SEEN, _SHAPE = "row_id", "features", b"shape"
_AT_ONCE = 64
"""Rows whose images are looked at together."""


def of_table(name: str) -> str:
    """Return the name of what is stored of a fixed table, by its name, or of a set, by its id."""
    return f"{FEATURES} of {name}"


def features_schema(shape: tuple[int, int], half: bool) -> pa.Schema:
    """Return the columns of a table; of a row all of its images lie one behind the other.

    Args:
        shape: of an image: tokens and width.
        half: whether numbers are the bits of bfloat16, which Arrow does not have.
    """
    number = pa.int16() if half else pa.float32()
    columns = [pa.field(_ROW, pa.int64()), pa.field(_SEEN, pa.large_list(number))]
    return pa.schema(columns, metadata={_SHAPE: ",".join(map(str, shape))})


@dataclass(frozen=True)
class FeaturesJob(RowsJob):
    """Decodes images, and has the tower look at them."""

    table: str
    """URI of the sample table."""
    base: str
    """URI of the folder of the base."""
    shape: tuple[int, int]
    """Tokens and width."""
    aspect: Aspect
    half: bool
    """Whether trials compute in bfloat16."""
    lowered: bool
    """Whether the tower's matrices are in it."""
    whole: bool
    """Whether the base is turned into float32 first."""
    device: tuple[float, float]
    """CPUs and GPUs of an actor."""

    def batches(self, schema: pa.Schema, keys: Keys) -> Iterator[pa.RecordBatch]:
        """Look at the images of some rows."""
        table, number = SampleTable(self.table), schema.field(_SEEN).type.value_type
        for start in range(0, len(keys), _AT_ONCE):
            some = keys[start : start + _AT_ONCE]
            files = images_of(table, some)
            with naming(f"{self.table}, rows {some[0]} to {some[-1]}"):
                seen = _seen(self, some, files)
            ends = np.cumsum([0, *map(len, files)]) * int(np.prod(self.shape))
            flat = pa.array(seen.reshape(-1), number)
            lists = pa.LargeListArray.from_arrays(pa.array(ends, pa.int64()), flat)
            yield pa.RecordBatch.from_arrays([pa.array(some), lists], schema=schema)


@lru_cache(maxsize=1)
def _reader(base: str, device: str, lowered: bool, whole: bool) -> tuple[Any, Words]:
    """Return what makes features of squares, and how squares are made."""
    from djsandbox_ray.trials.llava.modules import Reader

    with made_base(base) as folder:
        loaded = load_base(folder)
    tower = loaded.llava.requires_grad_(False).model.vision_tower
    if whole:
        tower.float()
    tower.to(device)
    if lowered:
        lower_frozen(tower)
    return Reader(loaded.llava), loaded.words


def _seen(job: FeaturesJob, rows: Keys, files: Sequence[Sequence[bytes]]) -> NDArray[Any]:
    """Return what the tower sees of all images, in order; shape (images, tokens, width)."""
    torch, device = require("torch", "clip"), device_for(*job.device)
    reader, words = _reader(job.base, device, job.lowered, job.whole)
    looks = Squares(words.pixels, job.aspect)
    every = [image for some in looks.of(rows.tolist(), files) for image in some]
    kind = np.int16 if job.half else np.float32
    if not every:
        return np.zeros((0, *job.shape), kind)
    squares = torch.from_numpy(np.stack(every)).to(device)
    with torch.autocast(device, torch.bfloat16, enabled=job.half):
        found = reader.features(looks.given(squares))
    if tuple(found.shape[1:]) != job.shape:
        raise SandboxError(
            f"the tower sees {tuple(found.shape[1:])} numbers of an image, not {job.shape}"
        )
    found = found.to(torch.bfloat16).view(torch.int16) if job.half else found.float()
    seen: NDArray[Any] = found.cpu().numpy()
    return seen


@dataclass(frozen=True)
class Pictured:
    """A table whose images trials look at."""

    name: str
    """Of what is stored of it."""
    dataset: str
    """Id of the dataset."""
    table: str
    """Its URI."""
    rows: Keys
    aspect: Aspect
    half: bool
    lowered: bool
    whole: bool
    """See :class:`FeaturesJob`, as those before."""


def store_features(
    pictured: Sequence[Pictured],
    base: str,
    shape: tuple[int, int],
    work: Preparing,
    numerics: dict[str, str],
) -> tuple[dict[str, str], float]:
    """Have stored what the tower sees.

    Args:
        pictured: of which tables.
        base: URI of the folder of the base.
        shape: of an image: tokens and width.
        work: where, and who computes.
        numerics: what numbers hang on beside all that.

    Returns:
        The URIs of tables by their names, and the seconds that actors lived.

    Raises:
        BadInput: an image or the base cannot be read.
    """
    content, growth = folder_content(base), work.growth

    def wanted(one: Pictured) -> Wanted:
        how = [one.aspect, one.half, one.lowered, one.whole]
        made = content_id("features", VERSION, content, how, one.dataset, numerics)
        folder, schema = f"image_features/{made}", features_schema(shape, one.half)
        table = GrowingTable(work.storage, folder, schema, _ROW)
        given = (one.aspect, one.half, one.lowered, one.whole, (growth.cpus, growth.gpus))
        job = FeaturesJob(one.table, base, shape, *given)
        return Wanted(table, one.rows, one.name, lambda _: job)

    tables = {one.name: wanted(one) for one in pictured}
    seconds = grow([*tables.values()], growth)
    return {name: one.table.uri for name, one in tables.items()}, seconds


class StoredFeatures:
    """Gives the model what its tower has seen. Opened on first use.

    Args:
        uri: of a table of :func:`features_schema`.
    """

    def __init__(self, uri: str) -> None:
        self._rows = GrownRows(uri, _ROW)

    @cached_property
    def _shape(self) -> tuple[int, ...]:
        return tuple(map(int, self._rows.metadata[_SHAPE].decode().split(",")))

    def holds(self, rows: Sequence[int]) -> bool:
        """Say whether all of some rows are there."""
        return bool(self._rows.holds(np.asarray(rows, np.int64)).all())

    def of(self, rows: Sequence[int], files: Sequence[Sequence[bytes]]) -> list[list[NDArray[Any]]]:
        """Read what the tower sees; each of shape (tokens, width), float32 or bits of bfloat16.

        Raises:
            BadInput: of a row there is nothing.
        """
        different, places = np.unique(np.asarray(rows, np.int64), return_inverse=True)
        found = self._rows.take(different, _SEEN).combine_chunks()
        ends, flat = found.offsets.to_numpy(), found.values.to_numpy()
        seen = [
            flat[start:stop].reshape(-1, *self._shape) for start, stop in pairwise(ends.tolist())
        ]
        return [
            list(seen[place][: len(some)])
            for place, some in zip(places.tolist(), files, strict=True)
        ]

    def blank(self) -> NDArray[np.float32]:
        """Return zeros: where nothing is looked at, what is seen does not count."""
        return np.zeros(self._shape, np.float32)

    def given(self, images: Any) -> Any:
        """Return the numbers that were stored."""
        torch = require("torch", "clip")
        return images.view(torch.bfloat16) if images.dtype == torch.int16 else images

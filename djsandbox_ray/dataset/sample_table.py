"""Random access to the sample table by ``row_id``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from djsandbox_ray.errors import Damaged, StorageFailed
from djsandbox_ray.identity import sample_digest
from djsandbox_ray.masking import without_secrets

_FIRST, _EVERY = 16, 100
"""Of the rows that are read for training, those that are checked: the first, and one in so many."""
_AWAY = re.compile(r"Generic (S3|GCS|Azure|HTTP) error|error sending request|timed? ?out")
_BUILT_AT = re.compile(r",? */(?:home/runner|rustc)/.*")
"""What Lance adds to its messages: where it was compiled."""
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


def lance_options(uri: str) -> dict[str, str] | None:
    """Return what Lance's own object store has to be told beside what the environment tells it.

    It reads the usual variables of this process, credentials among them; but an endpoint without
    TLS, such as a server on the same machine, needs a word of its own.
    """
    endpoint = next(filter(None, map(os.environ.get, _ENDPOINTS)), "")
    plain = uri.startswith(("s3://", "s3a://")) and endpoint.startswith("http://")
    return {"allow_http": "true"} if plain else None


class SampleTable:
    """A Lance sample table: ``row_id``, image, text, source, digest, meta (JSON).

    Opened on first use, so that it can be sent to Ray tasks and actors. Whatever is read of it may
    raise ``Damaged``, and ``StorageFailed`` where an object store does not answer.

    Args:
        uri: absolute path or URL, as ``storage.uri(dataset.table)`` gives it.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri

    def __reduce__(self) -> tuple[type[SampleTable], tuple[str]]:
        return SampleTable, (self.uri,)

    @cached_property
    def _table(self) -> Any:
        with _reading(self.uri):
            return lance.dataset(self.uri, storage_options=lance_options(self.uri))

    @cached_property
    def rows(self) -> int:
        """Number of samples."""
        with _reading(self.uri):
            return int(self._table.count_rows())

    def take(self, row_ids: Sequence[int] | NDArray[np.int64], columns: list[str]) -> pa.Table:
        """Return the rows of ``row_ids``, in the order given; ids may repeat.

        Raises:
            IndexError: an id is not in the table.
        """
        ids = np.asarray(row_ids, dtype=np.int64)
        if ids.size and (ids.min() < 0 or ids.max() >= self.rows):
            raise IndexError(f"row ids from {ids.min()} to {ids.max()} in {self.rows} rows")
        with _reading(self.uri):
            return self._table.take(ids, columns=columns)

    def scan(self, start: int, stop: int, columns: list[str]) -> pa.Table:
        """Return the rows from ``start`` up to ``stop`` (or the end), in order."""
        if not 0 <= start <= stop:
            raise IndexError(f"rows from {start} to {stop}")
        with _reading(self.uri):
            return self._table.to_table(columns=columns, offset=start, limit=stop - start)

    def check(self, row_ids: NDArray[np.int64], found: pa.Table | None = None) -> None:
        """Check some of the rows that are about to be used against their digests.

        The first ones and one in a hundred: what a damaged disk or a foreign hand has changed in
        many rows is found, at a hundredth of the price of reading.

        Args:
            row_ids: (n,).
            found: their columns ``image``, ``text`` and ``digest``, where they were read anyway.

        Raises:
            Damaged: a row is not what was ingested.
        """
        places = np.arange(len(row_ids))
        places = places[(places < _FIRST) | (places % _EVERY == 0)]
        columns = ["image", "text", "digest"]
        some = self.take(row_ids[places], columns) if found is None else found.take(places)
        rows = zip(row_ids[places].tolist(), some.select(columns).to_pylist(), strict=True)
        for row_id, row in rows:
            if sample_digest(row["image"], row["text"]) != row["digest"]:
                what = (
                    f"{self.uri}: row {row_id} is not what was ingested (its digest is another one)"
                )
                remedy = f"remove the folder {self.uri}, and the same command ingests it again"
                raise Damaged(without_secrets(what), without_secrets(remedy))

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a whole column in the order of ``row_id``: for small columns, not for images."""
        with _reading(self.uri):
            return self._table.to_table(columns=[name]).column(name)


@contextmanager
def _reading(uri: str) -> Iterator[None]:
    """Say in a sentence that a table cannot be read: Lance raises whatever its parts do."""
    try:
        yield
    except BaseException as error:
        # A manifest that is damaged may end in a panic, which is no Exception.
        panic = type(error).__name__ == "PanicException"
        if not panic and not isinstance(error, OSError | ValueError | RuntimeError):
            raise
        said = _BUILT_AT.sub("", next(iter(str(error).splitlines()), ""))
        what = without_secrets(f"the sample table {uri} cannot be read: {said}")
        if _AWAY.search(str(error)):
            raise StorageFailed(f"{what}; the same command goes on once that is mended") from None
        remedy = (
            "where it is damaged, remove dataset.json beside it and run the configuration again "
            "(djsandbox run): the data is read anew"
        )
        raise Damaged(what, remedy) from None

"""Random access to the sample table by ``row_id``.

Lance is imported where a table is opened: a plan opens none, and is to answer at once.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from djsandbox_ray.dataset.media import Kind, Media, Place, Turn
from djsandbox_ray.dataset.references import read_reference
from djsandbox_ray.errors import Damaged, StorageFailed
from djsandbox_ray.identity import document_digest, media_digest, sample_digest
from djsandbox_ray.masking import without_secrets
from djsandbox_ray.storage.filesystems import is_gone

MEDIA_DATA = "media_data"
"""The column of blobs that hold media."""
_FIRST, _EVERY = 16, 100
"""Of the rows that are read for training, those that are checked: the first, and one in so many."""
_AWAY = re.compile(r"Generic (S3|GCS|Azure|HTTP) error|error sending request|timed? ?out")
_BUILT_AT = re.compile(r",? */(?:home/runner|rustc)/.*")
"""What Lance adds to its messages: where it was compiled."""
_ANEW = (
    "where it is damaged, remove dataset.json beside it and run the configuration again (djsandbox "
    "run): the data is read anew"
)
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

    Where there may be more than pairs, also media and turns (JSON) and the blob with the media.

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
        import lance

        with readable(self.uri):
            return lance.dataset(self.uri, storage_options=lance_options(self.uri))

    @cached_property
    def rows(self) -> int:
        """Number of samples."""
        with readable(self.uri):
            return int(self._table.count_rows())

    def take(self, row_ids: Sequence[int] | NDArray[np.int64], columns: list[str]) -> pa.Table:
        """Return the rows of ``row_ids``, in the order given; ids may repeat.

        Raises:
            IndexError: an id is not in the table.
        """
        ids = np.asarray(row_ids, dtype=np.int64)
        if ids.size and (ids.min() < 0 or ids.max() >= self.rows):
            raise IndexError(f"row ids from {ids.min()} to {ids.max()} in {self.rows} rows")
        with readable(self.uri):
            return self._table.take(ids, columns=columns)

    def scan(self, start: int, stop: int, columns: list[str]) -> pa.Table:
        """Return the rows from ``start`` up to ``stop`` (or the end), in order."""
        if not 0 <= start <= stop:
            raise IndexError(f"rows from {start} to {stop}")
        with readable(self.uri):
            return self._table.to_table(columns=columns, offset=start, limit=stop - start)

    def check(self, row_ids: NDArray[np.int64], found: pa.Table | None = None) -> None:
        """Check some of the rows that are about to be used against their digests.

        The first ones and one in a hundred: what a damaged disk or a foreign hand has changed in
        many rows is found, at a hundredth of the price of reading.

        Args:
            row_ids: (n,).
            found: their columns ``image``, ``text`` and ``digest``, where they were read anyway;
                of a table of pairs.

        Raises:
            Damaged: a row is not what was ingested.
        """
        places = np.arange(len(row_ids))
        places = places[(places < _FIRST) | (places % _EVERY == 0)]
        columns = ["image", "text", "digest", *(["media", "turns"] if self.is_wide else [])]
        some = self.take(row_ids[places], columns) if found is None else found.take(places)
        rows = zip(row_ids[places].tolist(), some.select(columns).to_pylist(), strict=True)
        for row_id, row in rows:
            if _digest(row) != row["digest"]:
                raise self._changed(row_id)

    def _changed(self, row_id: int) -> Damaged:
        what = f"{self.uri}: row {row_id} is not what was ingested (its digest is another one)"
        remedy = f"remove the folder {self.uri}, and the same command ingests it again"
        return Damaged(without_secrets(what), without_secrets(remedy))

    @cached_property
    def is_wide(self) -> bool:
        """Whether there are columns for more than pairs."""
        with readable(self.uri):
            return MEDIA_DATA in self._table.schema.names

    def turns(self, row_ids: Sequence[int] | NDArray[np.int64]) -> list[tuple[Turn, ...]]:
        """Return the turns of samples; none of those that are no conversations."""
        if not self.is_wide:
            return [()] * len(row_ids)
        found = self.take(row_ids, ["turns"])["turns"].to_pylist()
        return [tuple(Turn(**turn) for turn in json.loads(turns)) for turns in found]

    def media(
        self, row_ids: Sequence[int] | NDArray[np.int64], kind: Kind | None = None
    ) -> list[tuple[Media, ...]]:
        """Return the images and videos of samples, in order; only the files asked for are read.

        Args:
            row_ids: (n,); ids may repeat.
            kind: of this kind only.

        Raises:
            IndexError: an id is not in the table.
            Damaged: a file is not what was ingested, or has changed where it lies.
        """
        columns = ["image", *(["media"] if self.is_wide else [])]
        rows = self.take(row_ids, columns).to_pylist()
        listed = [json.loads(row.get("media", "[]")) for row in rows]
        beside = [
            place
            for place, media in enumerate(listed)
            if any(one["size"] and kind in (None, one["kind"]) for one in media)
        ]
        with readable(self.uri):
            # Of rows that repeat, one blob each.
            ids = [int(row_ids[place]) for place in beside]
            blobs = dict(
                zip(beside, self._table.take_blobs(MEDIA_DATA, indices=ids), strict=True)
                if beside
                else ()
            )
        found: list[tuple[Media, ...]] = []
        for place, row in enumerate(rows):
            sole = [Media("image", row["image"])] if row["image"] and kind != "video" else []
            with readable(self.uri):
                read = _read_media(blobs.get(place), listed[place], kind)
            if not all(is_same for _, is_same in read):
                raise self._changed(int(row_ids[place]))
            found.append((*sole, *(medium for medium, _ in read)))
        return found

    def media_digests(self, start: int, stop: int) -> list[tuple[int, Kind, bytes]]:
        """Return row id, kind and digest of the content of every medium of some rows, in order.

        Of media, only images of pairs are read, and files that stay where they lie.

        Raises:
            Damaged: such a file has changed.
        """
        columns = ["image", *(["media"] if self.is_wide else [])]
        found: list[tuple[int, Kind, bytes]] = []
        for row_id, row in enumerate(self.scan(start, stop, columns).to_pylist(), start):
            if row["image"]:
                found.append((row_id, "image", media_digest("image", row["image"])))
            for one in json.loads(row.get("media", "[]")):
                found.append((row_id, one["kind"], _content_digest(one)))
        return found

    def column(self, name: str) -> pa.ChunkedArray:
        """Return a whole column in the order of ``row_id``: for small columns, not for images."""
        with readable(self.uri):
            return self._table.to_table(columns=[name]).column(name)


def _digest(row: dict[str, Any]) -> bytes:
    """Return the digest that a row ought to have; media beside it are known by theirs."""
    turns, media = json.loads(row.get("turns", "[]")), json.loads(row.get("media", "[]"))
    digests = [bytes.fromhex(one["digest"]) for one in media]
    if row["image"] and not turns:
        return sample_digest(row["image"], row["text"])
    sole = [media_digest("image", row["image"])] if row["image"] else []
    return document_digest(row["text"], [*sole, *digests], turns)


def _content_digest(one: dict[str, Any]) -> bytes:
    """Return the digest of a medium's content; that of a reference stands for its place."""
    if "place" in one:
        return media_digest(one["kind"], read_reference(Place(**one["place"])))
    return bytes.fromhex(one["digest"])


def _read_media(
    blob: Any, listed: list[dict[str, Any]], kind: Kind | None
) -> list[tuple[Media, bool]]:
    """Read the media of a kind, each with whether it has the digest that it ought to have.

    Args:
        blob: of those that were copied; None where none is wanted.
        listed: all media of the sample, as the column ``media`` has them.
        kind: of this kind only.
    """
    found, start = [], 0
    for one in listed:
        if kind in (None, one["kind"]):
            if "place" in one:
                known = Media(one["kind"], place=Place(**one["place"]))
                medium = Media(one["kind"], read_reference(Place(**one["place"])))
            else:
                blob.seek(start)
                known = medium = Media(one["kind"], bytes(blob.read(one["size"])))
            found.append((medium, known.digest.hex() == one["digest"]))
        start += one["size"]
    return found


@contextmanager
def readable(uri: str, what: str = "sample table", remedy: str = _ANEW) -> Iterator[None]:
    """Say in a sentence that a table of Lance cannot be read: Lance raises whatever its parts do.

    Args:
        uri: of the table.
        what: it is.
        remedy: what to do where it is damaged.

    Raises:
        StorageFailed: the storage is away.
        Damaged: the table is not what was written.
    """
    try:
        yield
    except BaseException as error:
        # A manifest that is damaged may end in a panic, which is no Exception.
        panic = type(error).__name__ == "PanicException"
        if not panic and not isinstance(error, OSError | ValueError | RuntimeError):
            raise
        said = _BUILT_AT.sub("", next(iter(str(error).splitlines()), ""))
        told = without_secrets(f"the {what} {uri} cannot be read: {said}")
        if is_gone(uri):
            raise StorageFailed(
                f"{told}; the storage was removed or unmounted while it was in use; bring it back, "
                "and the same command goes on"
            ) from None
        if _AWAY.search(str(error)):
            raise StorageFailed(f"{told}; the same command goes on once that is mended") from None
        raise Damaged(told, remedy) from None

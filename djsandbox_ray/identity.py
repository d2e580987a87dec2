"""Identity: content hashes of configurations and rows, the same on every machine and run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

_ID_BYTES = 8


def canonical(value: Any) -> bytes:
    """Serialise plain data to the one JSON text that equal data always give.

    Raises:
        TypeError: ``value`` holds something that is not plain data.
        ValueError: ``value`` holds NaN or an infinity, which have no JSON form.
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode()


def content_id(kind: str, *parts: Any) -> str:
    """Return ``kind-<16 hex digits>``, the id of what ``parts`` (plain data) determine."""
    digest = hashlib.blake2b(canonical([kind, *parts]), digest_size=_ID_BYTES)
    return f"{kind}-{digest.hexdigest()}"


def rows_hash(row_ids: NDArray[np.int64]) -> str:
    """Hash a set of row ids, whatever their order; 32 hex digits."""
    ordered = np.ascontiguousarray(row_ids, dtype="<i8")
    if not np.all(ordered[1:] > ordered[:-1]):  # rows are mostly in order: a sort costs far more
        ordered = np.sort(ordered)
    return hashlib.blake2b(ordered.data, digest_size=16).hexdigest()


def sample_digest(image: bytes, text: str) -> bytes:
    """Hash one image-text pair exactly: image bytes as stored and the text; 16 bytes."""
    digest = hashlib.blake2b(digest_size=16)
    digest.update(len(image).to_bytes(8, "little"))
    digest.update(image)
    digest.update(text.encode())
    return digest.digest()


def media_digest(kind: str, data: bytes) -> bytes:
    """Hash one image or video as stored; 16 bytes."""
    digest = hashlib.blake2b(f"{kind}\0".encode(), digest_size=16)
    digest.update(data)
    return digest.digest()


def place_digest(kind: str, name: str, size: int, version: str) -> bytes:
    """Hash one image or video that is known by its place: size in bytes, hash or time; 16 bytes."""
    parts = canonical([name, size, version])
    return hashlib.blake2b(f"{kind} at\0".encode() + parts, digest_size=16).digest()


def document_digest(
    text: str, media: Iterable[bytes], turns: Iterable[Mapping[str, str]] = ()
) -> bytes:
    """Hash a sample that is no pair: its text, the digests of its media in order, its turns."""
    parts = [text, [digest.hex() for digest in media], [dict(turn) for turn in turns]]
    return hashlib.blake2b(b"document\0" + canonical(parts), digest_size=16).digest()


def chain(digests: Iterable[bytes]) -> bytes:
    """Hash a sequence of digests, in order; 16 bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for item in digests:
        digest.update(item)
    return digest.digest()

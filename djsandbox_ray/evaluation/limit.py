"""A part of a benchmark: the same one for every trial, everywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

_LIMIT = b"limit\0"


def least(groups: Iterable[str], count: int) -> list[str]:
    """Return so many groups: those of the least hash, the same ones everywhere."""
    return sorted(set(groups), key=_hashed)[:count]


def _hashed(group: str) -> tuple[bytes, str]:
    return hashlib.blake2b(_LIMIT + group.encode(), digest_size=8).digest(), group

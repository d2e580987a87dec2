"""Filesystems by path or URL: local, object stores and whatever else fsspec knows.

Credentials and endpoints are read by the client of an object store from the environment of every
process; no record, manifest or argument of a task holds them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import fsspec

from djsandbox_ray.errors import BadInput, SandboxError, require
from djsandbox_ray.masking import without_secrets

_EXTRAS = {
    "s3": ("s3fs", "s3"),
    "s3a": ("s3fs", "s3"),
    "gs": ("gcsfs", "gcs"),
    "gcs": ("gcsfs", "gcs"),
}
"""Per scheme, the package that reads it and the extra that brings the package."""
_CLIENTS = {"aiobotocore", "aiohttp", "botocore", "gcsfs", "google"}
"""What raises where an object store cannot be reached."""


def filesystem(url: str) -> tuple[Any, str]:
    """Open the filesystem of a path or URL.

    It remembers no listings: other processes write there, too.

    Returns:
        The fsspec filesystem, and the path in it.

    Raises:
        BadInput: there is no such scheme, or its package is not installed: names the extra.
    """
    scheme = url.partition("://")[0]
    if scheme in _EXTRAS:
        require(*_EXTRAS[scheme])
    try:
        fs, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
    except (ValueError, ImportError) as error:
        # The error would show the address as it is.
        raise BadInput(without_secrets(f"{url!r} cannot be opened: {error}")) from None
    return fs, str(path)


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Say what is wrong where an object store refuses, or does not answer.

    Raises:
        BadInput: the credentials are missing or not good for it.
        SandboxError: it cannot be reached.
    """
    try:
        yield
    except Exception as error:
        refused = isinstance(error, PermissionError) or "Credential" in type(error).__name__
        if not refused and type(error).__module__.partition(".")[0] not in _CLIENTS:
            raise
        kind, what = (BadInput, "refuses access") if refused else (SandboxError, "is out of reach")
        raise kind(
            without_secrets(
                f"{url!r} {what}: {error}; endpoint and credentials are read from the environment "
                "of every node (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ...; docs/cluster.md)"
            )
        ) from None


def read_text(url: str, most: int = 16 << 20) -> str:
    """Read a text file, UTF-8, of a path or URL.

    Args:
        url: where it is.
        most: bytes that it may have; no more are read.

    Raises:
        OSError: it cannot be read.
        BadInput: its filesystem cannot be opened, or it has more bytes.
    """
    fs, path = filesystem(url)
    with reaching(url), fs.open(path, "rb") as file:
        data = bytes(file.read(most + 1))
    if len(data) > most:
        raise BadInput(f"{without_secrets(url)}: it has more than {most:,} bytes")
    return data.decode()


def has_buckets(fs: Any) -> bool:
    """Say whether the first folder is a bucket: a missing one is an error, never made."""
    names = [fs.protocol] if isinstance(fs.protocol, str) else fs.protocol
    return any(name in _EXTRAS for name in names)

"""Filesystems by path or URL: local, object stores and whatever else fsspec knows.

Credentials and endpoints are read by the client of an object store from the environment of every
process; no record, manifest or argument of a task holds them.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import fsspec

from djsandbox_ray.errors import BadInput, StorageFailed, require
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
_GCS_REFUSES = re.compile(
    r"Forbidden\b|Bad Request\b.*(invalid authentication|invalid credential|invalid_grant)",
    re.DOTALL | re.IGNORECASE,
)
"""How gcsfs begins an error, of no class of its own and without a number, where it is refused."""
_UNAUTHORISED = {"401", "403"}
_ABOUT_NAMES = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
"""Errors that speak of one path: the storage itself works."""
_WORDS = {
    errno.ENOSPC: "no space is left on the device",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EFBIG: "the file would be larger than is allowed",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
}
_SYSTEMS_WORDS = re.compile(
    "no space left on device|disk quota exceeded|read-only file system|file too large",
    re.IGNORECASE,
)
"""What is in the text of an error of Lance, Arrow or a server, which pass on no number."""


def filesystem(url: str) -> tuple[Any, str]:
    """Open the filesystem of a path or URL.

    It remembers no listings: other processes write there, too.

    Returns:
        The fsspec filesystem, and the path in it.

    Raises:
        BadInput: there is no such scheme, its package is not installed (names the extra), or the
            address is none that it could use.
        StorageFailed: it does not answer.
    """
    scheme = url.partition("://")[0]
    if scheme in _EXTRAS:
        require(*_EXTRAS[scheme])
    if scheme == "hf" and os.environ.get("HF_HUB_OFFLINE") == "1":
        raise BadInput(
            f"{url!r}: Hugging Face's hub is not asked unless the configuration says "
            "`cluster: {online: true}`"
        )
    try:
        fs, path = fsspec.core.url_to_fs(url, use_listings_cache=False)
        if "://" in str(path):  # of HTTP; fsspec takes the colons of an IPv6 address for its own
            urlsplit(str(path))
    except MemoryError:
        raise
    except Exception as error:  # of any filesystem: no such scheme or host, no archive, no Java
        # The error would show the address as it is.
        first = str(error).partition("\n")[0] or type(error).__name__
        kind = StorageFailed if _is_away(error) else BadInput  # some connect at once
        raise kind(without_secrets(f"{url!r} cannot be opened: {first}")) from None
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
        is_local = "://" not in url
        refused = refuses(error)
        if refused and is_local:
            raise BadInput(f"{url!r} refuses access: permission denied") from None
        if not refused and not _is_away(error):
            raise
        kind, what = (BadInput, "refuses access") if refused else (StorageFailed, "is out of reach")
        raise kind(
            without_secrets(
                f"{url!r} {what}: {error}; endpoint and credentials are read from the environment "
                "of every node (AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, ..., or "
                "GOOGLE_APPLICATION_CREDENTIALS; docs/cluster.md)"
            )
        ) from None


def refuses(error: BaseException) -> bool:
    """Say whether an error is a refusal: credentials are missing, have expired or are not enough.

    gcsfs has no class for it: a 403 is a bare OSError, some of the others are a ValueError.
    """
    if isinstance(error, PermissionError) or "Credential" in type(error).__name__:
        return True
    package = type(error).__module__.partition(".")[0]
    if package == "gcsfs":
        return str(getattr(error, "code", "")) in _UNAUTHORISED
    if package == "google":
        return type(error).__name__ == "RefreshError"  # of a token
    bare = type(error) in (OSError, ValueError) and getattr(error, "errno", None) is None
    return bare and _GCS_REFUSES.match(str(error)) is not None


def _is_away(error: Exception) -> bool:
    """Say whether an error is of the client of an object store, or of the network."""
    if isinstance(error, TimeoutError | ConnectionError):
        return True
    return type(error).__module__.partition(".")[0] in _CLIENTS


def storage_failure(error: BaseException, where: str) -> StorageFailed | None:
    """Return what an error says about the storage, in one sentence; None if it is about no storage.

    Full, read-only, over its quota, away or gone: nothing that another input would mend.

    Args:
        error: as the system, a client or a library raised it.
        where: the storage, or the path in it, as it may be shown.
    """
    if (told := disk_failure(error, where)) is not None:
        return told
    if not isinstance(error, OSError) or isinstance(error, _ABOUT_NAMES):
        return None
    if error.errno is not None:
        return _failed(where, _WORDS.get(error.errno) or os.strerror(error.errno).lower())
    return _failed(where, "it does not answer") if _is_away(error) else None


def disk_failure(error: BaseException, where: str) -> StorageFailed | None:
    """Return what an error says about a disk that takes nothing; None if it is another error.

    Args:
        error: of whoever wrote to some disk: it names the file if it knows it.
        where: the storage, as it may be shown.
    """
    if isinstance(error, OSError) and error.errno is not None:
        what = _WORDS.get(error.errno)
        # Without permission to read or run something, nothing is wrong with a disk.
        return _failed(where, what) if what and not isinstance(error, PermissionError) else None
    found = _SYSTEMS_WORDS.search(str(error))
    return _failed(where, found.group().lower()) if found else None


def is_gone(uri: str) -> bool:
    """Say whether not even the local storage is there that a table lies in, at ``folder/table``."""
    return "://" not in uri and not Path(uri).parent.parent.exists()


def _failed(where: str, what: str) -> StorageFailed:
    return StorageFailed(
        without_secrets(
            f"storage {where}: {what}; what is finished is kept, and the same command goes on once "
            "that is mended"
        )
    )


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

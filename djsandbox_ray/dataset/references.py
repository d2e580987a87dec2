"""Videos that stay where they are: known by name, size and change, and read there every time.

A reference is made once, when a video was read and checked. Who reads it later finds the same file,
or a sentence that says what has become of it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from djsandbox_ray.dataset.faults import Unusable, described, shown
from djsandbox_ray.dataset.media import Media, Place
from djsandbox_ray.dataset.source_files import opened
from djsandbox_ray.errors import BadInput, Damaged, SandboxError
from djsandbox_ray.identity import media_digest
from djsandbox_ray.masking import without_secrets

_VERSIONS = (
    *("ETag", "etag", "mtime", "LastModified", "last_modified", "Last-Modified", "updated"),
)
"""What filesystems call that which changes when a file does; a hash before a time."""
_REMEDY = (
    "put back the file as it was, or have it read anew (touch the file that lists it, if one does, "
    "and run the configuration again)"
)


def referred(medium: Media) -> Media:
    """Return a medium that was read as one that stays where it lies.

    Raises:
        Unusable: no text can say where it lies.
        BadInput: its source does not say where that is, its address holds a secret, or nothing
            would tell that it has changed.
        Damaged: it is gone, or has changed since it was read.
        SandboxError: disk or network fail.
    """
    if medium.place is None:
        raise BadInput(
            f"ingest.videos.store: reference needs {medium.kind}s that are files of their own, and "
            "the source does not say where they lie"
        )
    uri = medium.place.uri
    try:
        uri.encode()
    except UnicodeEncodeError:
        said = f"{shown(uri)} is no Unicode: it can be copied, but no table can refer to it"
        raise Unusable(f"missing_{medium.kind}", said) from None
    if without_secrets(uri) != uri:
        raise BadInput(
            f"ingest.videos.store: reference would write down the secret in {without_secrets(uri)}"
        )
    place = _now(medium.place)
    if not place.version:
        raise BadInput(
            f"ingest.videos.store: reference needs to see when {uri} changes, and its server "
            "gives neither a hash nor a time"
        )
    if place.size != len(medium.data):
        raise _other(place, f"{len(medium.data)} bytes were read of it, {place.size} are there")
    return Media(medium.kind, place=place, content=media_digest(medium.kind, medium.data))


def read_reference(place: Place) -> bytes:
    """Read what lies at a place.

    Raises:
        Damaged: it is not what was ingested.
        SandboxError: disk or network fail.
    """
    now = _now(place)
    if now.size != place.size:
        raise _other(place, f"it had {place.size} bytes, and has {now.size}")
    if now.version != place.version:
        raise _other(place, f"it has changed: {now.version!r} is not {place.version!r}")
    fs, inside = opened(place.uri)
    data = bytes(_asked(place, lambda: fs.cat_file(inside)))
    if len(data) != place.size:  # it has changed since
        raise _other(place, f"it had {place.size} bytes, and has {len(data)}")
    return data


def _now(place: Place) -> Place:
    """Return a place with the size and the version that its file has now."""
    fs, inside = opened(place.uri)
    info = _asked(place, lambda: fs.info(inside))
    version = next((str(info[key]) for key in _VERSIONS if info.get(key) is not None), "")
    return replace(place, size=int(info.get("size") or 0), version=version)


def _asked(place: Place, ask: Any) -> Any:
    try:
        return ask()
    except FileNotFoundError:
        raise _other(place, "it is gone") from None
    except Exception as error:  # of a disk, or of a client of an object store
        said = without_secrets(f"the video {place.uri} cannot be read: {described(error)}")
        raise SandboxError(said) from error


def _other(place: Place, fault: str) -> Damaged:
    what = f"the video {place.uri} is not what was ingested: {fault}"
    return Damaged(without_secrets(what), _REMEDY)

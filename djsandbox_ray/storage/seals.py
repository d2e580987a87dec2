"""What tells a file that is whole from one that is damaged: its size and digest, kept elsewhere.

A :class:`Seal` is kept by who lists files: a job's marker, a checkpoint, a dataset. JSON that the
package reads back vouches for itself: :func:`sealed` adds a checksum of its own content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, takewhile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from djsandbox_ray.errors import Damaged, Missing
from djsandbox_ray.identity import canonical

if TYPE_CHECKING:
    from djsandbox_ray.storage.store import Storage

CHECKSUM = "checksum"
"""The key in a JSON object that vouches for the others. Without it, a file is of an earlier version
or was changed by hand: it counts as it is."""
DIGESTED_BYTES = 64 << 20
"""A larger file is known by its size alone: every start of a run looks at all that are listed."""
FOLDER_BYTES = 256 << 20
"""Of a folder, so much is digested."""
_FOLDER_FILES = 256
_THREADS = 8
_DIGEST_BYTES = 16
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Seal:
    """What a file has to look like."""

    size: int
    """Bytes."""
    digest: str | None
    """blake2b in hex; None where it was too large to be read for this."""

    @classmethod
    def of(cls, data: bytes) -> Seal:
        """Return the seal of a whole file."""
        digest = _blake(data).hexdigest() if len(data) <= DIGESTED_BYTES else None
        return cls(len(data), digest)

    @classmethod
    def of_file(cls, path: Path, most: int = DIGESTED_BYTES) -> Seal:
        """Return the seal of a local file, which is read in pieces.

        Args:
            path: of the file.
            most: bytes of the largest file that is digested.
        """
        size = path.stat().st_size
        with path.open("rb") as file:
            return cls(size, _digest(file) if size <= most else None)

    @classmethod
    def read(cls, value: Any) -> Seal:
        """Return the seal that :meth:`plain` has written.

        Raises:
            ValueError: it is none.
        """
        match value:
            case [int(size), str() | None as digest]:
                return cls(size, digest)
        raise ValueError(f"not a size and a digest: {value!r:.80}")

    @property
    def plain(self) -> list[Any]:
        """It as JSON."""
        return [self.size, self.digest]


def seals_of(storage: Storage, folder: str, most: int = FOLDER_BYTES) -> dict[str, Seal]:
    """Return the seals of all files below a folder, by path in it.

    One listing tells the sizes. Digested are the small files, as many as can be read in a second or
    two: a table of terabytes is known by the sizes of its parts and by its manifest.

    Args:
        storage: where it lies.
        folder: in the storage.
        most: bytes of all files that are digested.
    """
    sizes = {name: int(stamp["size"]) for name, stamp in storage.stamps(folder).items()}
    read = [*_smallest({name: Seal(size, None) for name, size in sizes.items()}, most)]
    read = read[:_FOLDER_FILES]
    with ThreadPoolExecutor(_THREADS) as threads:
        seals = threads.map(lambda name: storage.seal(f"{folder}/{name}", most), read)
        digested = {name: seal for name, seal in zip(read, seals, strict=True) if seal}
    return {name: digested.get(name) or Seal(size, None) for name, size in sizes.items()}


def broken(storage: Storage, seals: Mapping[str, Seal]) -> dict[str, str]:
    """Return what is wrong with files, by path: those that are not as their seals say.

    Args:
        storage: where they lie.
        seals: by path.
    """
    with ThreadPoolExecutor(_THREADS) as threads:
        found = threads.map(storage.seal, seals, map(_told, seals.values()))
        checked = zip(seals.items(), found, strict=True)
        return {path: what for (path, seal), now in checked if (what := _wrong(seal, now))}


def broken_below(
    storage: Storage, folder: str, seals: Mapping[str, Seal], most: int | None = None
) -> dict[str, str]:
    """Return what is wrong with the files of a folder; what lies beside them does not count.

    Args:
        storage: where it lies.
        folder: in the storage.
        seals: by path in the folder, as :func:`seals_of` returned them.
        most: bytes of all files that are read for it, the small ones first; of the others, the
            sizes are compared. None for all that were digested.
    """
    stamps = storage.stamps(folder) if seals else {}
    wrong: dict[str, str] = {}
    digested: dict[str, Seal] = {}
    for name, seal in seals.items():
        path = f"{folder}/{name}" if folder else name
        found = Seal(int(stamps[name]["size"]), None) if name in stamps else None
        if what := _wrong(Seal(seal.size, None), found):
            wrong[path] = what
        elif seal.digest is not None:
            digested[path] = seal
    if most is not None:
        digested = _smallest(digested, most)
    return wrong | broken(storage, digested)


def broken_marked(storage: Storage, folder: str, marker: str) -> dict[str, str]:
    """Return what is wrong with the files that a folder's marker lists, by path; none if whole.

    Args:
        storage: where the folder is.
        folder: in it.
        marker: name of the file in the folder with ``files``, written last.
    """
    path = f"{folder}/{marker}"
    try:
        files = storage.read_sealed(path).get("files")
        return broken_below(storage, folder, seals_from_json(files)) if files is not None else {}
    except (Damaged, ValueError) as error:
        return {path: "is not there" if isinstance(error, Missing) else "is damaged"}


def shortened(wrong: Mapping[str, str]) -> str:
    """Return what is wrong with some files in one line: the first, and how many more."""
    lines = [f"{path} {what}" for path, what in wrong.items()]
    more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
    return lines[0] + more if lines else ""


def seals_to_json(seals: Mapping[str, Seal]) -> dict[str, Any]:
    """Return seals by path as plain data."""
    return {path: seals[path].plain for path in sorted(seals)}


def seals_from_json(value: Any) -> dict[str, Seal]:
    """Read what :func:`seals_to_json` returned.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(value, dict):
        raise ValueError(f"not seals by path: {value!r:.80}")
    return {str(path): Seal.read(seal) for path, seal in value.items()}


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain data with a checksum of itself."""
    # As it will be read: a tuple is a list then, and a number that was a key is a text.
    content = json.loads(json.dumps(dict(value), allow_nan=False))
    return {**content, CHECKSUM: _checksum(content)}


def unsealed(value: Any) -> dict[str, Any]:
    """Return the content of what :func:`sealed` returned, or of an object without a checksum.

    Raises:
        ValueError: it is no object, or the content is not the one that was written.
    """
    if not isinstance(value, dict) or not value:
        raise ValueError("it holds no object, or an empty one")
    content = {key: item for key, item in value.items() if key != CHECKSUM}
    if CHECKSUM in value and value[CHECKSUM] != _checksum(content):
        raise ValueError("its content does not match its checksum")
    return content


def _smallest(seals: Mapping[str, Seal], most: int) -> dict[str, Seal]:
    """Return the seals of the smallest files, as many as have so many bytes together."""
    ordered = sorted(seals, key=lambda path: (seals[path].size, path))
    totals = accumulate(seals[path].size for path in ordered)
    pairs = zip(ordered, totals, strict=True)
    return {path: seals[path] for path, total in takewhile(lambda pair: pair[1] <= most, pairs)}


def _told(seal: Seal) -> int:
    """Return the bytes of the largest file to be read, so that as much is told as a seal tells."""
    return seal.size if seal.digest is not None else -1


def _wrong(seal: Seal, found: Seal | None) -> str:
    if found is None:
        return "is not there"
    if found.size != seal.size:
        return f"has {found.size} bytes, not {seal.size}"
    return "" if found.digest == seal.digest else "is not what was written"


def _checksum(content: Mapping[str, Any]) -> str:
    return str(_blake(canonical(content)).hexdigest())


def _digest(file: IO[bytes]) -> str:
    digest = _blake(b"")
    while piece := file.read(_CHUNK):
        digest.update(piece)
    return str(digest.hexdigest())


def _blake(data: bytes) -> Any:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES)

"""Code as it was when the run began, in memory, so that every node has the same."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from djsandbox_ray.errors import BadInput

LARGEST = 64 * 2**20
"""Bytes of all files together: code, not data or weights."""
_NEVER = frozenset({"__pycache__", "node_modules", "site-packages"})


@dataclass(frozen=True)
class Snapshot:
    """Files by their relative paths, in one archive."""

    hash: str
    """Of paths, contents and which of them can be executed."""
    archive: bytes = field(repr=False)

    @classmethod
    def of(cls, paths: Sequence[str]) -> Snapshot:
        """Read files, each of which gets its name, and folders, of which the contents are taken.

        What :func:`is_left_out` says is not among the contents of a folder.

        Raises:
            BadInput: a path twice, a link to a folder, something that is no file, or too much.
        """
        files: dict[str, Path] = {}
        for path in map(Path, paths):
            for name, file in _found(path):
                if name in files:
                    raise BadInput(f"files: {name!r} is both {files[name]} and {file}")
                files[name] = file
        if (size := sum(file.stat().st_size for file in files.values())) > LARGEST:
            raise BadInput(
                f"files: {size:,} bytes of code are more than {LARGEST:,}: bring code only, and "
                "install packages, or put data where all nodes see it"
            )
        digest, buffer = hashlib.blake2b(digest_size=16), io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for name in sorted(files):
                data, run = files[name].read_bytes(), os.access(files[name], os.X_OK)
                member = tarfile.TarInfo(name)
                member.size, member.mode = len(data), 0o755 if run else 0o644
                archive.addfile(member, io.BytesIO(data))
                digest.update(f"{name}\0{len(data)}\0{run}\0".encode() + data)
        return cls(digest.hexdigest(), buffer.getvalue())

    def unpack(self, folder: Path) -> None:
        """Write the files into a folder, which must not be there."""
        folder.mkdir()
        with tarfile.open(fileobj=io.BytesIO(self.archive)) as archive:
            archive.extractall(folder, filter="data")


def is_left_out(name: str) -> bool:
    """Tell whether something in a folder stays where it is: hidden, or what tools have put there.

    The same holds for what is shipped with a job, so that the nodes have what a run here has.
    """
    return name in _NEVER or name.startswith(".")


def _found(path: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of a path, each with the name that it gets."""
    if path.is_file():
        yield path.name, path
        return
    for root, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not is_left_out(name))
        if links := [name for name in folders if Path(root, name).is_symlink()]:
            raise BadInput(f"files: {Path(root, links[0])} is a link to a folder: name that folder")
        for name in [name for name in names if not is_left_out(name)]:
            file = Path(root, name)
            if not file.is_file():
                raise BadInput(f"files: {file} is no file that could be copied")
            yield file.relative_to(path).as_posix(), file

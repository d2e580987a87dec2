"""A queue of bytes on the local disk, for samples that have to wait for others."""

from __future__ import annotations

import tempfile
from collections import deque
from types import TracebackType
from typing import IO

FILE_BYTES = 64 << 20
"""A file is given up once so much was written to it and all of it was taken."""


class Aside:
    """First in, first out. Its files have no names: they are gone with the process."""

    def __enter__(self) -> Aside:
        self._files: deque[IO[bytes]] = deque()
        self._places: deque[tuple[IO[bytes], int, int]] = deque()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._files:
            file.close()

    def append(self, data: bytes) -> None:
        """Add to the end."""
        end = self._files[-1].seek(0, 2) if self._files else FILE_BYTES
        if end >= FILE_BYTES:
            self._files.append(tempfile.TemporaryFile())  # noqa: SIM115 - closed in __exit__
            end = 0
        self._files[-1].write(data)
        self._places.append((self._files[-1], end, len(data)))

    def popleft(self) -> bytes:
        """Take the first one.

        Raises:
            IndexError: there is none.
        """
        file, start, size = self._places.popleft()
        while self._files[0] is not file:
            self._files.popleft().close()
        file.seek(start)
        return file.read(size)

"""Lines of a log in a storage that cannot append: files of bounded size, each replaced whole.

A background thread writes what is new every few seconds, and at once what is urgent. After a clean
end everything is there; a driver killed by force loses at most the last ``PAUSE`` seconds.
"""

from __future__ import annotations

import sys
import threading
from datetime import UTC, datetime
from uuid import uuid4

from djsandbox_ray.masking import without_secrets
from djsandbox_ray.storage import Storage

PAUSE = 2.0
"""Seconds between two writes."""
LINES = 1000
"""Lines of a file, beyond which another is begun: every write sends a whole file."""


class Segments:
    """Files ``<prefix>-<start of this process>-<number>.jsonl``; in order of name, of time, too.

    Args:
        storage: where they lie.
        folder: in the storage.
        prefix: of their names.
    """

    def __init__(self, storage: Storage, folder: str, prefix: str) -> None:
        self._storage = storage
        start = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
        self._stem = f"{folder}/{prefix}-{start}Z-{uuid4().hex[:6]}"
        self._number = 0
        self._lines: list[str] = []
        """Of the file that is open."""
        self._written = 0
        self._urgent = self._closing = False
        self._failing = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name=prefix, daemon=True)
        self._thread.start()

    def add(self, line: str, *, urgent: bool = False) -> None:
        """Take a line; returns at once."""
        with self._changed:
            self._lines.append(line)
            self._urgent |= urgent
            self._changed.notify()

    def close(self) -> int:
        """Write what is left; return how many lines could not be written."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()
        return len(self._lines) - self._written

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._written < len(self._lines) or self._closing)
                self._changed.wait_for(lambda: self._urgent or self._closing, PAUSE)
                closing, self._urgent = self._closing, False
            while self._written < len(self._lines) and self._write():
                pass
            if closing:
                return
            if self._failing:
                with self._changed:  # what is urgent, too, waits for a storage that is away
                    self._changed.wait_for(lambda: self._closing, PAUSE)

    def _write(self) -> bool:
        """Write the open file, and begin another if it is full; say whether that worked."""
        lines = self._lines[:LINES]
        data = "".join(f"{line}\n" for line in lines).encode()
        try:
            self._storage.write_bytes(f"{self._stem}-{self._number:04}.jsonl", data)
        except Exception as error:
            if not self._failing:  # one message per outage
                text = f"the event log cannot be written, it is tried again: {error}"
                print(without_secrets(text), file=sys.stderr)
            self._failing = True
            return False
        self._failing = False
        with self._changed:
            self._written = len(lines)
            if len(lines) == LINES:
                del self._lines[:LINES]
                self._written, self._number = 0, self._number + 1
        return True

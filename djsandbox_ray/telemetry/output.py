"""What a trial prints, kept beside the run: Ray's own files mix all trials of a process.

Processes are reused from trial to trial, so that a trial's output is a slice of what its process
has written into Ray's log files. It is read from there while the trial lasts: nothing is
redirected, what Ray shows stays complete, and what native code or a child process prints is among
it.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from djsandbox_ray.masking import without_secrets
from djsandbox_ray.storage.store import Storage

LOGS = "logs/trials"
"""Where the logs of trials lie in the folder of a run."""
HEAD, TAIL = 64 * 1024, 192 * 1024
"""Bytes of a log that are kept of its begin and of its end."""
PAUSE = 5.0
"""Seconds between two writes while a trial prints something."""
BEGUN = "BEGUN: "
"""Begins the line, after the time, with which the log of an attempt begins."""
FAILED = "FAILED: "
"""Begins the line, after the time, in which a trial says why it failed."""
_MARKS = (b":job_id:", b":actor_name:", b":task_name:")
"""Lines by which Ray's workers tell Ray's log monitor whose output follows."""
_CUT = b"\n... what was printed here is left out: the log is too long ...\n"


def log_path(folder: str, trial: str, rank: int = 0) -> str:
    """Return where the log of a trial, or of one of its further ranks, lies in the storage."""
    return f"{folder}/{trial}.rank{rank}.log" if rank else f"{folder}/{trial}.log"


def last_lines(storage: Storage, path: str, count: int = 20) -> list[str]:
    """Return the last lines that a trial printed in its last attempt, before it failed."""
    try:
        if not storage.exists(path):
            return []
        text = storage.read_bytes(path).decode(errors="replace")
    except Exception as error:  # a view never ends a run
        return [without_secrets(f"{path} cannot be read: {error}")]
    _, _, last = text.rpartition(BEGUN)
    printed, failed, _ = last.partition(FAILED)
    # The rest of the title is a line of ours, and so is what stands before FAILED.
    lines = printed.splitlines()[1 : -1 if failed else None]
    return lines[-count:]


class TrialLog:
    """The log of one trial on one rank; goes on behind what an earlier attempt has left.

    A storage that is away never fails a trial: it is said in Ray's log, and tried again.

    Args:
        storage: of the run.
        path: of the log in it.
        title: what the attempt is, for its first line.
        streams: file descriptors that are read; by default stdout and stderr of this process.
    """

    def __init__(
        self, storage: Storage, path: str, title: str, streams: Sequence[int] = (1, 2)
    ) -> None:
        self._storage, self._path = storage, path
        self._lock = threading.RLock()
        self._slices = [found for fd in streams if (found := _Slice.of(fd)) is not None]
        self._text, self._changed = b"", False
        self._joined = self._gap_said = False
        self.note(f"{BEGUN}{title}")
        if len(self._slices) < len(streams):
            self.note("what is printed is in Ray's own logs only: they are rotated here")
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="trial log", daemon=True).start()

    def note(self, text: str) -> None:
        """Add a line of our own, with the time, behind what was printed up to now."""
        with self._lock:
            self._collect(whole=True)
            self._line(text)

    def write(self) -> None:
        """Bring the storage up to date."""
        with self._lock:
            self._collect(whole=True)
            self._store()

    def close(self) -> None:
        """Write what is left; the output that follows is another trial's."""
        self._closed.set()
        self.write()

    def _run(self) -> None:
        while not self._closed.wait(PAUSE):
            with self._lock:
                self._collect(whole=False)
                self._store()

    def _collect(self, *, whole: bool) -> None:
        """Take over what was printed; up to the last whole line, or all of it.

        Ray's files may be gone and the disk may be full: a trial goes on without its log.
        """
        for stream in (sys.stdout, sys.stderr):
            with self._gap():
                stream.flush()
        for found in self._slices:
            with self._gap():
                self._append(found.read(whole=whole))

    @contextmanager
    def _gap(self) -> Iterator[None]:
        """Say once, where they are missed, that lines are missing."""
        try:
            yield
        except OSError as error:
            if not self._gap_said:
                self._gap_said = True
                self._line(f"what is printed cannot be read: {error}")

    def _line(self, text: str) -> None:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._append(f"[{now}] {text}\n".encode())

    def _append(self, data: bytes) -> None:
        if not data:
            return
        masked = without_secrets(data.decode(errors="replace")).encode()
        self._text, self._changed = bounded(self._text + masked), True

    def _store(self) -> None:
        if not self._changed:
            return
        try:
            if not self._joined:
                # Only now: written without it, the log of an attempt that failed would be lost.
                self._text, self._joined = bounded(self._earlier() + self._text), True
            self._storage.write_bytes(self._path, self._text)
            self._changed = False
        except Exception as error:
            with suppress(OSError):
                print(without_secrets(f"{self._path} cannot be written: {error}"), file=sys.stderr)

    def _earlier(self) -> bytes:
        """Return what earlier attempts have left."""
        try:
            return self._storage.read_bytes(self._path)
        except FileNotFoundError:
            return b""


class _Slice:
    """What a file descriptor of this process has written into a file since now."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = path.stat().st_size

    @classmethod
    def of(cls, fd: int) -> _Slice | None:
        """Return None if the descriptor is no file, as when Ray rotates its logs by a pipe."""
        try:
            path = Path(f"/proc/self/fd/{fd}").readlink()
            return cls(path) if os.path.samestat(path.stat(), os.fstat(fd)) else None
        except OSError:
            return None

    def read(self, *, whole: bool) -> bytes:
        """Return what is new; of a flood the last part."""
        with self._path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            first = max(self._read, size - HEAD - TAIL)
            file.seek(first)
            data = file.read(size - first)
        if not whole:  # a secret may lie across the border
            data = data[: data.rfind(b"\n") + 1]
        cut = _CUT if first > self._read else b""
        self._read = first + len(data)
        lines = data.splitlines(keepends=True)
        return cut + b"".join(line for line in lines if not line.startswith(_MARKS))


def bounded(text: bytes) -> bytes:
    """Cut the middle out of a log that has become too long."""
    if len(text) <= HEAD + len(_CUT) + TAIL:
        return text
    return text[:HEAD] + _CUT + text[-TAIL:]

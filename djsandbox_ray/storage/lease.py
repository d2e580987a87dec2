"""Who may write something of a storage: one owner at a time, anywhere, and no clock is compared.

``<path>/000001.json``, ``000002.json``, ...: each file is the lease of one owner, that of the
greatest number counts. The owner renews it every few seconds by a counter in it. Who wants the
same looks twice, with a pause longer than several renewals: if nothing changed in between, the
owner is dead or asleep, and the next number is taken by a file that only one can create. An owner
that wakes up finds a greater number, and ends. Should it wake up just then, both look again after
they have written, so that one of them at least sees the other, and gives way. Host and process in a
lease are words for people; only a process that can be looked up here, because it shares the PID
namespace, is known to be gone without waiting.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from os import getpid
from socket import gethostname
from typing import Any
from uuid import uuid4

from djsandbox_ray.errors import SandboxError
from djsandbox_ray.storage.processes import Process
from djsandbox_ray.storage.store import Storage

logger = logging.getLogger(__name__)

RENEWAL = 5.0
"""Seconds between two renewals."""
WATCH = 20.0
"""Seconds without a change after which an owner counts as dead."""
SETTLE = 1.0
"""Seconds after which it is read who owns a new lease, where a store may let two create it."""
_LOOK = 0.5
_NAME = re.compile(r"(\d{6,})\.json")


class Held(SandboxError):
    """Somebody else who lives has it."""


class Lost(SandboxError):
    """Somebody else has taken it over, as this process was not heard of for long."""


@dataclass(frozen=True)
class _Seen:
    """The lease that counts, as it was at one look."""

    number: int
    data: bytes

    @cached_property
    def content(self) -> Mapping[str, Any]:
        """What it says; nothing where it cannot be read: then only change tells who lives."""
        try:
            found = json.loads(self.data)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def is_over(self) -> bool:
        """Whether its owner let go of it, or is known to be gone."""
        if self.content.get("over") is True:
            return True
        with suppress(TypeError, KeyError):
            return Process(**self.content["process"]).is_gone
        return False

    @property
    def who(self) -> str:
        """Its owner, in words."""
        who, since = self.content.get("who", "somebody"), self.content.get("since", "some time ago")
        return f"{who} since {since}"


class Lease:
    """What this process holds; made by :func:`take`. As a context it is given back at the end."""

    def __init__(
        self,
        storage: Storage,
        path: str,
        after: _Seen | None,
        what: str,
        on_lost: Callable[[], None] | None = None,
    ) -> None:
        self.storage, self.path, self.what = storage, path, what
        self.number = after.number + 1 if after else 1
        self.owner = uuid4().hex
        self.lost: str | None = None
        """Why it is no longer ours, in words."""
        self._after, self._on_lost = after, on_lost
        self._count = 0
        self._since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._lock = threading.Lock()
        self._renewed = _awake()
        self._ended = threading.Event()

    def __enter__(self) -> Lease:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def check(self) -> None:
        """Make sure that it is still ours; costs something only after a long sleep.

        Raises:
            Lost: it is not.
        """
        if self.lost is None and _awake() - self._renewed > 2 * RENEWAL:
            self._renew()
        if self.lost is not None:
            raise Lost(self.lost)

    def release(self) -> None:
        """Let others have it at once; it may be called again."""
        if self._ended.is_set():
            return
        self._ended.set()
        with self._lock, suppress(Exception):  # else it is found dead in a while
            if self.lost is None and self._is_ours():
                self._write(over=True)

    def vanish(self) -> None:
        """Release it with what it was about, which is gone: nothing tells of it any more."""
        self.release()
        self.storage.remove(self._file(self.number))
        self.storage.remove_empty(self.path)

    def _begin(self) -> bool:
        """Create the lease; False if somebody was faster, or has woken up."""
        if not self.storage.create(self._file(self.number), self._data()):
            return False
        if not self.storage.is_local:
            time.sleep(SETTLE)
        if not self._is_ours():
            return False
        if self._former_lives():
            self.storage.remove(self._file(self.number))
            return False
        for number in _numbers(self.storage, self.path):
            if number < self.number:
                self.storage.remove(self._file(number))
        self._renewed = _awake()
        threading.Thread(target=self._run, name=f"lease of {self.what}", daemon=True).start()
        return True

    def _former_lives(self) -> bool:
        """Say whether the owner before has renewed its lease after it was found dead.

        It looks again after it has written, and so do we: whatever the order, one of us sees what
        the other has written, and not both go on.
        """
        if self._after is None:
            return False
        try:
            data = self.storage.read_bytes(self._file(self._after.number))
        except FileNotFoundError:
            return False
        now = _Seen(self._after.number, data)
        return now != self._after and not now.is_over

    def _run(self) -> None:
        while not self._ended.wait(RENEWAL) and self.lost is None:
            self._renew()

    def _renew(self) -> None:
        """Show that we live, if it is still ours; a storage that is away is tried again."""
        with self._lock, suppress(Exception):
            if self._ended.is_set() or self.lost is not None:
                return
            if self._is_ours():
                self._count += 1
                self._write()
                if self._is_ours():  # nobody came between the look and the writing
                    self._renewed = _awake()
                    return
            seen = _newest(self.storage, self.path)
            self.lost = (
                f"{self.what} was taken over by {seen.who}, while this process was not heard of "
                f"for more than {WATCH:g} s"
                if seen is not None
                else f"{self.what}: {self.storage.shown}/{self.path} was removed while it was held"
            )
        if self.lost is not None and self._on_lost is not None:
            self._on_lost()

    def _is_ours(self) -> bool:
        seen = _newest(self.storage, self.path)
        return seen is not None and seen.content.get("owner") == self.owner

    def _write(self, *, over: bool = False) -> None:
        self.storage.write_bytes(self._file(self.number), self._data(over))

    def _data(self, over: bool = False) -> bytes:
        content = {
            "owner": self.owner,
            "count": self._count,
            "over": over,
            "who": f"process {getpid()} on {gethostname()}",
            "since": self._since,
            "process": asdict(Process.this()),
        }
        return json.dumps(content).encode()

    def _file(self, number: int) -> str:
        return _file(self.path, number)


def take(
    storage: Storage,
    path: str,
    what: str,
    *,
    wait: bool = False,
    on_lost: Callable[[], None] | None = None,
    note: Callable[[str], None] = logger.warning,
) -> Lease:
    """Take the lease of something; from an owner that is dead after at most :data:`WATCH` seconds.

    Args:
        storage: where it lies.
        path: a folder of the storage, for leases alone.
        what: it is about, in words.
        wait: for an owner that lives, as long as that takes.
        on_lost: called in another thread when it turns out that somebody has taken it over.
        note: told when it must be found out whether an owner lives.

    Raises:
        Held: another owner lives.
    """
    seen = _newest(storage, path)
    if seen is not None and not seen.is_over:
        more = ", and waiting for it" if wait else f", {WATCH:g} s at most"
        note(f"{what} is held by {seen.who}: looking whether it is alive{more}")
    while True:
        last, owner = _vacant(storage, path)
        if owner is not None:
            if not wait:
                raise Held(_refusal(storage, what, owner))
            continue
        lease = Lease(storage, path, last, what, on_lost)
        if lease._begin():
            return lease


def inherit(storage: Storage, path: str, owner: str, what: str) -> Lease | None:
    """Take the lease of an owner that has just ended; None if somebody else has it by now."""
    seen = _newest(storage, path)
    if seen is None or seen.content.get("owner") != owner or seen.content.get("over"):
        return None
    lease = Lease(storage, path, seen, what)
    return lease if lease._begin() else None


def check_held(storage: Storage, path: str, owner: str, what: str) -> None:
    """Make sure in another process than the owner's that a lease is still that owner's.

    Args:
        storage: where it lies.
        path: of the lease.
        owner: :attr:`Lease.owner` of whoever has the work done.
        what: it is about, in words.

    Raises:
        Lost: somebody else has it, or it is gone.
    """
    seen = _newest(storage, path)
    if seen is None or seen.content.get("owner") != owner:
        now = "was removed" if seen is None else f"was taken over by {seen.who}"
        raise Lost(f"{what} {now} while it was at work")


def renewed(storage: Storage, path: str) -> datetime | None:
    """Return when it was last renewed, by the clock of the storage; None where no lease ever was.

    That tells what was abandoned long ago, and never whether an owner lives.
    """
    with suppress(FileNotFoundError):  # it is being cleared away
        if numbers := _numbers(storage, path):
            return storage.modified(_file(path, numbers[-1]))
    return None


def has_ended(storage: Storage, path: str) -> bool:
    """Say whether it was held once and its owner has ended for certain, without waiting."""
    seen = _newest(storage, path)
    return seen is not None and seen.is_over


def _vacant(storage: Storage, path: str) -> tuple[_Seen | None, _Seen | None]:
    """Return the lease that counts, and the owner that stands in the way, if one lives."""
    first = seen = _newest(storage, path)
    end = time.monotonic() + WATCH
    while seen is not None and not seen.is_over and time.monotonic() < end:
        time.sleep(_LOOK)
        seen = _newest(storage, path)
        if seen is not None and seen != first and not seen.is_over:
            return seen, seen
    return seen, None


def _newest(storage: Storage, path: str) -> _Seen | None:
    while numbers := _numbers(storage, path):
        with suppress(FileNotFoundError):  # a successor has cleared it away
            return _Seen(numbers[-1], storage.read_bytes(_file(path, numbers[-1])))
    return None


def _file(path: str, number: int) -> str:
    return f"{path}/{number:06d}.json"


def _numbers(storage: Storage, path: str) -> list[int]:
    found = (_NAME.fullmatch(name) for name in storage.names(path))
    return sorted(int(match[1]) for match in found if match)


def _refusal(storage: Storage, what: str, owner: _Seen) -> str:
    return f"{what} in {storage.shown} is held by {owner.who}; wait for it, or stop it"


def _awake() -> float:
    """Return seconds that go on while the machine sleeps, too."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)

"""What a driver's connection to its cluster hangs on: the raylet of its node, and the head.

Ray ends the process of a driver on the spot when its raylet is gone, and a minute after the head
is: whoever wants to say a word must notice before.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from djsandbox_ray.storage.processes import Process

KEPT = "what is finished is kept; the same command goes on"
LOST = f"the connection to the cluster was lost ({{}}); {KEPT}"
HEAD_PATIENCE = 40.0
"""Seconds for which the head may be away, as while it is started anew; Ray itself waits 60."""
GRACE = 20.0
"""Seconds that a run has to come to its end without a cluster; then its process ends."""
_LOOK = 1.0
_CONNECT = 5.0


@dataclass(frozen=True)
class Anchor:
    """Plain data; can be sent to another process of this machine."""

    raylet: Process | None = None
    """None where it is not known."""
    head: str | None = None
    """Address of the head's server, ``host:port``."""

    @classmethod
    def read(cls, content: Mapping[str, Any]) -> Anchor:
        """Return what ``dataclasses.asdict`` gave."""
        raylet = content.get("raylet")
        return cls(Process(**raylet) if raylet else None, content.get("head"))

    def lost(self) -> str | None:
        """Say what is gone, in words; None if nothing is known to be."""
        if self.raylet is not None and self.raylet.is_gone:
            return "the raylet of this node has ended"
        if self.head is not None and not _answers(self.head):
            return f"the head at {self.head} does not answer"
        return None


def anchor() -> Anchor:
    """Return what this driver hangs on; nothing while it is not connected to Ray."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return Anchor()
    return Anchor(_raylet(ray), ray.get_runtime_context().gcs_address)


def _raylet(ray: Any) -> Process | None:
    """Find the raylet of this node among the processes, by its socket; Ray does not name it."""
    import psutil

    with suppress(AttributeError, psutil.Error):
        wanted = ray._private.worker._global_node.raylet_socket_name
        for process in psutil.process_iter(["name", "cmdline"]):
            words = process.info["cmdline"] or []
            if process.info["name"] == "raylet" and any(wanted in word for word in words):
                return Process.of(process.pid)
    return None


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT):
            return True
    except (OSError, ValueError):
        return False


@contextmanager
def watched(held: Anchor, on_lost: Callable[[], None]) -> Iterator[None]:
    """Watch over the connection during the block.

    When it is lost, ``on_lost`` is called in another thread, once. A block that is not at its end
    some time later waits for what never comes: the process is ended with exit code 1. So is one
    whose block has ended, and that cannot come to its end; a process that lives on, as that of a
    notebook, is left alone.
    """
    over = threading.Event()

    def watch() -> None:
        if not _await_loss(held, over) or over.is_set():
            return
        on_lost()
        if over.wait(GRACE):
            threading.main_thread().join()  # what follows, as letting go of Ray, may be stuck, too
            time.sleep(GRACE)
        os._exit(1)

    threading.Thread(target=watch, name="cluster", daemon=True).start()
    try:
        yield
    finally:
        over.set()


def _await_loss(held: Anchor, over: threading.Event) -> bool:
    """Return whether the connection is lost for good; False once the block is over."""
    since: float | None = None
    while not over.wait(_LOOK):
        if held.lost() is None:
            since = None
            continue
        since = since or time.monotonic()
        if held.raylet is not None and held.raylet.is_gone:
            return True
        if time.monotonic() - since > HEAD_PATIENCE:
            return True
    return False

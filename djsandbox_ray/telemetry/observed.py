"""Everything that shows a run to the outside, for as long as the run lasts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from djsandbox_ray.storage import Storage
from djsandbox_ray.telemetry import metrics
from djsandbox_ray.telemetry.events import EventLog
from djsandbox_ray.telemetry.nodes import NodeWatch

INTERVAL = 3.0
"""Seconds between two looks at the cluster; Ray's metrics must be refreshed as often, or less."""


@contextmanager
def observed(storage: Storage, run: str) -> Iterator[None]:
    """Keep the events of a run, export its metrics and watch the nodes of the cluster.

    Raises:
        BadInput: ``DJSANDBOX_LOG`` has a value that means nothing.
    """
    ended = threading.Event()
    metrics.label(run)
    with EventLog(storage, run):
        watching = threading.Thread(target=_watch, args=(ended,), name="telemetry", daemon=True)
        watching.start()
        try:
            yield
        finally:
            ended.set()
            watching.join(timeout=1)  # it may be waiting for a head that is away


def _watch(ended: threading.Event) -> None:
    nodes = NodeWatch()
    while not ended.wait(INTERVAL):
        metrics.refresh()
        nodes.look()

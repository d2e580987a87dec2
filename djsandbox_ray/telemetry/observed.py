"""Shows a run to the outside for as long as it lasts, and tells which nodes come and go."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from djsandbox_ray.storage.store import Storage
from djsandbox_ray.telemetry import metrics
from djsandbox_ray.telemetry.events import EventLog, event

logger = logging.getLogger(__name__)

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


class NodeWatch:
    """Remembers which nodes were alive at the last look."""

    def __init__(self) -> None:
        self._known: dict[str, Mapping[str, Any]] | None = None

    def look(self) -> None:
        """Tell which nodes have come and gone since the last look; without Ray, nothing."""
        try:
            living = _living()
        except Exception as error:  # as while the head is away
            logger.debug("the nodes of the cluster are not known: %s", error)
            return
        if living is not None and self._known is not None:
            tell_changes(self._known, living)
        self._known = living or self._known


def tell_changes(
    before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]
) -> None:
    """Tell which nodes were lost and which joined.

    Args:
        before: what Ray says of every living node, by its id.
        now: the same, later.
    """
    for node in before.keys() - now.keys():
        event("node_lost", level=logging.WARNING, **_details(node, before[node]))
    for node in now.keys() - before.keys():
        event("node_joined", **_details(node, now[node]))


def _details(node: str, told: Mapping[str, Any]) -> dict[str, Any]:
    shown = ("CPU", "GPU")
    resources = {name: told["Resources"][name] for name in shown if name in told["Resources"]}
    return {"node": node, "address": told["NodeManagerAddress"], "resources": resources}


def _living() -> dict[str, Mapping[str, Any]] | None:
    """Return the living nodes; None while there is no connection to Ray."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return None
    return {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}

"""Waiting for nodes: on a cluster that grows, what has no room now may have some soon.

What no living node could ever hold is asked for as a placement group that stays pending: that is
what autoscalers look at. Whether others use the room is not asked here: Ray queues for that.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.nodes.anchor import HEAD_PATIENCE, KEPT
from djsandbox_ray.nodes.connection import check_placeable, slots, waited_for
from djsandbox_ray.nodes.packing import in_words

Bundles = Sequence[Mapping[str, float]]
AwaitRoom = Callable[[Bundles, str], None]
"""From a group of bundles and the section of the configuration that asks; raises BadInput."""

AUTOSCALER_SECONDS = 600.0
"""How long nodes are waited for where an autoscaler runs, unless the configuration says."""
_TICK = 0.5
_OF_ANOTHER_VERSION = (
    *(ImportError, AttributeError, LookupError),
    *(TypeError, ValueError, AssertionError),
)
"""What asking Ray raises where its modules or answers are not those that are known here."""
_RAYLET = "node_"  # how Ray names the type of a node that no autoscaler has made


def await_room(group: Bundles, where: str, wait: float | None, say: Callable[[str], None]) -> None:
    """Wait until the living nodes have room for a group, free or not.

    Args:
        group: what each worker needs of one node: ``[{"CPU": 1, "GPU": 0.5}]``.
        where: the section of the configuration that asks.
        wait: seconds; None for 10 minutes where an autoscaler runs, else 0.
        say: called again and again with what is waited for, and with "" when that is over.

    Raises:
        BadInput: there is still no room.
    """
    if slots(group):
        return
    limit = seconds_to_wait(wait)
    if not limit:
        check_placeable(group, where)
        return
    import ray

    asked = ray.util.placement_group([_asked(bundle) for bundle in group])
    start = time.monotonic()
    try:
        while not slots(group):
            waited = time.monotonic() - start
            if waited >= limit:
                _refuse(group, where, limit)
            say(_in_progress(group, waited, limit))
            time.sleep(min(_TICK, limit - waited))
    finally:
        ray.util.remove_placement_group(asked)
        say("")


def foreseen(group: Bundles, where: str, wait: float | None) -> str:
    """Say what will be waited for, before anything is started; "" if there is room.

    Raises:
        BadInput: there is no room, and no waiting for any.
    """
    if slots(group):
        return ""
    if not (limit := seconds_to_wait(wait)):
        check_placeable(group, where)
    return (
        f"{where} asks for {in_words(group)}, which no nodes have yet; its stage will wait for "
        f"them, {_span(limit)} at most (cluster.wait)"
    )


class Absence:
    """Watches whether nodes come back that a group at work has lost.

    Args:
        wait: seconds; None for 10 minutes where an autoscaler runs, else 0.
        clock: seconds.
    """

    def __init__(self, wait: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._wait = wait
        self._clock = clock
        self._since: float | None = None
        self._limit = 0.0

    def over(self) -> None:
        """Note that the group runs again."""
        self._since = None

    def waited_for(self, group: Bundles) -> str:
        """Say what a group that does not run waits for: others, or nodes.

        Raises:
            SandboxError: no living node has had room for it for too long.
        """
        if slots(group):
            self.over()
            return waited_for(group)
        now = self._clock()
        if self._since is None:
            self._since, self._limit = now, seconds_to_wait(self._wait)
        waited = now - self._since
        if waited >= self._limit:
            raise SandboxError(
                f"the nodes that had room for {in_words(group)} are gone, and none came in "
                f"{_span(self._limit)} (cluster.wait); the same command goes on from here"
            )
        return _in_progress(group, waited, self._limit)


def seconds_to_wait(wait: float | None) -> float:
    """Return for how long nodes are waited for: as configured, or as the cluster lets expect."""
    if wait is not None:
        return wait
    return AUTOSCALER_SECONDS if has_autoscaler() else 0.0


def has_autoscaler() -> bool:
    """Say whether an autoscaler adds nodes to this cluster, as far as Ray tells.

    Ray's own monitor runs on every cluster and reports in the same way; but only an autoscaler
    knows nodes by the types of its configuration. There is no public interface for that: where
    another version of Ray has none of it, there is none, and ``cluster.wait`` has the last word. A
    head that is away, as while it is started anew, is asked again.

    Raises:
        SandboxError: the head does not answer for long.
    """
    start = time.monotonic()
    while True:
        try:
            return any(not kind.startswith(_RAYLET) for kind in _node_types() if kind)
        except _OF_ANOTHER_VERSION:
            return False
        except Exception as error:
            if time.monotonic() - start >= HEAD_PATIENCE:
                raise SandboxError(
                    "the head of the cluster does not answer whether nodes may come "
                    f"({type(error).__name__}); {KEPT}"
                ) from error
        time.sleep(_TICK)


def _node_types() -> list[str]:
    import ray
    from ray.autoscaler.v2.sdk import get_cluster_status
    from ray.autoscaler.v2.utils import is_autoscaler_v2
    from ray.experimental.internal_kv import _internal_kv_get

    if is_autoscaler_v2():
        status: Any = get_cluster_status(ray.get_runtime_context().gcs_address)
        nodes = [*status.active_nodes, *status.idle_nodes]
        return [node.ray_node_type_name for node in nodes]
    found = _internal_kv_get(b"__autoscaling_status")
    report = json.loads(found).get("autoscaler_report") if found else None
    return list(report["node_type_mapping"].values()) if report else []


def _asked(bundle: Mapping[str, float]) -> dict[str, float]:
    return {name: amount for name, amount in bundle.items() if amount}


def _refuse(group: Bundles, where: str, limit: float) -> None:
    try:
        check_placeable(group, where)
    except BadInput as error:
        raise BadInput(f"{error}; no others came in {_span(limit)} (cluster.wait)") from None


def _in_progress(group: Bundles, waited: float, limit: float) -> str:
    return f"nodes for {in_words(group)}, {_span(waited)} of {_span(limit)}"


def _span(seconds: float) -> str:
    """Return seconds in steps that do not change the progress line all the time."""
    if seconds < 10:
        return f"{int(seconds)} s"
    return f"{int(seconds // 10 * 10)} s" if seconds < 120 else f"{int(seconds // 60)} min"

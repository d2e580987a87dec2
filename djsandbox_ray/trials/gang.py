"""Several workers that train one trial together, seen as one.

The trial's own process is rank 0, in bundle 0 of the trial's placement group; the other ranks are
actors in the other bundles. They form one ``torch.distributed`` group and keep it, with their
processes, from trial to trial.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from datetime import timedelta
from threading import Thread
from typing import Any

import ray
from ray.exceptions import RayActorError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from djsandbox_ray.errors import SandboxError, require
from djsandbox_ray.trials.config import Resources, worker_bundle
from djsandbox_ray.trials.strategies.strategy import Group
from djsandbox_ray.trials.worker import Shared, TrialWorker

LOOPBACK = "127.0.0.1"
# The gang notices who is dead or stuck; torch must not lose patience with a long evaluation.
_PATIENCE = timedelta(days=7)
_TICK = 0.1
# After one rank has failed, how long the others may take to fail too: then they are stuck.
_GRACE = 5.0
# How long rank 0 may take to notice that the others are gone.
_UNSTICK = 20.0


def bundles(resources: Resources) -> list[dict[str, float]]:
    """Return what a trial's placement group holds: one bundle per worker."""
    return [worker_bundle(resources) for _ in range(resources.workers)]


class Rank:
    """A trial worker and its place in a ``torch.distributed`` group.

    Args:
        shared: what all trials have in common.
        member: its place.
        resources: what it occupies.
    """

    def __init__(self, shared: Shared, member: Group, resources: Resources) -> None:
        self._member = member
        self._resources = resources
        self._study = shared.study
        self._worker = TrialWorker(shared, member)
        self._listener: socket.socket | None = None

    def __repr__(self) -> str:
        return f"Rank({self._study}, {self._member.rank} of {self._member.size})"

    def address(self) -> str:
        """Return the address of this node in the cluster."""
        address: str = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        return address

    def listen(self, host: str) -> int:
        """Open the port at which the ranks will meet, on this address only; rank 0 does this."""
        self._listener = socket.create_server((host, 0))
        return int(self._listener.getsockname()[1])

    def join(self, host: str, port: int) -> None:
        """Form the group: gloo on CPUs, nccl on GPUs; waits for all ranks."""
        torch, distributed = require("torch", "clip"), require("torch.distributed", "clip")
        torch.set_num_threads(max(1, int(self._resources.cpus_per_worker)))
        if host == LOOPBACK:
            # Else gloo listens at whatever the name of the machine stands for.
            os.environ["GLOO_SOCKET_IFNAME"] = "lo0" if sys.platform == "darwin" else "lo"
        rank, size = self._member.rank, self._member.size
        listener = self._listener.detach() if self._listener is not None else None
        store = distributed.TCPStore(
            host, port, size, is_master=rank == 0, timeout=_PATIENCE, master_listen_fd=listener
        )
        distributed.init_process_group(
            "nccl" if self._resources.gpus_per_worker else "gloo",
            store=store,
            rank=rank,
            world_size=size,
            timeout=_PATIENCE,
        )

    def begin(self, trial: Mapping[str, Any], reported: int) -> None:
        """See :meth:`TrialWorker.begin`."""
        self._worker.begin(trial, reported)

    def step(self) -> dict[str, Any]:
        """See :meth:`TrialWorker.step`."""
        return self._worker.step()

    def leave(self) -> None:
        """Let go of the trial, and leave the group."""
        self._worker.close()
        distributed = require("torch.distributed", "clip")
        if distributed.is_initialized():
            distributed.destroy_process_group()


class Gang:
    """The workers of one trial after the other, with the interface of a :class:`TrialWorker`.

    Made by the process in the first bundle of a placement group of :func:`bundles`. The other ranks
    end with this process, however it ends.

    Args:
        shared: what all trials have in common.
        resources: how many workers, and what each occupies.
    """

    def __init__(self, shared: Shared, resources: Resources) -> None:
        self._shared = shared
        self._resources = resources
        self._own: Rank | None = None
        self._others: list[Any] = []
        self._running: Future[Any] = Future()
        self._doing = shared.study

    def begin(self, trial: Mapping[str, Any], reported: int) -> None:
        """Make ready for a trial on all ranks; forms the group if there is none.

        Raises:
            SandboxError: a worker died.
        """
        if self._own is None:
            self._form()
        self._doing = f"{trial['pool']} seed {trial['seed']}"
        self._on_all("begin", dict(trial), reported)

    def step(self) -> dict[str, Any]:
        """Train to the next rung on all ranks.

        Returns:
            What rank 0 reports, or the failure that came first. After one the ranks may be out of
            step: the next trial gets a new group, unless the loss diverged, which all see alike.

        Raises:
            SandboxError: a worker died; the trial can go on from its last checkpoint.
        """
        results = self._on_all("step")
        failures = [result for result in results.values() if _failed(result)]
        if not failures:
            return dict(results[0])
        diverged = sum(result["failure"]["diverged"] for result in failures)
        if diverged < self._resources.workers:
            try:
                self.close()
            except SandboxError as error:
                raise SandboxError(f"{failures[0]['failure']['error']}; {error}") from error
        return dict(failures[0])

    def close(self) -> None:
        """End the other ranks and leave the group.

        Raises:
            SandboxError: this process is stuck in the group, and must be replaced.
        """
        for other in self._others:
            ray.kill(other)
        self._others = []
        own, self._own = self._own, None
        if own is None:
            return
        # Without its peers, whatever this rank waits for in the group ends with an error.
        if wait([self._running], _UNSTICK).not_done:
            raise SandboxError("rank 0 waits for workers that are gone")
        own.leave()

    def _form(self) -> None:
        placement = ray.util.get_current_placement_group()
        if placement is None:
            raise SandboxError("a trial of several workers runs in a placement group only")
        resources, shared = self._resources, ray.put(self._shared)
        self._others = [
            ray.remote(Rank)
            .options(
                num_cpus=resources.cpus_per_worker,
                num_gpus=resources.gpus_per_worker,
                scheduling_strategy=PlacementGroupSchedulingStrategy(placement, rank),
            )
            .remote(shared, self._member(rank), resources)
            for rank in range(1, resources.workers)
        ]
        self._own = Rank(self._shared, self._member(0), resources)
        addresses = self._on_all("address")
        host = addresses[0] if len(set(addresses.values())) > 1 else LOOPBACK
        self._on_all("join", host, self._own.listen(host))

    def _member(self, rank: int) -> Group:
        resources = self._resources
        return Group(rank, resources.workers, resources.strategy, resources.deepspeed)

    def _on_all(self, method: str, *arguments: Any) -> dict[int, Any]:
        """Call a method on all ranks, this one in a thread, and watch over them.

        Returns:
            By rank, in the order in which they came; ranks that are stuck because another has
            failed are missing.

        Raises:
            SandboxError: a worker died.
        """
        try:
            self._running = _in_thread(getattr(self._own, method), *arguments)
            calls = {
                getattr(other, method)
                .options(name=f"{self._doing}: {method}")
                .remote(*arguments): rank
                for rank, other in enumerate(self._others, start=1)
            }
            return self._watch(calls)
        except Exception as error:
            self.close()
            if not isinstance(error, RayActorError):
                raise
            reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
            raise SandboxError(f"a worker of the trial died: {reason}") from error

    def _watch(self, calls: dict[Any, int]) -> dict[int, Any]:
        results: dict[int, Any] = {}
        deadline = float("inf")
        while len(results) < self._resources.workers and time.monotonic() < deadline:
            # A rank that has died is an error of ray.get.
            ready = ray.wait(list(calls), timeout=_TICK)[0] if calls else []
            arrived = {calls.pop(call): ray.get(call) for call in ready}
            if 0 not in results and not wait([self._running], 0 if calls else _TICK).not_done:
                arrived[0] = self._running.result()
            results |= arrived
            if any(map(_failed, arrived.values())):
                deadline = min(deadline, time.monotonic() + _GRACE)
        return results


def _failed(result: Any) -> bool:
    return isinstance(result, dict) and "failure" in result


def _in_thread(function: Callable[..., Any], *arguments: Any) -> Future[Any]:
    """Run a function in a thread that does not keep its process alive."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(function(*arguments))
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future

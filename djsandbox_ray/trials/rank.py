"""One worker of a gang, in the process that it is made in."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import ray

from djsandbox_ray.errors import require
from djsandbox_ray.trials.config import Resources
from djsandbox_ray.trials.group import Group
from djsandbox_ray.trials.worker import Shared, TrialWorker

LOOPBACK = "127.0.0.1"
# The gang notices who is dead or stuck; torch must not lose patience with a long evaluation.
_PATIENCE = timedelta(days=7)


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

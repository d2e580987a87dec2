"""The workers of one trial, as the code that runs on each of them sees them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Group:
    """One worker's place among the workers of its trial; all of them train one model together.

    With ``size`` above 1, ``torch.distributed`` is initialised when a family sees the group: gloo
    on CPUs, nccl on GPUs.
    """

    rank: int = 0
    size: int = 1
    strategy: str = "ddp"
    """How the workers share the model: ``ddp``, ``fsdp`` or ``deepspeed``."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """DeepSpeed's JSON, as the user gives it."""

    def barrier(self) -> None:
        """Wait for all workers."""
        if self.size > 1:
            from djsandbox_ray.errors import require

            require("torch.distributed", "clip").barrier()

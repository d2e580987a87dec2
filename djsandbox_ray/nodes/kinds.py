"""Which nodes work runs on: the resources, beside CPUs and GPUs, that nodes declare to Ray."""

from __future__ import annotations

from pydantic import Field, field_validator

from djsandbox_ray.settings.sections import Section

_ACCELERATOR = "accelerator_type:"  # Ray's own name for what nodes with such a device declare
_LEAST = 0.0001  # Ray's own: it counts in ten-thousandths
# Enough for 1000 pieces of work at once on a node; as much as Ray asks for itself.
_TOKEN = 0.001
_RAYS_OWN = ("CPU", "GPU", "memory", "object_store_memory")


class NodeKind(Section):
    """Which nodes some work runs on; by default any that have the CPUs and GPUs for it."""

    accelerator_type: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Only nodes with this kind of device, in Ray's words: ``H100``, ``A100-80G``."""
    custom: dict[str, float] = Field(default={})
    """What the work takes of resources that nodes declare (``ray start --resources``), at once:
    ``{cpu_node: 0.001}`` is for every node with a ``cpu_node``."""

    @field_validator("custom")
    @classmethod
    def _custom(cls, custom: dict[str, float]) -> dict[str, float]:
        for name, amount in custom.items():
            if name in _RAYS_OWN:
                raise ValueError(
                    f"{name!r} is Ray's own; CPUs and GPUs have keys of their own, and names "
                    "that nodes were given by `ray start --resources` are allowed here"
                )
            if not name or name.startswith(_ACCELERATOR):
                raise ValueError(f"{name!r} is no custom resource; use the key accelerator_type")
            if amount < _LEAST:
                raise ValueError(f"{name}: at least {_LEAST} is needed, not {amount:g}")
        return custom

    def demand(self) -> dict[str, float]:
        """Return what every task, actor or worker asks of its node, as Ray's ``resources``."""
        if self.accelerator_type is None:
            return dict(self.custom)
        return {**self.custom, f"{_ACCELERATOR}{self.accelerator_type}": _TOKEN}


def bundle(cpus: float, gpus: float, kind: NodeKind) -> dict[str, float]:
    """Return all that one piece of work needs of one node."""
    asked = {"CPU": cpus, "GPU": gpus, **kind.demand()}
    return {name: amount for name, amount in asked.items() if amount}

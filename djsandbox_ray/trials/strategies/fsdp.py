"""Weights, gradients and optimizer state are shared out among the workers: FSDP2.

Runs on GPUs and, over gloo, on CPUs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from djsandbox_ray.errors import require
from djsandbox_ray.trials.strategies.strategy import Strategy, changing, check_names, twin


class Fsdp(Strategy):
    """``fully_shard`` of every member of a ``ModuleList`` (a transformer's layers) and of the rest.

    Rank 0 also holds a plain copy of what is trained, for evaluation, and all that is frozen.
    """

    def _share(self) -> tuple[Callable[..., Any], Any]:
        torch, fsdp = require("torch", "clip"), require("torch.distributed.fsdp", "clip")
        self._copy = twin(self._model) if self._group.rank == 0 else None
        mesh = require("torch.distributed.device_mesh", "clip").init_device_mesh(
            self._device.type, (self._group.size,)
        )
        # The innermost first, as fully_shard wants it.
        for module in reversed(list(self._model.modules())):
            if isinstance(module, torch.nn.ModuleList):
                for layer in module:
                    fsdp.fully_shard(layer, mesh=mesh)
        fsdp.fully_shard(self._model, mesh=mesh)
        return self._model, self._setup.optimizer(self._model)

    def _exchanging(self, last: bool) -> AbstractContextManager[Any]:
        self._model.set_requires_gradient_sync(last)
        return nullcontext()

    def update(self) -> Any:
        """See :meth:`Strategy.update`."""
        return _gathered(super().update())

    def whole(self) -> Any | None:
        """Gather what is trained into the copy of rank 0."""
        kept = changing(self._model)
        weights = {
            name: _gathered(value)
            for name, value in self._model.state_dict().items()
            if name in kept
        }
        if self._copy is not None:
            self._copy.load_state_dict(weights, strict=False)
        return self._copy

    def own(self) -> Any | None:
        """Return None: no worker has all."""
        return None

    @staticmethod
    def _gathered(value: Any) -> Any:
        return _gathered(value)

    def _state(self) -> dict[str, Any]:
        tree = require("torch.utils._pytree", "clip")
        state: dict[str, Any] = tree.tree_map(_gathered, super()._state())
        return state

    def _restore(self, state: dict[str, Any]) -> None:
        check_names(state["model"], changing(self._model))
        own = self._model.state_dict()
        model = {name: _sharded(value, own[name]) for name, value in state["model"].items()}
        # Optimizers number the parameters of all their groups in one row.
        parameters = [p for group in self._optimizer.param_groups for p in group["params"]]
        moments = {
            number: {key: _sharded(value, parameters[number]) for key, value in values.items()}
            for number, values in state["optimizer"]["state"].items()
        }
        super()._restore({"model": model, "optimizer": {**state["optimizer"], "state": moments}})


def _gathered(value: Any) -> Any:
    """Return the whole of a tensor that is shared out, anything else as it is."""
    tensor = require("torch.distributed.tensor", "clip")
    return value.full_tensor() if isinstance(value, tensor.DTensor) else value


def _sharded(value: Any, like: Any) -> Any:
    """Share a whole tensor out as one of the same shape is; anything else stays as it is."""
    tensor = require("torch.distributed.tensor", "clip")
    if not isinstance(like, tensor.DTensor) or value.shape != like.shape:
        return value
    # Every worker holds the whole already: no communication.
    return tensor.distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)

"""Picks the strategy of a group.

One worker: plain PyTorch.

Every worker has a copy of the model; gradients are averaged while they are computed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from djsandbox_ray.errors import BadInput, require
from djsandbox_ray.trials.strategies.deepspeed import complete
from djsandbox_ray.trials.strategies.strategy import STRATEGIES, Group, Setup, Strategy


def share(model: Any, recipe: Setup, group: Group) -> Strategy:
    """Share a model among the workers of a group; every worker calls this.

    Args:
        model: the same on every worker; see :class:`Strategy`.
        recipe: how it is trained.
        group: this worker's place. One worker alone trains plainly.

    Raises:
        BadInput: the model cannot be trained by several workers as by one, or the settings of the
            strategy cannot be used.
    """
    if group.size > 1:
        _check_rows_apart(model)
    name = group.strategy if group.size > 1 else "single"
    return STRATEGIES.get(name)(model, recipe, group)


def check_settings(strategy: str, settings: Mapping[str, Any], gpus: float) -> None:
    """Check the settings of a strategy before anything starts.

    Raises:
        BadInput: they cannot be used, or DeepSpeed is not installed.
    """
    if strategy == "deepspeed":
        complete(settings, clip_norm=1.0, half=False, device="cuda" if gpus else "cpu")


def _check_rows_apart(model: Any) -> None:
    """Check that a sample's features depend on nothing but the sample and the weights."""
    for name, module in model.named_modules():
        kind = type(module).__name__
        chance = getattr(module, "p", 0.0) if kind.startswith("Dropout") else 0.0
        chance = getattr(module, "prob", 0.0) if kind == "PatchDropout" else chance
        if kind.startswith("BatchNorm") or chance:
            raise BadInput(
                f"{name} is a {kind}: several workers would not compute what one does. Models for "
                "trials.resources.workers above 1 have neither batch normalisation nor dropout"
            )


class Single(Strategy):
    """The model as it is."""

    def _share(self) -> tuple[Callable[..., Any], Any]:
        return self._model, self._recipe.optimizer(self._model)


class Ddp(Strategy):
    """PyTorch's DistributedDataParallel; the copies stay bit for bit the same."""

    def _share(self) -> tuple[Callable[..., Any], Any]:
        parallel = require("torch.nn.parallel", "clip")
        # The buffers of a model that does not depend on other samples never change.
        wrapped = parallel.DistributedDataParallel(self._model, broadcast_buffers=False)
        return wrapped, self._recipe.optimizer(self._model)

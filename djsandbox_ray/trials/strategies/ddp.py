"""Every worker has a copy of the model; gradients are averaged while they are computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from djsandbox_ray.errors import require
from djsandbox_ray.trials.strategies.strategy import Strategy


class Ddp(Strategy):
    """PyTorch's DistributedDataParallel; the copies stay bit for bit the same."""

    def _share(self) -> tuple[Callable[..., Any], Any]:
        parallel = require("torch.nn.parallel", "clip")
        # The buffers of a model that does not depend on other samples never change.
        wrapped = parallel.DistributedDataParallel(self._model, broadcast_buffers=False)
        return wrapped, self._recipe.optimizer(self._model)

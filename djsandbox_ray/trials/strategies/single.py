"""One worker: plain PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from djsandbox_ray.trials.strategies.strategy import Strategy


class Single(Strategy):
    """The model as it is."""

    def _share(self) -> tuple[Callable[..., Any], Any]:
        return self._model, self._recipe.optimizer(self._model)

"""Optimizer state, gradients and weights are shared out by DeepSpeed's ZeRO, stage 0 to 3."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from djsandbox_ray.errors import require
from djsandbox_ray.trials.group import Group
from djsandbox_ray.trials.strategies.deepspeed_settings import complete, import_deepspeed
from djsandbox_ray.trials.strategies.strategy import Recipe, Strategy

_TAG = "state"
# torch.load obeys it whatever its caller asks for.
_SAFE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


class DeepSpeed(Strategy):
    """A DeepSpeed engine around the trial's own optimizer.

    Rank 0 also holds a plain copy of the model, for evaluation.
    """

    def __init__(self, model: Any, recipe: Recipe, group: Group) -> None:
        settings = group.settings if isinstance(group, Group) else {}
        device = next(model.parameters()).device
        self._deepspeed = import_deepspeed(device.type)
        self._config = complete(settings, recipe.clip_norm, recipe.half, device.type)
        super().__init__(model, recipe, group)

    @property
    def form(self) -> str:
        """ZeRO's files fit the number of workers and the stage that wrote them."""
        stage = self._config["zero_optimization"]["stage"]
        return f"ZeRO {stage} on {self._group.size} workers"

    def _share(self) -> tuple[Callable[..., Any], Any]:
        self._copy = copy.deepcopy(self._model) if self._group.rank == 0 else None
        # Takes over the torch.distributed group that is there.
        self._deepspeed.init_distributed(verbose=False)
        engine, optimizer, *_ = self._deepspeed.initialize(
            model=self._model,
            optimizer=self._recipe.optimizer(self._model),
            config=self._config,
            dist_init_required=False,
        )
        self._engine = engine
        return engine, optimizer

    def step(self, loss: Any) -> None:
        """Let the engine do it: it averages, clips, updates and clears the gradients."""
        self._engine.backward(loss)
        self._engine.step()

    def clamp(self, name: str, greatest: float) -> None:
        """Cut every copy of the parameter: the model's, and the one that ZeRO updates."""
        utils = require("deepspeed.utils", "deepspeed")
        parameter = self._model.get_parameter(name)
        parameter.data.clamp_(max=greatest)  # empty while ZeRO 3 has it shared out
        if hasattr(parameter, "ds_tensor"):  # ZeRO 3: this worker's parts
            parameter.ds_tensor.data.clamp_(max=greatest)
            master = utils.safe_get_local_fp32_param(parameter)
            utils.safe_set_local_fp32_param(parameter, master.clamp(max=greatest))
        elif (master := utils.safe_get_full_fp32_param(parameter)) is not None:
            utils.safe_set_full_fp32_param(parameter, master.clamp(max=greatest))

    def whole(self) -> Any | None:
        """Gather the weights, one at a time, into the copy of rank 0."""
        kept = {} if self._copy is None else dict(self._copy.named_parameters())
        for name, parameter in self._model.named_parameters():
            with self._deepspeed.zero.GatheredParameters([parameter]):
                if name in kept:
                    kept[name].data.copy_(parameter.data)
        return self._copy

    def save(self, folder: Path) -> None:
        """Write DeepSpeed's own files; those of two workers never have the same name."""
        self._engine.save_checkpoint(str(folder), tag=_TAG)

    def load(self, folder: Path) -> None:
        """Read DeepSpeed's own files, and from them nothing but tensors and three known types."""
        with _weights_only():
            self._engine.load_checkpoint(str(folder), tag=_TAG)

    def close(self) -> None:
        """Release the engine, whose hooks and buffers would outlive it."""
        self._engine.destroy()


@contextmanager
def _weights_only() -> Iterator[None]:
    """Make DeepSpeed, which asks for the unsafe way of reading, read the safe way."""
    allowed = [
        require("deepspeed.utils.tensor_fragment", "deepspeed").fragment_address,
        require("deepspeed.runtime.zero.config", "deepspeed").ZeroStageEnum,
        require("deepspeed.runtime.fp16.loss_scaler", "deepspeed").LossScaler,
    ]
    safe_globals = require("torch.serialization", "clip").safe_globals
    before = os.environ.get(_SAFE)
    os.environ[_SAFE] = "1"
    try:
        with safe_globals(allowed):
            yield
    finally:
        os.environ.pop(_SAFE)
        if before is not None:
            os.environ[_SAFE] = before

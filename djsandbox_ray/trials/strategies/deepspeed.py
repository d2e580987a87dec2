"""DeepSpeed's ZeRO, stage 0 to 3: optimizer state, gradients and weights are shared out.

Its settings are DeepSpeed's own JSON: what the user gives, less what the hyper-parameters of the
model decide, checked before anything starts.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from djsandbox_ray.errors import BadInput, nearest, require
from djsandbox_ray.trials.strategies.strategy import Group, Setup, Strategy, twin

_TAG = "state"
# torch.load obeys it whatever its caller asks for.
_SAFE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
_WHERE = "trials.resources.deepspeed"
_MODEL = "trials.model"
_DECIDED = {
    "train_batch_size": f"{_MODEL}.batch_size",
    "train_micro_batch_size_per_gpu": f"{_MODEL}.batch_size",
    "gradient_accumulation_steps": f"{_MODEL}.batch_size",
    "gradient_clipping": f"{_MODEL}.clip_norm",
    "optimizer": f"{_MODEL}.learning_rate, weight_decay and betas",
    "scheduler": f"{_MODEL}.warmup",
    "fp16": f"{_MODEL}.precision",
    "bf16": f"{_MODEL}.precision",
    "amp": f"{_MODEL}.precision",
    "torch_autocast": f"{_MODEL}.precision",
}
"""What the hyper-parameters of the model decide, and where."""
_CHANGING = {
    "compression_training",
    "curriculum_learning",
    "data_efficiency",
    "elasticity",
    "hybrid_engine",
    "pipeline",
    "progressive_layer_drop",
    "quantize_training",
    "sparse_attention",
    "tensor_parallel",
}
"""What would train another model, or on other samples, than the same trial on one worker."""
_NEEDED = {
    # The trial's own AdamW is kept, on CPUs too.
    "zero_allow_untested_optimizer": True,
    "zero_force_ds_cpu_optimizer": False,
}


class DeepSpeed(Strategy):
    """A DeepSpeed engine around the trial's own optimizer.

    Rank 0 also holds a plain copy of what is trained, for evaluation, and all that is frozen.
    """

    def __init__(self, model: Any, setup: Setup, group: Group) -> None:
        device = next(model.parameters()).device
        self._deepspeed = import_deepspeed(device.type)
        self._config = complete(group.settings, setup.clip_norm, setup.half, device.type)
        super().__init__(model, setup, group)

    @classmethod
    def check(cls, settings: Mapping[str, Any], gpus: float) -> None:
        """Have DeepSpeed read the settings."""
        complete(settings, clip_norm=1.0, half=False, device="cuda" if gpus else "cpu")

    @property
    def form(self) -> str:
        """ZeRO's files fit the number of workers and the stage that wrote them."""
        stage = self._config["zero_optimization"]["stage"]
        return f"ZeRO {stage} on {self._group.size} workers"

    def _share(self) -> tuple[Callable[..., Any], Any]:
        self._copy = twin(self._model) if self._group.rank == 0 else None
        # Takes over the torch.distributed group that is there.
        self._deepspeed.init_distributed(verbose=False)
        engine, optimizer, *_ = self._deepspeed.initialize(
            model=self._model,
            optimizer=self._setup.optimizer(self._model),
            config=self._config,
            dist_init_required=False,
        )
        self._engine = engine
        return engine, optimizer

    def update(self) -> Any:
        """Let the engine do it: it averages, clips, updates and clears the gradients."""
        self._engine.step()
        return self._engine.get_global_grad_norm()

    def _backward(self, loss: Any) -> None:
        self._engine.backward(loss)

    def _exchanging(self, last: bool) -> AbstractContextManager[Any]:
        self._engine.set_gradient_accumulation_boundary(last)
        return nullcontext()

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
        for name, parameter in self._trained():
            with self._deepspeed.zero.GatheredParameters([parameter]):
                if name in kept:
                    kept[name].data.copy_(parameter.data)
        return self._copy

    def own(self) -> Any | None:
        """Return None: ZeRO may have it shared out."""
        return None

    def trained(self) -> dict[str, Any]:
        """Gather the weights, one at a time."""
        found = {}
        for name, parameter in self._trained():
            with self._deepspeed.zero.GatheredParameters([parameter]):
                found[name] = parameter.detach().to("cpu", copy=True)
        return found

    def _trained(self) -> Iterator[tuple[str, Any]]:
        for name, parameter in self._model.named_parameters():
            if parameter.requires_grad:
                yield name, parameter

    def save(self, folder: Path) -> None:
        """Write DeepSpeed's own files; those of two workers never have the same name."""
        self._engine.save_checkpoint(str(folder), tag=_TAG, exclude_frozen_parameters=True)

    def load(self, folder: Path) -> None:
        """Read DeepSpeed's own files, and from them nothing but tensors and three known types."""
        with _weights_only():
            # What is frozen is not in them; that nothing else is missing, the loop checks by name.
            self._engine.load_checkpoint(str(folder), tag=_TAG, load_module_strict=False)

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


def import_deepspeed(device: str) -> Any:
    """Import DeepSpeed for a type of device.

    Raises:
        MissingExtra: it is not installed.
    """
    if device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"  # read at import
    os.environ.setdefault("LOCAL_RANK", "0")  # Ray shows a worker its own GPU only
    deepspeed = require("deepspeed", "deepspeed")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # Else it compiles C++ code for minutes; gloo does the same work.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def complete(
    settings: Mapping[str, Any], clip_norm: float, half: bool, device: str
) -> dict[str, Any]:
    """Join the user's settings with what the trial decides.

    Args:
        settings: DeepSpeed's JSON as the user gives it; without ``zero_optimization``, ZeRO 2.
        clip_norm: largest norm of the gradient.
        half: whether forward passes run under bfloat16 autocast.
        device: type of the workers' device, ``cpu`` or ``cuda``.

    Raises:
        BadInput: a setting is one that the trial decides, or that DeepSpeed does not know or
            accept.
    """
    _refuse(settings)
    import_deepspeed(device)
    zero = settings.get("zero_optimization", {})
    if not isinstance(zero, Mapping):
        raise BadInput(f"{_WHERE}.zero_optimization: a mapping such as {{stage: 2}} is needed")
    config = {
        **settings,
        **_NEEDED,
        "zero_optimization": {"stage": 2, **zero},
        # How many samples make a step is the training loop's business: this divides by nothing.
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": clip_norm,
        "torch_autocast": {"enabled": half, "dtype": "bfloat16"},
    }
    _check(config)
    return config


def _refuse(settings: Mapping[str, Any]) -> None:
    for key, value in settings.items():
        if key in _DECIDED:
            raise BadInput(f"{_WHERE}.{key}: this is decided by {_DECIDED[key]}; leave it out")
        if key in _CHANGING:
            raise BadInput(
                f"{_WHERE}.{key}: this would change what is trained, which resources must not"
            )
        if key in _NEEDED and value is not _NEEDED[key]:
            raise BadInput(f"{_WHERE}.{key}: must be {str(_NEEDED[key]).lower()}, or left out")


def _check(config: dict[str, Any]) -> None:
    """Let DeepSpeed read the settings, and see which it never asks for."""
    read = _Watched(config)
    try:
        require("deepspeed.runtime.config", "deepspeed").DeepSpeedConfig(read)
    except (ValueError, TypeError, AssertionError) as error:  # pydantic's among them
        raise BadInput(f"{_WHERE}: DeepSpeed says: {_first_lines(error)}") from error
    for key in config:
        if key not in read.asked:
            hint = nearest(key, read.asked)
            raise BadInput(f"{_WHERE}.{key}: DeepSpeed knows no such setting{hint}")


def _first_lines(error: Exception) -> str:
    lines = (line.strip() for line in str(error).splitlines())
    return "; ".join(line for line in lines if line and "errors.pydantic.dev" not in line)


class _Watched(dict[str, Any]):
    """A dictionary that remembers which keys were asked for; DeepSpeed ignores unknown ones."""

    def __init__(self, items: Mapping[str, Any]) -> None:
        super().__init__(items)
        self.asked: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.asked.add(str(key))
        return super().__contains__(key)

    def __copy__(self) -> _Watched:
        return self

    def __iter__(self) -> Iterator[str]:
        return super().__iter__()

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)

    def keys(self) -> Any:
        return self  # ``key in config.keys()`` asks too

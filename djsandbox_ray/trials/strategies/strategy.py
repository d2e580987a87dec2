"""How the workers of a trial share one model: the extension point, and the two simplest ways.

A training loop makes the same calls whatever the strategy is, on every worker: :func:`share` a
model, take steps down the gradient of a loss, ask for the whole model where it is to be evaluated,
save and load.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from djsandbox_ray.errors import BadInput, require
from djsandbox_ray.settings.registry import Registry

T = TypeVar("T")

_FILE = "weights.pt"


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
            require("torch.distributed", "clip").barrier()

    def from_first(self, value: T) -> T:
        """Return what rank 0 gives, on every worker; the others wait for it here."""
        box = [value]
        if self.size > 1:
            require("torch.distributed", "clip").broadcast_object_list(box, src=0)
        return box[0]


@dataclass(frozen=True)
class Setup:
    """How gradients become weights, the same under every strategy."""

    optimizer: Callable[[Any], Any]
    """Makes a torch optimizer for the parameters of a model."""
    clip_norm: float
    """Largest norm of the gradient of the whole model."""
    half: bool = False
    """Whether forward passes run under bfloat16 autocast; the weights stay float32."""


class Strategy(ABC):
    """A model in training. Every worker makes the same calls in the same order.

    Gradients are averaged over the workers: a loss that every worker computes from all features, as
    ``torch.distributed.nn.functional.all_gather`` gives them, thus has the gradient of one worker.

    Args:
        model: a float32 model on its device, with the same weights on all workers, and no parameter
            without dimensions.
        setup: how it is trained.
        group: this worker's place.
    """

    def __init__(self, model: Any, setup: Setup, group: Group) -> None:
        self._model = model
        self._setup = setup
        self._group = group
        self._device = next(model.parameters()).device
        self.forward: Callable[..., Any]
        self.forward, self._optimizer = self._share()

    @classmethod  # noqa: B027 - optional
    def check(cls, settings: Mapping[str, Any], gpus: float) -> None:
        """Check settings before anything starts.

        Args:
            settings: of the group.
            gpus: GPUs of a worker, or a fraction of one.

        Raises:
            BadInput: they cannot be used.
            MissingExtra: a package that the strategy needs is not installed.
        """

    @property
    def form(self) -> str:
        """What :meth:`save` writes; :meth:`load` of any strategy of the same form reads it."""
        return "whole"

    @abstractmethod
    def _share(self) -> tuple[Callable[..., Any], Any]:
        """Return the callable for forward passes and the optimizer; called once."""

    def set_learning_rate(self, rate: float) -> None:
        """Set the learning rate of the next step."""
        for group in self._optimizer.param_groups:
            group["lr"] = rate

    def step(self, loss: Any) -> None:
        """Take a step down the gradient of a loss."""
        torch = require("torch", "clip")
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._setup.clip_norm)
        self._optimizer.step()

    def clamp(self, name: str, greatest: float) -> None:
        """Cut the values of the parameter ``name`` at ``greatest``."""
        with require("torch", "clip").no_grad():
            self._model.get_parameter(name).clamp_(max=greatest)

    def whole(self) -> Any | None:
        """Return the plain model with all its weights on rank 0, None elsewhere."""
        return self._model if self._group.rank == 0 else None

    def save(self, folder: Path) -> None:
        """Write this worker's part of model and optimizer; rank 0 writes all of it by default."""
        state = self._state()
        if self._group.rank == 0:
            require("torch", "clip").save(state, folder / _FILE)

    def load(self, folder: Path) -> None:
        """Read what all workers have saved."""
        torch = require("torch", "clip")
        self._restore(torch.load(folder / _FILE, map_location=self._device, weights_only=True))

    def close(self) -> None:  # noqa: B027 - optional
        """Let go of what outlives the model."""

    def _state(self) -> dict[str, Any]:
        """Return model and optimizer as whole tensors; all workers take part."""
        return {"model": self._model.state_dict(), "optimizer": self._optimizer.state_dict()}

    def _restore(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`_state` returned."""
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])


class Single(Strategy):
    """The model as it is."""

    def _share(self) -> tuple[Callable[..., Any], Any]:
        return self._model, self._setup.optimizer(self._model)


class Ddp(Strategy):
    """PyTorch's DistributedDataParallel; the copies stay bit for bit the same."""

    def _share(self) -> tuple[Callable[..., Any], Any]:
        parallel = require("torch.nn.parallel", "clip")
        # The buffers of a model that does not depend on other samples never change.
        wrapped = parallel.DistributedDataParallel(self._model, broadcast_buffers=False)
        return wrapped, self._setup.optimizer(self._model)


STRATEGIES: Registry[Strategy] = Registry(
    "strategy",
    Strategy,  # type: ignore[type-abstract]
    {
        "ddp": "djsandbox_ray.trials.strategies.strategy:Ddp",
        "deepspeed": "djsandbox_ray.trials.strategies.deepspeed:DeepSpeed",
        "fsdp": "djsandbox_ray.trials.strategies.fsdp:Fsdp",
        "single": "djsandbox_ray.trials.strategies.strategy:Single",
    },
)


def share(model: Any, setup: Setup, group: Group) -> Strategy:
    """Share a model among the workers of a group; every worker calls this.

    Args:
        model: the same on every worker; see :class:`Strategy`.
        setup: how it is trained.
        group: this worker's place. One worker alone trains plainly.

    Raises:
        BadInput: the model cannot be trained by several workers as by one, or the settings of the
            strategy cannot be used.
    """
    if group.size > 1:
        _check_rows_apart(model)
    name = group.strategy if group.size > 1 else "single"
    return STRATEGIES.get(name)(model, setup, group)


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

"""How the workers of a trial share one model: the extension point, and the two simplest ways.

A training loop makes the same calls whatever the strategy is, on every worker: :func:`share` a
model, take steps down the gradient of a loss or of several that are added up, ask for the whole
model where it is to be evaluated, save and load. What is frozen in the model is left as it is, and
is in no checkpoint.
"""

from __future__ import annotations

import copy
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from djsandbox_ray.errors import BadInput, SandboxError, require
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

    def gathered(self, value: T) -> list[T]:
        """Return what every worker gives, by rank, on every worker."""
        if self.size == 1:
            return [value]
        parts: list[Any] = [None] * self.size
        require("torch.distributed", "clip").all_gather_object(parts, value)
        return parts

    def sums(self, values: Sequence[float], device: str) -> list[float]:
        """Return numbers summed over the workers, each of which gives as many.

        Args:
            values: of this worker.
            device: of its model, where the workers exchange tensors.
        """
        if self.size == 1:
            return list(values)
        torch = require("torch", "clip")
        summed = torch.tensor(values, dtype=torch.float64, device=device)
        require("torch.distributed", "clip").all_reduce(summed)
        return list(summed.tolist())


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
        self._backward(loss)
        self.update()

    def accumulate(self, compute: Callable[[], Any], last: bool) -> None:
        """Add the gradient of a loss to those since the last update.

        Args:
            compute: returns the loss; it calls :attr:`forward` once.
            last: whether :meth:`update` comes next. Only then workers exchange gradients.
        """
        with self._exchanging(last):
            self._backward(compute())

    def update(self) -> Any:
        """Take a step down the gradient that is there, clear it, and return its norm.

        That before clipping; a number or a scalar tensor, None where it was not computed.
        """
        torch = require("torch", "clip")
        norm = torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._setup.clip_norm)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return norm

    def _backward(self, loss: Any) -> None:
        loss.backward()

    def _exchanging(self, last: bool) -> AbstractContextManager[Any]:
        """Surround a pass forward and back, in which workers exchange gradients or do not."""
        return nullcontext()

    def clamp(self, name: str, greatest: float) -> None:
        """Cut the values of the parameter ``name`` at ``greatest``."""
        with require("torch", "clip").no_grad():
            self._model.get_parameter(name).clamp_(max=greatest)

    def whole(self) -> Any | None:
        """Return the plain model with all its weights on rank 0, None elsewhere."""
        return self._model if self._group.rank == 0 else None

    def own(self) -> Any | None:
        """Return the plain model on every worker that has all of its weights; None elsewhere."""
        return self._model

    def trained(self) -> dict[str, Any]:
        """Return what is trained, by name, as whole tensors on the CPU; all workers call it."""
        return {
            name: self._gathered(parameter.detach()).to("cpu", copy=True)
            for name, parameter in self._model.named_parameters()
            if parameter.requires_grad
        }

    def save(self, folder: Path) -> None:
        """Write this worker's part of model and optimizer; rank 0 writes all of it by default."""
        state = self._state()
        if self._group.rank == 0:
            require("torch", "clip").save(state, folder / _FILE)

    def load(self, folder: Path) -> None:
        """Read what all workers have saved.

        Raises:
            SandboxError: it is not what is trained here.
        """
        torch = require("torch", "clip")
        self._restore(torch.load(folder / _FILE, map_location=self._device, weights_only=True))

    def close(self) -> None:  # noqa: B027 - optional
        """Let go of what outlives the model."""

    @staticmethod
    def _gathered(value: Any) -> Any:
        """Return the whole of a tensor, of which a worker may hold a part."""
        return value

    def _state(self) -> dict[str, Any]:
        """Return what training changes, and the optimizer, as whole tensors; all workers call."""
        state, kept = self._model.state_dict(), changing(self._model)
        model = {name: value for name, value in state.items() if name in kept}
        return {"model": model, "optimizer": self._optimizer.state_dict()}

    def _restore(self, state: dict[str, Any]) -> None:
        """Put back what :meth:`_state` returned."""
        check_names(state["model"], changing(self._model))
        self._model.load_state_dict(state["model"], strict=False)
        self._optimizer.load_state_dict(state["optimizer"])


def twin(model: Any) -> Any:
    """Return a copy of a model that shares with it what is frozen, and its buffers.

    It stays whole when the model is shared out among workers.
    """
    torch = require("torch", "clip")
    shared: dict[int, Any] = {id(buffer): buffer for buffer in model.buffers()}
    for parameter in model.parameters():
        if not parameter.requires_grad:
            alias = torch.nn.Parameter(parameter.data, requires_grad=False)
            shared[id(parameter)] = alias
    return copy.deepcopy(model, shared)


def changing(model: Any) -> set[str]:
    """Return the names in a model's state of all that training changes.

    Parameters that are trained, under all of their names, and buffers among them, such as the
    running means of a batch norm; not those in parts that are frozen.
    """
    trained: dict[str, bool] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        trained[name] = parameter.requires_grad
    alive = {""} if not trained or any(trained.values()) else set[str]()
    holders = {""}
    for name, is_trained in trained.items():
        parts = name.split(".")[:-1]
        above = {".".join(parts[: n + 1]) for n in range(len(parts))}
        holders |= above
        alive |= above if is_trained else set()

    def changes(name: str) -> bool:
        if name in trained:
            return trained[name]
        place = name.rpartition(".")[0]
        while place not in holders:
            place = place.rpartition(".")[0]
        return place in alive

    return {name for name in model.state_dict() if changes(name)}


def check_names(found: Any, wanted: Any) -> None:
    """Look whether a checkpoint holds exactly what is trained.

    Raises:
        SandboxError: it lacks something, or has something else; names the first.
    """
    lacking, more = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    if lacking or more:
        says = [
            f"{verb} {len(names)} {what}, such as {names[0]}"
            for verb, names, what in (
                ("lacks", lacking, "of its trained weights"),
                ("has", more, "weights that are not trained"),
            )
            if names
        ]
        raise SandboxError(f"the checkpoint is of another model: it {' and '.join(says)}")


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
        self._wrapped = wrapped
        return wrapped, self._setup.optimizer(self._model)

    def _exchanging(self, last: bool) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = nullcontext() if last else self._wrapped.no_sync()
        return context


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
        check_rows_apart(model, "Models for trials.resources.workers above 1")
    name = group.strategy if group.size > 1 else "single"
    return STRATEGIES.get(name)(model, setup, group)


_CHANCE = re.compile(r"(^|_)(dropout|drop|pdrop|layerdrop|drop_path)(_|$)")
"""Names of the numbers by which models draw lots in functions that are no modules of their own."""


def check_rows_apart(model: Any, whose: str) -> None:
    """Check that a sample's loss and features depend on nothing but the sample and the weights.

    Args:
        model: a torch module, with the wrappers of peft that it may be in.
        whose: which models are checked, to begin a sentence with.

    Raises:
        BadInput: it has batch normalisation or dropout; says where.
    """
    for name, module in model.named_modules():
        kind = type(module).__name__
        if kind.startswith("BatchNorm"):
            raise BadInput(_refusal(name, f"is a {kind}", whose))
        for chance, value in _chances(module):
            if value:
                raise BadInput(_refusal(name, f"is a {kind} with {chance}: {value:g}", whose))


def _chances(module: Any) -> Iterator[tuple[str, float]]:
    """Yield the probabilities in a module, and in the settings that peft keeps of its adapters."""
    kind = type(module).__name__
    if kind.startswith("Dropout"):
        yield "p", module.p
    if kind == "PatchDropout":
        yield "prob", module.prob
    settings = [vars(module)]
    if isinstance(adapters := getattr(module, "peft_config", None), Mapping):
        settings += [vars(adapter) for adapter in adapters.values()]
    for values in settings:
        for name, value in values.items():
            if _CHANCE.search(name) and isinstance(value, float):
                yield name, value


def _refusal(name: str, what: str, whose: str) -> str:
    return (
        f"{name or 'the model'} {what}: several workers, or parts of a batch, would not compute "
        f"what one does. {whose} have neither batch normalisation nor dropout"
    )

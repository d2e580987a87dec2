"""The training loop: AdamW, warm-up and cosine, rungs, checkpoints, a paired order of positions.

:class:`TrainingLoop` is what all trainings on gradients share. :class:`AdditiveTraining` is that of
an :class:`~djsandbox_ray.trials.objective.Objective`, whose loss is a sum over samples: the
gradient of a step is that of the sum over the global batch, divided by its weight, however the
batch is cut into micro-batches and shared among workers. A contrastive loss is no such sum: CLIP
takes steps of its own.
"""

from __future__ import annotations

import json
import logging
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from djsandbox_ray.errors import BadInput, SandboxError, require
from djsandbox_ray.settings.sections import Section
from djsandbox_ray.trials.family import Diverged
from djsandbox_ray.trials.loader import Loader
from djsandbox_ray.trials.objective import Objective
from djsandbox_ray.trials.strategies.strategy import (
    Group,
    Setup,
    check_names,
    check_rows_apart,
    share,
)

VERSION = 1
"""Part of the identity of every trial of an additive loss: to be raised with any change to what
this loop computes."""

_LOG = logging.getLogger(__name__)
_PROGRESS = "progress.json"

Beta = Annotated[float, Field(ge=0, lt=1)]


class LoopConfig(Section):
    """Hyper-parameters of one training."""

    batch_size: int = Field(default=128, ge=1, le=1 << 20, strict=True)
    """Samples of one step, of all workers together."""
    learning_rate: float = Field(default=5e-4, gt=0)
    """The highest: where the warm-up ends."""
    weight_decay: float = Field(default=0.1, ge=0)
    """Decays matrices only; biases and norms are left alone."""
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    """Of AdamW: how slowly its means of gradients, and of their squares, forget."""
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises linearly; then it falls as a cosine."""
    clip_norm: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bfloat16 autocast on GPUs, float32 on CPUs (where bfloat16 is slower)."""

    def adam_eps(self) -> float:
        """Return what Adam adds to the root of the mean square of the gradient."""
        return 1e-8


class AdditiveConfig(LoopConfig):
    """Hyper-parameters of one training, or of one stage of it, on a loss that is a sum."""

    micro_batch: int | None = Field(default=None, ge=1, strict=True)
    """Samples that a worker computes at once; by default its whole part of the batch. Smaller ones
    take less memory: their gradients are added up, and the result stays the same."""
    gradient_checkpointing: bool = False
    """Compute activations again on the way back in place of keeping them: less memory, more time,
    the same result."""
    frozen: Literal["auto", "fp32", "bf16"] = "auto"
    """Numbers of the matrices that are not trained; auto: bfloat16 where ``precision`` is."""
    prefetch: int = Field(default=2, ge=1, le=1000, strict=True)
    """Batches that are read and made ready ahead of the step."""


COSTS_ONLY = {"micro_batch", "gradient_checkpointing", "prefetch"}
"""Settings of :class:`AdditiveConfig` that decide memory and time, but no result."""

C = TypeVar("C", bound=LoopConfig)


def resolved(config: C, gpus: float) -> C:
    """Return the hyper-parameters with all that is ``auto`` decided: it is part of what is trained.

    Args:
        config: the hyper-parameters.
        gpus: GPUs of a worker, or a fraction of one.

    Raises:
        BadInput: what is frozen has bfloat16 numbers, but is to be multiplied in float32.
    """
    decided: dict[str, Any] = {}
    if config.precision == "auto":
        decided["precision"] = "bf16" if gpus > 0 else "fp32"
    precision = decided.get("precision", config.precision)
    if isinstance(config, AdditiveConfig):
        if config.frozen == "auto":
            decided["frozen"] = precision
        elif config.frozen == "bf16" and precision == "fp32":
            raise BadInput("trials.model.frozen: bf16 needs precision: bf16")
    return config.model_copy(update=decided) if decided else config


@dataclass(frozen=True)
class TrainingState:
    """What the loop yields whenever a rung is reached."""

    samples: int
    loss: float
    """Mean over the weight of the samples since the previous rung."""
    terms: dict[str, float] = field(default_factory=dict)
    """Means of what the loss is made of, and of the gradient's norm, since the previous rung."""


class TrainingLoop(ABC):
    """The training of one model, by one worker or as one of several that share each batch.

    Args:
        model: a torch module on ``device``, the same on all workers.
        config: the hyper-parameters.
        device: a torch device name.
        group: this worker's place.
        beat: called at every step.

    Raises:
        BadInput: the group's strategy cannot train the model.
    """

    def __init__(
        self, model: Any, config: LoopConfig, device: str, group: Group, beat: Callable[[], None]
    ) -> None:
        self._settings, self._device, self._group, self._beat = config, device, group, beat
        self._half = resolved(config, gpus=float(device != "cpu")).precision == "bf16"
        self._names = [name for name, p in model.named_parameters() if p.requires_grad]
        setup = Setup(partial(adamw, config=config), config.clip_norm, self._half)
        self._strategy = share(model, setup, group)
        self._steps = 0
        self._seen = 0

    def run(self, rungs: Sequence[int]) -> Iterator[TrainingState]:
        """Train, and yield at every rung ahead; all workers yield the same.

        Args:
            rungs: samples seen at which to yield; a rung inside a batch is reported at the batch's
                end, the last rung is the budget.

        Raises:
            Diverged: the mean loss since the last rung is not finite.
        """
        ahead = [rung for rung in rungs if rung > self._seen]
        size, budget = self._settings.batch_size, rungs[-1]
        steps = math.ceil(budget / size)
        self._forget()
        batches = self._batches(budget, size)
        try:
            for samples, batch in batches:
                factor = schedule(self._steps, steps, self._settings.warmup)
                self._strategy.set_learning_rate(self._settings.learning_rate * factor)
                self._step(batch)
                self._steps += 1
                self._beat()
                self._seen += samples
                if self._seen >= ahead[0]:
                    mean, terms = self._since()
                    if not math.isfinite(mean):
                        raise Diverged(f"the training loss is {mean} after {self._seen} samples")
                    ahead = [rung for rung in ahead if rung > self._seen]
                    yield TrainingState(self._seen, mean, terms)
        finally:
            batches.close()

    @abstractmethod
    def _batches(self, budget: int, size: int) -> Generator[tuple[int, Any]]:
        """Yield the batches that are ahead, each with the number of samples of all workers."""

    @abstractmethod
    def _step(self, batch: Any) -> None:
        """Take a step on a batch of the whole group."""

    @abstractmethod
    def _since(self) -> tuple[float, dict[str, float]]:
        """Return the mean loss and its terms since the last rung, the same on all workers.

        Then forget them.
        """

    @abstractmethod
    def _forget(self) -> None:
        """Begin the sums since the last rung anew."""

    def whole(self) -> Any | None:
        """Return the plain model on rank 0, None elsewhere; all workers call it."""
        return self._strategy.whole()

    def weights(self) -> dict[str, Any]:
        """Return what is trained, by name, as whole tensors on the CPU; all workers call it.

        A later stage goes on from them, with a model of its own.
        """
        return self._strategy.trained()

    def own(self) -> Any | None:
        """Return the plain model on every worker that has all of it: several can answer together.

        None where it is shared out; there :meth:`whole` brings it together on rank 0.
        """
        return self._strategy.own()

    def save(self, folder: Path) -> None:
        """Write this worker's files at a rung; the sums since the last rung are then empty."""
        self._strategy.save(folder)
        if self._group.rank == 0:
            state = {
                "form": self._strategy.form,
                "steps": self._steps,
                "samples": self._seen,
                "trained": self._names,
            }
            (folder / _PROGRESS).write_text(json.dumps(state))

    def load(self, folder: Path) -> bool:
        """Go on from what all workers have saved, bit for bit as if never cut off.

        Returns:
            False if another strategy has saved it in a form that this one cannot read.

        Raises:
            SandboxError: it is of a model of which something else is trained.
        """
        state = json.loads((folder / _PROGRESS).read_text())
        if state["form"] != self._strategy.form:
            _LOG.warning(
                "a checkpoint has the form %r, but %r is needed: the trial begins anew",
                state["form"],
                self._strategy.form,
            )
            return False
        check_names(state.get("trained", self._names), self._names)
        self._strategy.load(folder)
        self._steps, self._seen = state["steps"], state["samples"]
        return True

    def close(self) -> None:
        """Let go of what outlives the model."""
        self._strategy.close()


class AdditiveTraining(TrainingLoop):
    """The training of an objective whose loss is a sum over samples.

    Workers, micro-batches and resuming do not change the result: the loss of a step is divided by
    the weight of the whole global batch, and all noise is a function of a sample's number.

    Args:
        objective: the model, on ``device`` and with the same weights on all workers, and its
            samples.
        rows: of the draw; positions are below.
        config: the hyper-parameters.
        seed: decides the order of positions.
        device: a torch device name.
        group: this worker's place.
        beat: called at every step.
        threads: that make batches ready.

    Raises:
        BadInput: the model has dropout or mixes the samples of a batch, it cannot do what the
            hyper-parameters ask for, or the group's strategy cannot train it.
    """

    # Sums since the last rung: of losses and terms those of this worker, as tensors on the device.
    _loss: Any
    _norm: Any
    _terms: dict[str, Any]
    _weight: float
    _updates: int

    def __init__(
        self,
        objective: Objective,
        rows: int,
        config: AdditiveConfig,
        seed: int,
        device: str,
        group: Group | None = None,
        beat: Callable[[], None] = lambda: None,
        threads: int = 1,
    ) -> None:
        config = resolved(config, gpus=float(device != "cpu"))
        model = objective.model.train()
        check_rows_apart(model, "Models of trials")
        if config.frozen == "bf16":
            lower_frozen(model)
        if config.gradient_checkpointing:
            checkpoint_gradients(model)
        self._objective, self._rows, self._seed, self._threads = objective, rows, seed, threads
        self._config = config
        super().__init__(model, config, device, group or Group(), beat)
        self._forget()

    def _batches(self, budget: int, size: int) -> Generator[tuple[int, _Batch]]:
        ahead = self._ahead(budget, size)
        return Loader(self._ready, ahead, self._threads, self._config.prefetch)()

    def _ahead(self, budget: int, size: int) -> Iterator[_Part]:
        """Yield this worker's part of every batch ahead."""
        first = self._seen
        order = batch_positions(self._rows, budget, size, self._seed)
        for positions in islice(order, self._steps, None):
            numbers = np.arange(first, first + len(positions))
            yield _Part.of(positions, numbers, self._group)
            first += len(positions)

    def _ready(self, part: _Part) -> tuple[int, _Batch]:
        """Read and cut a part; in a thread."""
        batch = self._objective.collate(part.positions, part.order)
        size = self._config.micro_batch or part.longest
        cut = self._objective.split(batch, size)
        micros = math.ceil(len(part.positions) / size)
        if len(cut) != micros:
            raise SandboxError(
                f"{type(self._objective).__name__}.split made {len(cut)} micro-batches of at most "
                f"{size} of {len(part.positions)} samples; {micros} are needed"
            )
        weight = self._objective.weight(batch) if part.counts else 0.0
        return part.samples, _Batch(cut, weight, part.counts, math.ceil(part.longest / size))

    def _step(self, batch: _Batch) -> None:
        (weight,) = self._group.sums([batch.weight], self._device)
        if not weight > 0:
            raise SandboxError(
                f"the batch behind {self._seen} samples has a weight of {weight:g}: none of its "
                "samples has anything to learn"
            )
        self._weight += weight
        # Gradients are averaged over the workers.
        factor = self._group.size / weight
        for number in range(batch.passes):
            counts = batch.counts and number < len(batch.micros)
            micro = batch.micros[min(number, len(batch.micros) - 1)]
            self._strategy.accumulate(
                partial(self._scaled, micro, factor if counts else 0.0),
                last=number == batch.passes - 1,
            )
        norm = self._strategy.update()
        if norm is not None:
            self._norm, self._updates = self._norm + norm, self._updates + 1

    def _scaled(self, micro: Any, factor: float) -> Any:
        """Return the loss of a micro-batch as a part of the step's.

        A worker that has fewer than others computes one more that does not count: all of them take
        part in every pass.
        """
        torch = require("torch", "clip")
        kind = torch.device(self._device).type
        with torch.autocast(kind, torch.bfloat16, enabled=self._half):
            loss, terms = self._objective.loss(self._strategy.forward, micro)
        if factor:
            self._loss = self._loss + loss.detach().double()
        for name, value in terms.items():
            value = value.double() if hasattr(value, "double") else value
            self._terms[name] = self._terms.get(name, 0.0) + (value if factor else 0.0)
        return loss * factor

    def _since(self) -> tuple[float, dict[str, float]]:
        names = sorted(self._terms)
        own = [float(self._loss), *(float(self._terms[name]) for name in names)]
        loss, *terms = (value / self._weight for value in self._group.sums(own, self._device))
        found = dict(zip(names, terms, strict=True))
        if self._updates:
            found[GRADIENT_NORM] = float(self._norm) / self._updates
        self._forget()
        return loss, found

    def _forget(self) -> None:
        self._loss, self._norm, self._terms = 0.0, 0.0, {}
        self._weight, self._updates = 0.0, 0


GRADIENT_NORM = "gradient_norm"
"""The term that additive trainings report: the mean norm of the gradient before clipping. A LoRA
that learns nothing shows in it."""


@dataclass(frozen=True)
class _Part:
    """What one worker does of a batch."""

    samples: int
    """Of the whole batch."""
    positions: NDArray[np.int64]
    order: NDArray[np.int64]
    counts: bool
    """False where there are fewer samples than workers: it only takes part."""
    longest: int
    """Samples of the largest part of all workers."""

    @classmethod
    def of(cls, positions: NDArray[np.int64], order: NDArray[np.int64], group: Group) -> _Part:
        mine = np.array_split(np.arange(len(positions)), group.size)[group.rank]
        counts = len(mine) > 0
        mine = mine if counts else np.zeros(1, np.int64)
        longest = math.ceil(len(positions) / group.size)
        return cls(len(positions), positions[mine], order[mine], counts, longest)


@dataclass(frozen=True)
class _Batch:
    """A part that is ready."""

    micros: list[Any]
    weight: float
    counts: bool
    passes: int
    """Micro-batches of the worker that has most."""


def batch_positions(rows: int, budget: int, size: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Yield the positions of every batch: one permutation of the rows after the other."""
    rng = np.random.default_rng([seed, rows])
    left = np.empty(0, np.int64)
    while budget > 0:
        want = min(size, budget)
        # A lone last sample has nothing to be contrasted with: it joins the batch before it.
        want += budget - want == 1
        while len(left) < want:
            left = np.concatenate([left, rng.permutation(rows)])
        yield left[:want]
        left = left[want:]
        budget -= want


def schedule(step: int, steps: int, warmup: float) -> float:
    """Return the factor of the learning rate: linear warm-up, then a cosine to zero."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def adamw(model: Any, config: LoopConfig) -> Any:
    """Return the optimizer of what is trained of a model."""
    torch = require("torch", "clip")
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        groups, lr=config.learning_rate, betas=config.betas, eps=config.adam_eps(), fused=True
    )


def lower_frozen(model: Any) -> None:
    """Make bfloat16 of the matrices that are not trained; norms and biases stay as they are.

    Under autocast they would be turned into it at every step anyway. The parameters get other
    tensors; those that they share with another model stay as they are there.
    """
    torch = require("torch", "clip")
    for parameter in model.parameters():
        if not parameter.requires_grad and parameter.ndim >= 2:
            parameter.data = parameter.data.to(torch.bfloat16)


def checkpoint_gradients(model: Any) -> None:
    """Have a model of transformers, peft or diffusers compute activations again on the way back.

    It switches ``use_cache`` off: who generates switches it on.

    Raises:
        BadInput: the model cannot.
    """
    if hasattr(model, "gradient_checkpointing_enable"):
        # The other kind loses gradients where the input of a layer needs none.
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    elif hasattr(model, "enable_gradient_checkpointing"):
        model.enable_gradient_checkpointing()
    else:
        raise BadInput(
            f"trials.model.gradient_checkpointing: {type(model).__name__} cannot do it; leave it "
            "out, or take a smaller micro_batch"
        )

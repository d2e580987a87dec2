"""The training loop: AdamW, warm-up and cosine, contrastive loss, paired order of positions."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from djsandbox_ray.errors import require
from djsandbox_ray.settings.sections import Section
from djsandbox_ray.trials.clip.samples import Images, Tokens
from djsandbox_ray.trials.family import Diverged
from djsandbox_ray.trials.strategies.strategy import Group, Setup, share

VERSION = 1
"""Part of every trial's identity: to be raised with any change to what a training computes."""

_LOG = logging.getLogger(__name__)
_PROGRESS = "progress.json"
_FUNCTIONAL = "torch.distributed.nn.functional"
# Mean and standard deviation of the pixels of CLIP's training images, in 0..1.
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


Beta = Annotated[float, Field(ge=0, lt=1)]


class TrainingConfig(Section):
    """Hyper-parameters of one training."""

    batch_size: int = Field(default=128, ge=2, le=1 << 20, strict=True)
    learning_rate: float = Field(default=5e-4, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    """Decays matrices only; biases, norms and the temperature are left alone."""
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises linearly; then it falls as a cosine."""
    clip_norm: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bfloat16 autocast on GPUs, float32 on CPUs (where bfloat16 is slower)."""


C = TypeVar("C", bound=TrainingConfig)


def resolved(config: C, gpus: float) -> C:
    """Return the hyper-parameters with ``precision: auto`` decided: it is part of what is trained.

    Args:
        config: the hyper-parameters.
        gpus: GPUs of a worker, or a fraction of one.
    """
    if config.precision != "auto":
        return config
    return config.model_copy(update={"precision": "bf16" if gpus > 0 else "fp32"})


@dataclass(frozen=True)
class TrainingState:
    """What the loop yields whenever a rung is reached."""

    samples: int
    loss: float
    """Mean over the samples since the previous rung."""


class DeviceArrays:
    """The samples of one training on its device, and batches in the order of a seed.

    Args:
        images: uint8, shape (rows, side, side, 3).
        tokens: token ids, shape (rows, context).
        seed: the order of positions, the same for every draw of the same size.
        device: a torch device name.
    """

    def __init__(self, images: Images, tokens: Tokens, seed: int, device: str) -> None:
        torch = require("torch", "clip")
        self._images = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device)
        self._tokens = torch.from_numpy(tokens).to(device=device, dtype=torch.int64)
        self._seed = seed
        self._device = device

    def order(self, budget: int, size: int) -> Iterator[NDArray[np.int64]]:
        """Yield the positions of every batch of ``size`` until ``budget`` samples are out."""
        return batch_positions(len(self._tokens), budget, size, self._seed)

    def take(self, positions: NDArray[np.int64]) -> tuple[Any, Any]:
        """Return images and tokens at the positions."""
        index = require("torch", "clip").from_numpy(positions).to(self._device)
        return self._images[index], self._tokens[index]


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


def part(positions: NDArray[np.int64], group: Group) -> NDArray[np.int64]:
    """Return a worker's part of a batch; all parts are of one length.

    One after the other, the parts are the batch and then, where it does not divide, its first
    positions once more.
    """
    length = -(-len(positions) // group.size)
    padded = np.resize(positions, length * group.size)
    return padded[group.rank * length : (group.rank + 1) * length]


class Training:
    """The training of one model, by one worker or as one of several that share each batch.

    Args:
        model: an open_clip model on ``device``, the same on all workers.
        draw: the samples, all of them on every worker.
        config: the hyper-parameters.
        device: a torch device name.
        group: this worker's place.
        beat: called at every step.

    Raises:
        BadInput: the group's strategy cannot train the model.
    """

    def __init__(
        self,
        model: Any,
        draw: DeviceArrays,
        config: TrainingConfig,
        device: str,
        group: Group | None = None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self._draw, self._config, self._device, self._beat = draw, config, device, beat
        self._group = group or Group()
        self._half = resolved(config, gpus=float(device != "cpu")).precision == "bf16"
        setup = Setup(partial(_optimizer, config=config), config.clip_norm, self._half)
        self._strategy = share(model, setup, self._group)
        self._contrast = require("open_clip", "clip").ClipLoss(cache_labels=True)
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
        torch = require("torch", "clip")
        ahead = [rung for rung in rungs if rung > self._seen]
        size, budget = self._config.batch_size, rungs[-1]
        steps = math.ceil(budget / size)
        since, total = 0, torch.zeros((), device=self._device)
        for positions in islice(self._draw.order(budget, size), self._steps, None):
            factor = schedule(self._steps, steps, self._config.warmup)
            self._strategy.set_learning_rate(self._config.learning_rate * factor)
            total += self._step(positions) * len(positions)
            self._steps += 1
            self._beat()
            self._seen += len(positions)
            since += len(positions)
            if self._seen >= ahead[0]:
                mean = float(total) / since
                if not math.isfinite(mean):
                    raise Diverged(f"the training loss is {mean} after {self._seen} samples")
                ahead = [rung for rung in ahead if rung > self._seen]
                yield TrainingState(self._seen, mean)
                since, total = 0, torch.zeros((), device=self._device)

    def whole(self) -> Any | None:
        """Return the plain model on rank 0, None elsewhere; all workers call it."""
        return self._strategy.whole()

    def save(self, folder: Path) -> None:
        """Write this worker's files at a rung; the sums since the last rung are then empty."""
        self._strategy.save(folder)
        if self._group.rank == 0:
            state = {"form": self._strategy.form, "steps": self._steps, "samples": self._seen}
            (folder / _PROGRESS).write_text(json.dumps(state))

    def load(self, folder: Path) -> bool:
        """Go on from what all workers have saved, bit for bit as if never cut off.

        Returns:
            False if another strategy has saved it in a form that this one cannot read.
        """
        state = json.loads((folder / _PROGRESS).read_text())
        if state["form"] != self._strategy.form:
            _LOG.warning(
                "a checkpoint has the form %r, but %r is needed: the trial begins anew",
                state["form"],
                self._strategy.form,
            )
            return False
        self._strategy.load(folder)
        self._steps, self._seen = state["steps"], state["samples"]
        return True

    def close(self) -> None:
        """Let go of what outlives the model."""
        self._strategy.close()

    def _step(self, positions: NDArray[np.int64]) -> Any:
        """Take a step on a batch of the whole group; return the mean loss over the batch."""
        torch = require("torch", "clip")
        images, tokens = self._draw.take(part(positions, self._group))
        kind = torch.device(self._device).type
        with torch.autocast(kind, torch.bfloat16, enabled=self._half):
            features = self._strategy.forward(normalise(images), tokens)
            loss = self._contrast(*self._gathered(*features, rows=len(positions)))
        self._strategy.step(loss)
        self._strategy.clamp("logit_scale", math.log(100))
        return loss.detach()

    def _gathered(self, images: Any, texts: Any, *scale: Any, rows: int) -> tuple[Any, ...]:
        """Return the features of the whole batch, with gradients, on every worker."""
        if self._group.size > 1:
            torch, functional = require("torch", "clip"), require(_FUNCTIONAL, "clip")
            # Named, since the default is the group that was there when torch was imported.
            world = torch.distributed.group.WORLD
            images, texts = (
                torch.cat(functional.all_gather(features, group=world))
                for features in (images, texts)
            )
        return images[:rows], texts[:rows], *scale


def schedule(step: int, steps: int, warmup: float) -> float:
    """Return the factor of the learning rate: linear warm-up, then a cosine to zero."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def normalise(images: Any) -> Any:
    """Turn uint8 pixels, shape (rows, 3, side, side), into the floats that CLIP models expect."""
    torch = require("torch", "clip")
    mean = torch.tensor(PIXEL_MEAN, device=images.device).view(3, 1, 1) * 255
    std = torch.tensor(PIXEL_STD, device=images.device).view(3, 1, 1) * 255
    return images.float().sub_(mean).div_(std)


def _optimizer(model: Any, config: TrainingConfig) -> Any:
    torch = require("torch", "clip")
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)

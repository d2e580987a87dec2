"""The training of CLIP: a contrastive loss over the whole batch, and all samples on the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from djsandbox_ray.errors import require
from djsandbox_ray.trials.clip.samples import Images, Tokens
from djsandbox_ray.trials.loop import LoopConfig, TrainingLoop, batch_positions
from djsandbox_ray.trials.strategies.strategy import Group

VERSION = 1
"""Part of every trial's identity: to be raised with any change to what a training computes."""

_FUNCTIONAL = "torch.distributed.nn.functional"
# Mean and standard deviation of the pixels of CLIP's training images, in 0..1.
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


class TrainingConfig(LoopConfig):
    """Hyper-parameters of one training."""

    batch_size: int = Field(default=128, ge=2, le=1 << 20, strict=True)
    weight_decay: float = Field(default=0.1, ge=0)
    """Decays matrices only; biases, norms and the temperature are left alone."""


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


def part(positions: NDArray[np.int64], group: Group) -> NDArray[np.int64]:
    """Return a worker's part of a batch; all parts are of one length.

    One after the other, the parts are the batch and then, where it does not divide, its first
    positions once more.
    """
    length = -(-len(positions) // group.size)
    padded = np.resize(positions, length * group.size)
    return padded[group.rank * length : (group.rank + 1) * length]


class Training(TrainingLoop):
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
        super().__init__(model, config, device, group or Group(), beat)
        self._draw = draw
        self._contrast = require("open_clip", "clip").ClipLoss(cache_labels=True)
        self._forget()

    def _batches(self, budget: int, size: int) -> Generator[tuple[int, NDArray[np.int64]]]:
        for positions in islice(self._draw.order(budget, size), self._steps, None):
            yield len(positions), positions

    def _forget(self) -> None:
        self._count, self._sum = 0, require("torch", "clip").zeros((), device=self._device)

    def _since(self) -> tuple[float, dict[str, float]]:
        mean = float(self._sum) / self._count
        self._forget()
        return mean, {}

    def _step(self, positions: NDArray[np.int64]) -> None:
        torch = require("torch", "clip")
        images, tokens = self._draw.take(part(positions, self._group))
        kind = torch.device(self._device).type
        with torch.autocast(kind, torch.bfloat16, enabled=self._half):
            features = self._strategy.forward(normalise(images), tokens)
            loss = self._contrast(*self._gathered(*features, rows=len(positions)))
        self._strategy.step(loss)
        self._strategy.clamp("logit_scale", math.log(100))
        self._sum += loss.detach() * len(positions)
        self._count += len(positions)

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


def normalise(images: Any) -> Any:
    """Turn uint8 pixels, shape (rows, 3, side, side), into the floats that CLIP models expect."""
    torch = require("torch", "clip")
    mean = torch.tensor(PIXEL_MEAN, device=images.device).view(3, 1, 1) * 255
    std = torch.tensor(PIXEL_STD, device=images.device).view(3, 1, 1) * 255
    return images.float().sub_(mean).div_(std)

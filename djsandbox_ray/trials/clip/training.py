"""The training loop: AdamW, warm-up and cosine, contrastive loss, paired order of positions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from djsandbox_ray.errors import require
from djsandbox_ray.sections import Section
from djsandbox_ray.trials.clip.samples import Images, Tokens
from djsandbox_ray.trials.family import Diverged

# Mean and standard deviation of the pixels of CLIP's training images, in 0..1.
PIXEL_MEAN = (0.48145466, 0.4578275, 0.40821073)
PIXEL_STD = (0.26862954, 0.26130258, 0.27577711)


Beta = Annotated[float, Field(ge=0, lt=1)]


class TrainingConfig(Section):
    """Hyper-parameters of one training."""

    batch_size: int = Field(default=128, ge=2, strict=True)
    learning_rate: float = Field(default=5e-4, gt=0)
    weight_decay: float = Field(default=0.1, ge=0)
    """Decays matrices only; biases, norms and the temperature are left alone."""
    betas: tuple[Beta, Beta] = (0.9, 0.98)
    warmup: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps in which the learning rate rises linearly; then it falls as a cosine."""
    clip_norm: float = Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bfloat16 autocast on a GPU that has it, float32 elsewhere (on a CPU bf16 is slower)."""


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

    def batches(self, budget: int, size: int) -> Iterator[tuple[Any, Any]]:
        """Yield (images, tokens) until ``budget`` samples are out; the last may be smaller."""
        torch = require("torch", "clip")
        for positions in batch_positions(len(self._tokens), budget, size, self._seed):
            index = torch.from_numpy(positions).to(self._device)
            yield self._images[index], self._tokens[index]


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


def train(
    model: Any, draw: DeviceArrays, rungs: Sequence[int], config: TrainingConfig, device: str
) -> Iterator[TrainingState]:
    """Train an open_clip model in place and yield at every rung.

    Args:
        model: an open_clip model on ``device``.
        draw: the samples.
        rungs: samples seen at which to yield; a rung inside a batch is reported at the batch's end,
            the last rung is the budget.
        config: the hyper-parameters.
        device: a torch device name.

    Raises:
        Diverged: the mean loss since the last rung is not finite.
    """
    torch = require("torch", "clip")
    budget = rungs[-1]
    optimizer = _optimizer(model, config)
    steps = math.ceil(budget / config.batch_size)
    contrast = require("open_clip", "clip").ClipLoss(cache_labels=True)
    half = config.precision == "bf16" or (
        config.precision == "auto" and device != "cpu" and torch.cuda.is_bf16_supported()
    )
    ahead = list(rungs)
    seen, since, total = 0, 0, torch.zeros((), device=device)
    for step, (images, tokens) in enumerate(draw.batches(budget, config.batch_size)):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * schedule(step, steps, config.warmup)
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=half):
            features = model(normalise(images), tokens)
            loss = contrast(*features)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100))
        total += loss.detach() * len(tokens)
        seen, since = seen + len(tokens), since + len(tokens)
        if seen >= ahead[0]:
            mean = float(total) / since
            if not math.isfinite(mean):
                raise Diverged(f"the training loss is {mean} after {seen} samples")
            while ahead and seen >= ahead[0]:
                del ahead[0]
            yield TrainingState(seen, mean)
            since, total = 0, torch.zeros((), device=device)


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

"""What a text-to-video model learns: to tell noise from signal, at all times, given the caption.

The loss of a sample is the mean over its numbers of the squared error, its weight 1: each clip of
the global batch counts as much as any other. Time, noise and whether the caption is left out are
functions of the seed and of the sample's number in the order of training.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import require
from djsandbox_ray.settings.sections import Section
from djsandbox_ray.trials.objective import noise
from djsandbox_ray.trials.t2v.codec import Codec
from djsandbox_ray.trials.t2v.denoisers import Prompts, TransformerAdapter
from djsandbox_ray.trials.t2v.latents import encoded
from djsandbox_ray.trials.t2v.schedule import Schedule
from djsandbox_ray.trials.t2v.training_clips import Clips


class DenoiseConfig(Section):
    """To denoise; what there is to say of it, the model's own settings say."""

    type: Literal["denoise"] = "denoise"


class Latents(Protocol):
    """Where the latents of clips come from."""

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.float16]:
        """Return latents at some positions; see :class:`~.latents.StoredLatents`."""


class ComputedLatents:
    """Latents that are computed each time that they are asked for.

    Args:
        clips: decoded as often.
        codec: of the model, on any device.
    """

    def __init__(self, clips: Clips, codec: Codec) -> None:
        self._clips, self._codec = clips, codec

    def __len__(self) -> int:
        return len(self._clips)

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.float16]:
        """Decode and encode clips at some positions."""
        return encoded(self._codec, self._clips.take(positions))


@dataclass(frozen=True)
class NoisyBatch:
    """Samples as a denoiser sees them, on the CPU; torch tensors."""

    latents: Any
    """float32, shape (n, channels, frames, height, width)."""
    noise: Any
    """Likewise."""
    times: Any
    """float32, shape (n,)."""
    prompts: Prompts
    """n of them."""

    def __len__(self) -> int:
        return len(self.times)

    def part(self, start: int, stop: int) -> NoisyBatch:
        """Return some of the samples."""
        latents, drawn, times = (one[start:stop] for one in (self.latents, self.noise, self.times))
        return NoisyBatch(latents, drawn, times, self.prompts.take(slice(start, stop)))


class PromptBook:
    """What the text encoder makes of all captions of a training, each once; the empty one, too.

    Args:
        texts: perhaps with repetitions.
        encode: returns what the text encoder makes of some.
    """

    def __init__(self, texts: Sequence[str], encode: Callable[[Sequence[str]], Prompts]) -> None:
        different = dict.fromkeys(["", *texts])
        self._place = {text: place for place, text in enumerate(different)}
        self.prompts = encode(list(different))

    def places(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Return where some of the texts are among the prompts; the empty one is at 0."""
        return np.array([self._place[text] for text in texts], dtype=np.int64)

    def take(self, places: NDArray[np.int64]) -> Prompts:
        """Return the prompts at some places."""
        return self.prompts.take(require("torch", "clip").from_numpy(places))


class Denoising:
    """The objective: latents of clips, foretold by a transformer.

    Args:
        model: the transformer on its device.
        adapter: calls it.
        schedule: of noise.
        latents: of the draw.
        captions: of the draw, as many.
        book: has all of them.
        seed: of the trial.
        drop: share of the samples whose caption is left out, so that guidance is possible.
        device: a torch device name.
    """

    def __init__(
        self,
        model: Any,
        adapter: TransformerAdapter,
        schedule: Schedule,
        latents: Latents,
        captions: Sequence[str],
        book: PromptBook,
        seed: int,
        drop: float,
        device: str,
    ) -> None:
        self.model = model
        self._adapter, self._schedule, self._latents = adapter, schedule, latents
        self._book, self._places = book, book.places(captions)
        self._seed, self._drop, self._device = seed, drop, device

    def collate(self, positions: NDArray[np.int64], order: NDArray[np.int64]) -> NoisyBatch:
        """Read latents, and draw all that is random about the samples."""
        torch = require("torch", "clip")
        latents = self._latents.take(positions).astype(np.float32)
        said = self._places[positions].copy()
        times = np.empty(len(order), np.float32)
        drawn = np.empty_like(latents)
        for place, number in enumerate(order.tolist()):
            random = noise(self._seed, number)
            if random.random() < self._drop:
                said[place] = 0
            times[place] = self._schedule.draw(random)
            drawn[place] = random.standard_normal(latents.shape[1:], np.float32)
        given, added, at = (torch.from_numpy(array) for array in (latents, drawn, times))
        return NoisyBatch(given, added, at, self._book.take(said))

    def weight(self, batch: NoisyBatch) -> float:
        """Return the number of samples."""
        return float(len(batch))

    def split(self, batch: NoisyBatch, size: int) -> list[NoisyBatch]:
        """Cut a batch in its order."""
        return [batch.part(start, start + size) for start in range(0, len(batch), size)]

    def loss(self, forward: Callable[..., Any], batch: NoisyBatch) -> tuple[Any, dict[str, Any]]:
        """Return the sum over the samples of their mean squared errors."""
        latents, drawn, times = (
            one.to(self._device) for one in (batch.latents, batch.noise, batch.times)
        )
        errors = denoising_errors(
            self._adapter,
            self._schedule,
            forward,
            latents,
            drawn,
            times,
            batch.prompts.map(lambda value: value.to(self._device)),
        )
        return errors.sum(), {}


def denoising_errors(
    adapter: TransformerAdapter,
    schedule: Schedule,
    forward: Callable[..., Any],
    latents: Any,
    drawn: Any,
    times: Any,
    prompts: Prompts,
) -> Any:
    """Return the mean squared error of every sample; float32, shape (n,).

    Args:
        adapter: calls the transformer.
        schedule: of noise.
        forward: the transformer.
        latents: without noise, shape (n, channels, frames, height, width).
        drawn: the noise, likewise.
        times: shape (n,).
        prompts: n of them.
    """
    noisy = schedule.noised(latents, drawn, times)
    out = adapter(forward, noisy, times, prompts)
    target = schedule.target(latents, drawn, times)
    return ((out.float() - target) ** 2).flatten(1).mean(dim=1)

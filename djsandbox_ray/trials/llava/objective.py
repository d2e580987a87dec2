"""What a LLaVA learns: to foretell the answers, given the images and what was said before.

The loss of a sample is the sum of the negative log likelihoods of its targets, its weight their
number: each token of the global batch counts as much as any other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import require
from djsandbox_ray.trials.conversations import NOT_LEARNT, Conversations, Told, Unlearnt, naming
from djsandbox_ray.trials.llava.pixels import Looks
from djsandbox_ray.trials.llava.text import Encoded, Transcript


@dataclass(frozen=True)
class Micro:
    """Samples of like length, padded on the right to one; torch tensors on the CPU."""

    ids: Any
    """int64, shape (samples, length)."""
    mask: Any
    """int64, shape (samples, length): 1 where there is a token."""
    places: Any
    """int64, shape (targets,): behind which places of the flattened ids a target stands."""
    targets: Any
    """int64, shape (targets,)."""
    images: Any | None
    """What stands for each image, shape (images, ...); None without any."""
    numbers: tuple[int, ...] = ()
    """Of the samples, in the order of training."""

    def to(self, device: str) -> Micro:
        """Return the same on a device."""
        ids, mask, places, targets, images = (
            None if one is None else one.to(device, non_blocking=True)
            for one in (self.ids, self.mask, self.places, self.targets, self.images)
        )
        return Micro(ids, mask, places, targets, images, self.numbers)


@dataclass(frozen=True)
class Batch:
    """Samples in tokens and pixels, not padded yet."""

    encoded: tuple[Encoded, ...]
    images: tuple[tuple[NDArray[Any], ...], ...]
    """Of every sample, what stands for those images that are in its tokens; a model that sees gets
    it from :class:`~.pixels.Looks`."""
    numbers: tuple[int, ...]
    """In the order of training."""

    @property
    def targets(self) -> int:
        """How many tokens are learnt."""
        return sum(one.targets for one in self.encoded)

    def split(self, size: int, pad_id: int) -> list[Micro]:
        """Cut into parts of at most ``size``, short ones together, and pad these."""
        order = sorted(range(len(self.encoded)), key=lambda at: len(self.encoded[at].ids))
        return [
            self._padded(order[start : start + size], pad_id)
            for start in range(0, len(order), size)
        ]

    def _padded(self, some: Sequence[int], pad_id: int) -> Micro:
        torch = require("torch", "clip")
        longest = max(len(self.encoded[at].ids) for at in some)
        ids = np.full((len(some), longest), pad_id, np.int64)
        labels = np.full((len(some), longest), NOT_LEARNT, np.int64)
        mask = np.zeros((len(some), longest), np.int64)
        for line, at in enumerate(some):
            one = self.encoded[at]
            length = len(one.ids)
            ids[line, :length], labels[line, :length], mask[line, :length] = one.ids, one.labels, 1
        learnt = np.flatnonzero(labels.reshape(-1) != NOT_LEARNT)
        images = [image for at in some for image in self.images[at]]
        return Micro(
            torch.from_numpy(ids),
            torch.from_numpy(mask),
            torch.from_numpy(learnt - 1),  # the first of a line is never learnt
            torch.from_numpy(labels.reshape(-1)[learnt]),
            torch.from_numpy(np.stack(images)) if images else None,
            tuple(self.numbers[at] for at in some),
        )


class NextTokens:
    """The objective: conversations of a table, read by a model, in one template.

    Args:
        model: a :class:`~.modules.Reader` on its device.
        told: the samples.
        transcript: makes tokens of them.
        looks: makes of their images what the model is given.
        device: a torch device name.
        pad_id: fills up what is shorter than others; any token, as it is not read.
    """

    def __init__(
        self,
        model: Any,
        told: Conversations,
        transcript: Transcript,
        looks: Looks,
        device: str,
        pad_id: int = 0,
    ) -> None:
        self.model = model
        self._told, self._transcript, self._looks = told, transcript, looks
        self._device, self._pad_id = device, pad_id
        self._unlearnt = Unlearnt(transcript.max_tokens)

    def collate(self, positions: NDArray[np.int64], order: NDArray[np.int64]) -> Batch:
        """Read, decode and tokenise samples.

        Raises:
            BadInput: more than 1 % of them so far have nothing to learn.
        """
        told = self._told.take(positions)
        encoded = tuple(map(self._encoded, told))
        files = [one.images[: text.images] for one, text in zip(told, encoded, strict=True)]
        seen = tuple(map(tuple, self._looks.of([one.row for one in told], files)))
        self._unlearnt.count([one.targets for one in encoded])
        return Batch(encoded, seen, tuple(order.tolist()))

    def _encoded(self, told: Told) -> Encoded:
        with naming(told.place):
            return self._transcript.sample(told.turns)

    def weight(self, batch: Batch) -> float:
        """Return the number of tokens that are learnt."""
        return float(batch.targets)

    def split(self, batch: Batch, size: int) -> list[Micro]:
        """Cut a batch, with samples of like length together."""
        return batch.split(size, self._pad_id)

    def loss(self, forward: Callable[..., Any], batch: Micro) -> tuple[Any, dict[str, Any]]:
        """Return the sum of the negative log likelihoods of the targets, in nats."""
        batch = batch.to(self._device)
        logits = forward(batch.ids, batch.mask, batch.places, *self._seen(batch))
        functional = require("torch.nn.functional", "clip")
        return functional.cross_entropy(logits.float(), batch.targets, reduction="sum"), {}

    def _seen(self, batch: Micro) -> tuple[Any, bool]:
        """Return what the model is given of images, and whether it is blank: there are none."""
        images = batch.images
        if images is None:
            blank = require("torch", "clip").from_numpy(self._looks.blank()[None])
            images = blank.to(self._device)
        return self._looks.given(images), batch.images is None

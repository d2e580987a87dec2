"""What an image-to-text model learns: to foretell the answers, given images and what was said.

The loss of a sample is the sum of the negative log likelihoods of its targets, its weight their
number: each token of the global batch counts as much as any other.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from djsandbox_ray.errors import require
from djsandbox_ray.trials.conversations import (
    NOT_LEARNT,
    Conversations,
    Told,
    Unlearnt,
    described,
    naming,
)
from djsandbox_ray.trials.vlm.joined import Joined, join
from djsandbox_ray.trials.vlm.text import Processed, Script

WHOLE = 1 << 20
"""Tokens of which a sample never has so many that it is cut."""


def read_told(script: Script, told: Told) -> Processed:
    """Return a sample of a table as it is learnt.

    Raises:
        BadInput: it cannot be; says which row it is.
    """
    with naming(told.place):
        return script.sample(told.turns, told.images)


def probe(processor: Any) -> Processed:
    """Return a short sample with an image, as a processor makes it."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (90, 120, 150)).save(file, "PNG")
    return Script(processor, WHOLE).sample(described("a"), [file.getvalue()])


class ProcessedTokens:
    """The objective: conversations of a table, as a processor reads them.

    Workers wait for the gradients of whatever is trained, and where they have shared out the tower,
    for each other in every layer of it. So a micro-batch without an image gets one more sample,
    with an image, of which nothing is learnt: all workers look at something.

    Args:
        model: a :class:`~.modules.Speaker` on its device.
        told: the samples.
        script: makes tokens of them.
        device: a torch device name.
        pad_id: fills up what is shorter than others; any token of text, as it is not read.
    """

    def __init__(
        self, model: Any, told: Conversations, script: Script, device: str, pad_id: int
    ) -> None:
        self.model = model
        self._told, self._script, self._device, self._pad_id = told, script, device, pad_id
        self._unlearnt = Unlearnt(script.max_tokens)

    def collate(self, positions: NDArray[np.int64], order: NDArray[np.int64]) -> list[Processed]:
        """Read and process samples.

        Raises:
            BadInput: more than 1 % of them so far have nothing to learn, or one cannot be read.
        """
        samples = [read_told(self._script, one) for one in self._told.take(positions)]
        self._unlearnt.count([one.targets for one in samples])
        return samples

    def weight(self, batch: list[Processed]) -> float:
        """Return the number of tokens that are learnt."""
        return float(sum(one.targets for one in batch))

    def split(self, batch: list[Processed], size: int) -> list[Joined]:
        """Cut a batch, with samples of like length together."""
        order = sorted(range(len(batch)), key=lambda at: len(batch[at].ids))
        return [
            self._joined(batch, order[start : start + size]) for start in range(0, len(order), size)
        ]

    def _joined(self, batch: list[Processed], some: Sequence[int]) -> Joined:
        if any(batch[at].media for at in some):
            return join(batch, some, self._pad_id)
        return join([*batch, self._blank], [*some, len(batch)], self._pad_id)

    @cached_property
    def _blank(self) -> Processed:
        """A sample with an image, of which nothing is learnt."""
        seen = probe(self._script.processor)
        return replace(seen, labels=np.full_like(seen.labels, NOT_LEARNT))

    def loss(self, forward: Callable[..., Any], batch: Joined) -> tuple[Any, dict[str, Any]]:
        """Return the sum of the negative log likelihoods of the targets, in nats."""
        batch = batch.to(self._device)
        logits = forward(batch.inputs, batch.places)
        functional = require("torch.nn.functional", "clip")
        return functional.cross_entropy(logits.float(), batch.targets, reduction="sum"), {}

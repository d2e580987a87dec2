"""What an image-to-text model learns: to foretell the answers, given images and what was said.

The loss of a sample is the sum of the negative log likelihoods of its targets, its weight their
number: each token of the global batch counts as much as any other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import require
from djsandbox_ray.trials.conversations import Conversations, Told, Unlearnt, naming
from djsandbox_ray.trials.vlm.joined import Joined, join
from djsandbox_ray.trials.vlm.text import Processed, Script


def read_told(script: Script, told: Told) -> Processed:
    """Return a sample of a table as it is learnt.

    Raises:
        BadInput: it cannot be; says which row it is.
    """
    with naming(told.place):
        return script.sample(told.turns, told.images)


class ProcessedTokens:
    """The objective: conversations of a table, as a processor reads them.

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
            join(batch, order[start : start + size], self._pad_id)
            for start in range(0, len(order), size)
        ]

    def loss(self, forward: Callable[..., Any], batch: Joined) -> tuple[Any, dict[str, Any]]:
        """Return the sum of the negative log likelihoods of the targets, in nats."""
        batch = batch.to(self._device)
        logits = forward(batch.inputs, batch.places)
        functional = require("torch.nn.functional", "clip")
        return functional.cross_entropy(logits.float(), batch.targets, reduction="sum"), {}

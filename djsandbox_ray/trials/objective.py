"""What a model learns, where the loss of a batch is the sum of the losses of its samples.

A family supplies an :class:`Objective`; :class:`~djsandbox_ray.trials.loop.AdditiveTraining` trains
it. The gradient of a step is that of the sum over the whole global batch, divided by the weight of
the whole global batch. A mean of the means of micro-batches is another number wherever samples have
different weights (answers of one and of ten words): then the result would hang on how a batch is
cut. Here neither micro-batches nor workers change it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Objective(Protocol):
    """A model, its samples as batches, and the sum of their losses."""

    model: Any
    """A torch module on its device; the parameters in training have ``requires_grad``. A parameter
    that the loss never reaches must not: workers would wait for its gradient."""

    def collate(self, positions: NDArray[np.int64], order: NDArray[np.int64]) -> Any:
        """Read, decode and tokenise samples, on the CPU; called in a thread, ahead of the step.

        Args:
            positions: of the samples among the rows of the draw; shape (n,), at least one.
            order: their numbers in the order of training, 0 for the very first; shape (n,). All
                noise is drawn from :func:`noise` of these, so that it is the same whoever computes
                a sample.

        Returns:
            A batch of n samples, of any type.
        """

    def weight(self, batch: Any) -> float:
        """Return what the loss of a batch is divided by: its target tokens, or its samples."""

    def split(self, batch: Any, size: int) -> list[Any]:
        """Cut a batch of n samples into ceil(n / size) of at most ``size`` each.

        Every sample is in one of them. Samples of like length may be put together: the sum stays.
        """

    def loss(self, forward: Callable[..., Any], batch: Any) -> tuple[Any, dict[str, Any]]:
        """Return the sum of the losses over a batch, and its terms.

        Args:
            forward: to be called in place of the model, once: it may be shared among workers.
                Without gradients, and before that, the model itself may be called, as often by
                every worker.
            batch: one of :meth:`split`; what must be on the model's device is brought there here.

        Returns:
            The sum, a scalar tensor with its gradient; and sums of what it is made of by name,
            detached, the same names for every batch. They are reported as means, as the loss is.
        """


def noise(seed: int, number: int) -> np.random.Generator:
    """Return the source of all that is random about a sample of a training.

    The key of Philox (Salmon et al. 2011) is both numbers: as a counter, ``number`` would give
    neighbours one stream, shifted.

    Args:
        seed: of the trial.
        number: of the sample in the order of training.
    """
    return np.random.Generator(np.random.Philox(key=np.array([seed, number], dtype=np.uint64)))

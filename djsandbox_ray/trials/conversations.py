"""What image-to-text models are trained on: pairs and conversations, read as turns and images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.dataset.media import IMAGE_TOKEN, Turn
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.errors import BadInput

DESCRIBE = "Describe the image."
"""What is asked about an image that has a caption and no question."""
NOT_LEARNT = -100
"""The label of a token that is read and not learnt."""
MOST_WITHOUT = 0.01
"""Share of the samples that may have nothing to learn: more is a fault of the data or settings."""
LOOKED_AT = 1000
"""Samples from which on that share means something."""


def described(caption: str, prompt: str = DESCRIBE) -> tuple[Turn, Turn]:
    """Return an image with its caption as a conversation."""
    return Turn("user", f"{IMAGE_TOKEN}\n{prompt}"), Turn("assistant", caption)


def asked(images: int, question: str) -> tuple[Turn]:
    """Return a question about images as a conversation that waits for an answer."""
    return (Turn("user", f"{IMAGE_TOKEN}\n" * images + question),)


@dataclass(frozen=True)
class Told:
    """A sample as it is read: its turns, and the files of its images, in order."""

    turns: tuple[Turn, ...]
    images: tuple[bytes, ...]
    row: int
    """Whose images they are."""
    place: str
    """The table, and the row in it."""


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Have what is wrong with a sample say which one it is.

    Args:
        place: of the sample.

    Raises:
        BadInput: as it was raised, with the place.
    """
    try:
        yield
    except BadInput as error:
        if type(error) is not BadInput:  # of the storage, or of a package: no sample's fault
            raise
        raise BadInput(f"{place}: {error}") from error


class Conversations:
    """Random access to a sample table as conversations; a caption answers what is in its image.

    Args:
        uri: the Lance table.
        rows: whose images are read; shape (n,).
        texts: whose captions or turns are read with them; the same by default. Those of another row
            may be about more or fewer images: what one side has too many of is left out.
        prompt: what a caption answers.
    """

    def __init__(
        self,
        uri: str,
        rows: NDArray[np.int64],
        texts: NDArray[np.int64] | None = None,
        prompt: str = DESCRIBE,
    ) -> None:
        self._table = SampleTable(uri)
        self._rows, self._texts = rows, rows if texts is None else texts
        self._prompt = prompt

    def __len__(self) -> int:
        return len(self._rows)

    def check(self) -> None:
        """Check some of the rows against their digests.

        Raises:
            Damaged: one is not what was ingested.
        """
        self._table.check(self._rows)

    def take(self, positions: NDArray[np.int64]) -> list[Told]:
        """Read the samples at some positions among the rows, in order.

        Raises:
            BadInput: a sample has other images than its own turns have places for.
        """
        rows, texts = self._rows[positions], self._texts[positions]
        told = []
        for row, text, place, said, images in zip(
            rows.tolist(),
            texts.tolist(),
            self.places(positions),
            self.said(positions),
            images_of(self._table, rows),
            strict=True,
        ):
            places = sum(turn.text.count(IMAGE_TOKEN) for turn in said)
            if places != len(images) and row == text:
                raise BadInput(
                    f"{place}: the text that it is read with has places for another number of "
                    f"images than its {len(images)}"
                )
            told.append(Told(_with_places(said, len(images)), images[:places], row, place))
        return told

    def places(self, positions: NDArray[np.int64]) -> list[str]:
        """Return the table and row of the samples at some positions, for messages, in order."""
        rows, texts = self._rows[positions].tolist(), self._texts[positions].tolist()
        return [
            f"{self._table.uri}, row {row}{'' if row == text else f' with the text of row {text}'}"
            for row, text in zip(rows, texts, strict=True)
        ]

    def said(self, positions: NDArray[np.int64]) -> list[tuple[Turn, ...]]:
        """Return the turns of the samples at some positions, in order."""
        texts = self._texts[positions]
        captions = self._table.take(texts, ["text"])["text"].to_pylist()
        turns = self._table.turns(texts)
        return [
            said or described(text, self._prompt)
            for said, text in zip(turns, captions, strict=True)
        ]


def images_of(
    table: SampleTable, rows: Sequence[int] | NDArray[np.int64]
) -> list[tuple[bytes, ...]]:
    """Return the files of the images of some rows, in order."""
    if not table.is_wide:
        return [(data,) for data in table.take(rows, ["image"])["image"].to_pylist()]
    return [tuple(one.data for one in some) for some in table.media(rows, "image")]


def _with_places(turns: tuple[Turn, ...], most: int) -> tuple[Turn, ...]:
    """Return turns without the places for images that are behind the first ones."""
    kept = []
    for turn in turns:
        first, *others = turn.text.split(IMAGE_TOKEN)
        here = min(most, len(others))
        most -= here
        text = first + "".join(f"{IMAGE_TOKEN}{other}" for other in others[:here])
        kept.append(Turn(turn.role, text + "".join(others[here:])))
    return tuple(kept)


class Unlearnt:
    """Counts samples with nothing to learn, in whatever threads they are read.

    Args:
        max_tokens: of a sample, for the message.
    """

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens, self._lock = max_tokens, Lock()
        self._seen = self._without = 0

    def count(self, targets: Sequence[int]) -> None:
        """Count samples by how many tokens are learnt of each.

        Raises:
            BadInput: more than 1 % of all so far have nothing to learn.
        """
        with self._lock:
            self._seen += len(targets)
            self._without += sum(not one for one in targets)
            refuse_without(self._without, self._seen, self._max_tokens)


def refuse_without(without: int, seen: int, max_tokens: int) -> None:
    """Refuse data of which too much has nothing to learn.

    Raises:
        BadInput: more than 1 % of the samples, once there are enough to tell, have no target.
    """
    if without > MOST_WITHOUT * max(seen, LOOKED_AT):
        raise BadInput(
            f"{without} of the first {seen} samples have nothing to learn: all that is learnt of "
            f"them lies behind trials.model.max_tokens: {max_tokens}, or is empty; at most 1 % may"
        )

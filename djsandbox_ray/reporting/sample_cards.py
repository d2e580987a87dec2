"""Samples as people look at them: small pictures, moving ones of videos, and what is said of them.

What a policy forbids is not shown. A page stays of a size that a browser opens: pictures that would
make it larger are left out, and their place says so.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from djsandbox_ray.dataset.images import decode
from djsandbox_ray.dataset.media import Media, plain_text
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.dataset.videos import glimpses
from djsandbox_ray.errors import BadInput, Damaged
from djsandbox_ray.pools.order import hash_rows, least
from djsandbox_ray.reporting.blocks import Card, data_address

SIDE = 160
"""Pixels of the longer side of a picture."""
FRAMES = 8
"""Of a video."""
_FRAME_MS = 250
_QUALITY = 70
MOST_BYTES = 10_000_000
"""Of all pictures of samples on a page, as their addresses hold them."""
_LONGEST = 240
"""Characters of a text that are shown."""
_FORBIDDEN = "not shown: a policy forbids it"
_TOO_MUCH = "left out: the page would grow too large"

_LOST = Card("", instead="cannot be read")

Rows = NDArray[np.int64]


class SampleCards:
    """Makes cards of samples; a sample that stands in several places is read once.

    Args:
        table: of the samples.
        forbidden: (rows of the dataset,): those that are not shown; None for none.
        mask: takes secrets out of a text.
        most_bytes: of all pictures together; what is asked for first is shown first.
    """

    def __init__(
        self,
        table: SampleTable,
        forbidden: NDArray[np.bool_] | None,
        mask: Callable[[str], str],
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._table, self._forbidden, self._mask = table, forbidden, mask
        self._room = most_bytes
        self._known: dict[int, Card] = {}

    def of(self, row_ids: Sequence[int] | Rows, notes: Sequence[str] = ()) -> list[Card]:
        """Return a card per row, in the order given.

        Args:
            row_ids: (n,).
            notes: what to say of each; by default the number of its row.
        """
        ids = [int(row) for row in row_ids]
        new = [row for row in dict.fromkeys(ids) if row not in self._known]
        allowed = [row for row in new if self._forbidden is None or not self._forbidden[row]]
        self._known |= {row: Card("", instead=_FORBIDDEN) for row in new if row not in allowed}
        self._known |= {
            row: self._pictured(row, caption) for row, caption in self._captions(allowed).items()
        }
        made = []
        for place, row in enumerate(ids):
            card = self._known.get(row, _LOST)
            note = notes[place] if notes else f"row {row:,}"
            made.append(Card(card.caption, note, self._fitting(card.source), card.instead))
            if card.source and not made[-1].source:
                made[-1] = Card(card.caption, note, instead=_TOO_MUCH)
        return made

    def _captions(self, row_ids: Sequence[int]) -> dict[int, str]:
        """Return what the samples say; nothing where the table cannot be read."""
        if not row_ids:
            return {}
        try:
            texts = self._table.take(row_ids, ["text"])["text"].to_pylist()
            turns = self._table.turns(row_ids)
        except Damaged:  # a report of what was measured is worth more than none
            return {}
        found = {}
        for row, text, said in zip(row_ids, texts, turns, strict=True):
            told = "\n".join(f"{turn.role}: {plain_text(turn.text)}" for turn in said)
            found[row] = self._mask(_shortened(told or plain_text(text)))
        return found

    def _fitting(self, source: str) -> str:
        """Return a picture if the page has room for it: every place holds it once more."""
        if len(source) > self._room:
            return ""
        self._room -= len(source)
        return source

    def _pictured(self, row: int, caption: str) -> Card:
        """Return a card with the first medium of a row, one at a time: videos are large."""
        if self._room <= 0:
            return Card(caption, instead=_TOO_MUCH)
        try:
            (media,) = self._table.media([row])
            if not media:
                return Card(caption)
            return Card(caption, source=thumbnail(media[0]), instead=_others(media))
        except Damaged:
            return Card(caption, instead=_LOST.instead)
        except (BadInput, ValueError) as error:
            return Card(caption, instead=self._mask(_shortened(str(error))))


def thumbnail(medium: Media) -> str:
    """Return a small picture of an image, a moving one of a video, as an address that holds it.

    Raises:
        ValueError: the image cannot be decoded.
        BadInput: the video cannot be.
    """
    buffer = io.BytesIO()
    if medium.kind == "video":
        first, *others = map(Image.fromarray, glimpses(medium.data, FRAMES, SIDE))
        moving = {"save_all": True, "append_images": others, "duration": _FRAME_MS, "loop": 0}
        first.save(buffer, "WEBP", quality=_QUALITY, **moving)
    else:
        image = decode(medium.data)
        image.thumbnail((SIDE, SIDE))
        image.save(buffer, "WEBP", quality=_QUALITY)
    return data_address(buffer.getvalue(), "image/webp")


def at_the_end(
    values: NDArray[np.float64], rows: Rows, count: int, key: np.uint64, *, highest: bool
) -> Rows:
    """Return the rows of the least or of the greatest values, in order of them.

    Of rows of one value, chance takes some: the first ones of a dataset are often all alike.

    Args:
        values: (rows of the dataset,); NaN for no value.
        rows: row ids to choose from.
        count: how many at most.
        key: of the hash that is the chance.
        highest: whether the greatest ones.

    Returns:
        At most ``count`` row ids, by rising values.
    """
    found = values[rows]
    rows = rows[~np.isnan(found)]
    signed = -values[rows] if highest else values[rows]
    if len(rows) > count:
        limit = np.partition(signed, count - 1)[count - 1]
        inside, tied = rows[signed < limit], rows[signed == limit]
        rows = np.concatenate([inside, tied[least(tied, count - len(inside), key)]])
    return rows[np.lexsort((hash_rows(rows, key), values[rows]))]


def _others(media: Sequence[Media]) -> str:
    more = len(media) - 1
    return f"and {more} more" if more else ""


def _shortened(text: str) -> str:
    line = text.strip()
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST].rstrip()} ..."

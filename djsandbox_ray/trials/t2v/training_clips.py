"""The videos of a sample table as clips: which frames, of which rows, with whose captions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.dataset.videos import ClipShape, Window, clip_of
from djsandbox_ray.errors import BadInput
from djsandbox_ray.trials.objective import noise


def middle(count: int, span: int) -> int:
    """Return where the window in the middle of a video begins."""
    return (count - span) // 2


def random_window(seed: int, row: int) -> Window:
    """Return where the window of a row begins: anywhere, the same for every pool of a seed."""

    def begin(count: int, span: int) -> int:
        return int(noise(seed, row).integers(count - span + 1))

    return begin


class Clips:
    """Random access to a sample table with videos, a clip and a caption a row.

    Args:
        uri: the Lance table.
        shape: of the clips.
        rows: whose videos are read; shape (n,).
        texts: whose captions are read with them; the same by default.
        seed: decides where windows begin; the middle by default.
        still: whether each clip is its first frame, repeated: what a self-test does.
    """

    def __init__(
        self,
        uri: str,
        shape: ClipShape,
        rows: NDArray[np.int64],
        texts: NDArray[np.int64] | None = None,
        seed: int | None = None,
        still: bool = False,
    ) -> None:
        self.table = SampleTable(uri)
        self.shape, self.rows, self.seed, self._still = shape, rows, seed, still
        self._texts = rows if texts is None else texts

    def __len__(self) -> int:
        return len(self.rows)

    def check(self) -> None:
        """Check some of the rows against their digests.

        Raises:
            Damaged: one is not what was ingested.
        """
        self.table.check(self.rows)

    def captions(self) -> list[str]:
        """Return the captions of all positions."""
        found: list[str] = self.table.take(self._texts, ["text"])["text"].to_pylist()
        return found

    def take(self, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Decode the clips at some positions among the rows, in order.

        Returns:
            RGB, shape (n, frames, height, width, 3).

        Raises:
            BadInput: a row has no video, or one that is too short; says which.
            Damaged: a video is not what was ingested.
        """
        rows = self.rows[positions].tolist()
        found = []
        for row, media in zip(rows, self.table.media(rows, "video"), strict=True):
            if not media:
                raise BadInput(f"{self.table.uri}: row {row} has no video")
            window = middle if self.seed is None else random_window(self.seed, row)
            try:
                clip = clip_of(media[0].data, self.shape, window)
            except BadInput as error:
                raise BadInput(
                    f"{self.table.uri}: row {row}: {error} (ingest.videos.min_frames: "
                    f"{self.shape.span} sets shorter videos aside)"
                ) from error
            found.append(np.repeat(clip[:1], len(clip), axis=0) if self._still else clip)
        return np.stack(found)

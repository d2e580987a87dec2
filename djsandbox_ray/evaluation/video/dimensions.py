"""Five of VBench's dimensions, computed of frames and of features: VBench's own formulas.

They differ in what is averaged: VBench takes the mean over the frames of all videos for some, over
videos for others. So each video has a value and a weight.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.video.video_files import Frames

_MOST = 255.0
"""Of the values of a pixel."""
_PERCENT = 100.0
_POINTS = 10.0
"""Most that the aesthetic predictor was taught to give."""


@dataclass(frozen=True)
class VideoValue:
    """What a dimension finds in one video."""

    value: float
    weight: int = 1
    """How much it counts among the others: frames, where all frames count alike."""


def mean_value(values: Sequence[VideoValue]) -> float:
    """Return the value of a dimension over several videos, one at least."""
    weights = sum(one.weight for one in values)
    return sum(one.value * one.weight for one in values) / weights


def temporal_flickering(frames: Frames) -> VideoValue:
    """Return 1 - (mean absolute difference of neighbouring frames) / 255; of a still video, 1.

    Args:
        frames: two or more.
    """
    whole = frames.astype(np.int16)
    # Frame by frame: all differences at once take four times the memory of the video.
    changes = [np.abs(after - before).mean() for before, after in pairwise(whole)]
    # In single precision, as VBench has them: of its digits, the ninth hangs on that.
    change = float(np.mean(np.array(changes, dtype=np.float32)))
    return VideoValue((_MOST - change) / _MOST)


def consistency(features: NDArray[np.floating]) -> VideoValue:
    """Return how much frames are like the one before, and like the first one; of a still video, 1.

    It is the mean over frames t >= 1 of (max(0, z_t . z_(t-1)) + max(0, z_t . z_0)) / 2 with
    features z of unit length: those of DINO for ``subject_consistency``, of CLIP for
    ``background_consistency``. Every frame but the first counts.

    Args:
        features: (frames, dimensions), of any length; two frames or more.
    """
    unit = _unit(features)
    before = np.einsum("td,td->t", unit[1:], unit[:-1])
    first = unit[1:] @ unit[0]
    likeness = (np.clip(before, 0, None) + np.clip(first, 0, None)) / 2
    return VideoValue(float(likeness.mean()), len(likeness))


def appearance_style(
    features: NDArray[np.floating], style: NDArray[np.floating], scale: float
) -> VideoValue:
    """Return how much frames look like a style: the mean of CLIP's logits / 100.

    Args:
        features: of the frames, (frames, dimensions).
        style: of the style's name, (dimensions,).
        scale: CLIP's factor of cosines, 100 in the models that were published.
    """
    cosines = _unit(features) @ _unit(style[None])[0]
    return VideoValue(float(cosines.mean()) * scale / _PERCENT, len(cosines))


def aesthetic_quality(
    features: NDArray[np.floating], weight: NDArray[np.floating], bias: float
) -> VideoValue:
    """Return the mean rating of the frames by LAION's linear aesthetic predictor, of 1.

    Args:
        features: of the frames by CLIP ViT-L/14, (frames, dimensions).
        weight: of the predictor, (dimensions,).
        bias: of the predictor.
    """
    if weight.shape != features.shape[1:]:
        raise BadInput(
            f"the aesthetic predictor is for features of {weight.shape[0]} dimensions, these have "
            f"{features.shape[1]}: it belongs to CLIP ViT-L/14"
        )
    ratings = _unit(features) @ weight.astype(np.float64) + bias
    return VideoValue(float(ratings.mean()) / _POINTS)


def _unit(features: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return features of unit length in double precision; of length 0 they stay."""
    wide = features.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    found: NDArray[np.float64] = wide / np.where(lengths > 0, lengths, 1)
    return found

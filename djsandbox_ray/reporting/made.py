"""What models make of the same prompts and the same noise, side by side: for people to look at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.dataset.media import Media
from djsandbox_ray.dataset.videos import glimpses
from djsandbox_ray.reporting.blocks import Card, Chapter, Gallery
from djsandbox_ray.reporting.figures import escaped
from djsandbox_ray.reporting.sample_cards import thumbnail

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_PROMPTS = 4
"""Whose videos are shown."""
_FRAMES = 5
"""Of each video in the figure."""
_SIDE = 256
"""Pixels of the longer side of these, at most."""
_GAP = 0.06
"""Between two of them, as a share of their width."""
_COLUMN, _ROW = 3.6, 1.1
"""Inches of a model's column, and of a prompt's row."""


@dataclass(frozen=True)
class Made:
    """Videos of one model."""

    title: str
    """What it was trained on, and what that was worth."""
    videos: Mapping[str, bytes]
    """MP4 files by prompt."""


def same_prompts(models: Sequence[Made]) -> list[str]:
    """Return the prompts of which all models have made videos, the first ones."""
    if not models:
        return []
    first, *others = models
    shared = [name for name in first.videos if all(name in one.videos for one in others)]
    return shared[:MOST_PROMPTS]


def made_chapter(models: Sequence[Made]) -> Chapter | None:
    """Return the videos as moving pictures, a group for each model; None where there are none."""
    prompts = same_prompts(models)
    if not prompts:
        return None
    groups = [
        (one.title, [Card(name, source=_moving(one.videos[name])) for name in prompts])
        for one in models
    ]
    line = "Of the same prompts, from the same noise, by one trial of each pool."
    return Chapter("Videos that the models made", [line], [Gallery("", groups)])


def made_figure(models: Sequence[Made]) -> Figure:
    """Draw some frames of the videos: a column for each model, a row for each prompt.

    Args:
        models: with a prompt in common at least.
    """
    from matplotlib.figure import Figure

    prompts = same_prompts(models)
    size = (_COLUMN * len(models), 0.5 + _ROW * len(prompts))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(prompts), len(models), squeeze=False)
    for row, name in enumerate(prompts):
        for column, one in enumerate(models):
            axes = grid[row, column]
            axes.imshow(_strip(one.videos[name]), interpolation="nearest")
            axes.set_axis_off()
            lines = [one.title] if not row else []
            lines += [name] if not column else [""]
            axes.set_title(escaped("\n".join(lines)), loc="left", fontsize=8)
    return figure


def _moving(video: bytes) -> str:
    return thumbnail(Media("video", video))


def _strip(video: bytes) -> NDArray[np.uint8]:
    """Return frames beside each other, white between them; (height, width, 3)."""
    frames = glimpses(video, _FRAMES, _SIDE)
    height, width = frames[0].shape[:2]
    gap = np.full((height, max(1, round(_GAP * width)), 3), 255, np.uint8)
    found: NDArray[np.uint8] = np.concatenate(
        [part for frame in frames for part in (gap, frame)][1:], axis=1
    )
    return found

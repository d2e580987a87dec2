"""A model that makes videos, as a user's family may have it: it draws squares that move."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from djsandbox_ray.dataset.moving_world import MovingScene, draw_frames
from djsandbox_ray.evaluation.video.board import DIMENSIONS
from djsandbox_ray.evaluation.video.official import NEEDED
from djsandbox_ray.evaluation.video.video_files import Frames, file_name, video_bytes
from djsandbox_ray.evaluation.video.wanted import SamplingConfig, WantedVideo

SMALL = {"steps": 2, "frames": 5, "size": [32, 32], "fps": 8}
MORE: dict[str, Any] = {
    "appearance_style": {"appearance_style": "oil painting"},
    "color": {"color": "red"},
    "multiple_objects": {"object": "circle and square"},
    "object_class": {"object": "circle"},
    "scene": {"scene": {"scene": "alley"}},
    "spatial_relationship": {
        "spatial_relationship": {
            "object_a": "circle",
            "object_b": "square",
            "relationship": "on the left of",
        }
    },
}


class DrawsSquares:
    """Draws the same video of a prompt's number every time; remembers what it was asked."""

    def __init__(self, still: bool = False, dies: int = 10**9) -> None:
        self.cpus, self.gpus = 1.0, 0.0
        self.made: list[str] = []
        self._still, self._dies = still, dies

    def videos(self, wanted: Sequence[WantedVideo], sampling: SamplingConfig) -> Iterator[Frames]:
        for one in wanted:
            if len(self.made) >= self._dies:
                raise RuntimeError("killed")
            self.made.append(one.key)
            yield drawn(one, sampling, self._still)


def drawn(one: WantedVideo, sampling: SamplingConfig, still: bool = False) -> Frames:
    rng = one.rng()
    colour = str(rng.choice(["red", "green", "blue"]))
    scene = MovingScene("square", colour, "white", "left")
    frames = draw_frames(scene, rng, sampling.size[0], sampling.frames)
    return np.repeat(frames[:1], len(frames), axis=0) if still else frames


def write_prompts(path: Path, names: Sequence[str] = tuple(DIMENSIONS), each: int = 2) -> str:
    """Write prompts for some dimensions; the first of each is for all of them."""
    entries = []
    for index in range(each):
        for group in [names] if not index else [[name] for name in names]:
            more = {name: MORE[name] for name in group if name in MORE}
            prompt = f"a scene for {' and '.join(group)[:60]} {index}"
            entry: dict[str, Any] = {"prompt_en": prompt, "dimension": list(group)}
            entries.append({**entry, "auxiliary_info": more} if more else entry)
    path.write_text(json.dumps(entries))
    return str(path)


def write_cache(folder: Path) -> str:
    """Write files under the names of VBench's weights, which nobody reads."""
    for name in {name for names in NEEDED.values() for name in names}:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"weights")
    return str(folder)


def write_videos(folder: Path, wanted: Sequence[WantedVideo]) -> str:
    """Write videos as another program would, under VBench's names."""
    folder.mkdir(exist_ok=True)
    sampling = SamplingConfig.model_validate(SMALL)
    for one in wanted:
        (folder / file_name(one.prompt, one.number)).write_bytes(
            video_bytes(drawn(one, sampling), sampling.fps)
        )
    return str(folder)

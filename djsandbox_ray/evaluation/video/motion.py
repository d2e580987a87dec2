"""How much moves in the videos of a model, beside real ones: smoothness alone likes still ones."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from djsandbox_ray.dataset.media import Content
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.metric import Metric
from djsandbox_ray.evaluation.video.evaluator import VideoEvaluator, VideoEvaluatorConfig
from djsandbox_ray.evaluation.video.fvd import fitted
from djsandbox_ray.evaluation.video.stored_videos import Videos
from djsandbox_ray.evaluation.video.video_files import Frames, video_frames
from djsandbox_ray.evaluation.video.wanted import WantedVideo, of_captions
from djsandbox_ray.identity import content_id
from djsandbox_ray.records import Spoil

_WHITE = 255


class MotionConfig(VideoEvaluatorConfig):
    """Of which videos motion is measured."""

    videos: int = Field(default=64, ge=1)
    """So many are compared with as many real ones of the trusted split, whose captions are the
    prompts."""
    stride: int = Field(default=1, ge=1)
    """Every how many frames of a real video: so that it has the frame rate of the others."""


class Motion(VideoEvaluator):
    """``motion/energy``, the mean absolute difference of one frame to the next, of all that can be.

    ``motion/ratio`` is that of the model's videos over that of the real ones, 1 at most: a video
    that stands still has 0. Noise moves, too: it is to be read beside ``temporal_flickering``.
    """

    Config = MotionConfig
    VERSION: ClassVar[int] = 1
    CONTENT: ClassVar[tuple[Content, ...]] = ("videos",)
    SEES: ClassVar[frozenset[Spoil]] = frozenset({"frames"})
    NOT_ASKED: ClassVar[frozenset[str]] = frozenset({"name", "keep", "stride"})
    config: MotionConfig

    def identity(self) -> Any:
        """Return what decides the numbers."""
        return {"asking": self.asking(), "stride": self.config.stride}

    def metrics(self) -> tuple[Metric, ...]:
        """Name both; the ratio is part of the score by default."""
        return (
            Metric(f"{self.name}/energy", low=0.0, high=1.0, scored=False),
            Metric(f"{self.name}/ratio", low=0.0, high=1.0),
        )

    def check(self, data: EvaluationSet) -> None:
        """Look whether there are enough real videos.

        Raises:
            BadInput: there are not.
        """
        if len(data.texts) != data.rows or data.rows < self.config.videos:
            raise BadInput(
                f"{self.name}: {self.config.videos} videos are compared with as many real ones, "
                f"but {data.id or 'the set'} has {data.rows} with captions (videos: says how many)"
            )

    def wanted(self, data: EvaluationSet) -> list[WantedVideo]:
        """Return a video for the caption of every real one; of equal captions several."""
        return of_captions(data.texts[row] for row in self._rows(data))

    def measure(self, videos: Videos, data: EvaluationSet) -> dict[str, float]:
        """Measure both, what was measured before only once.

        Raises:
            BadInput: nothing moves in the real videos, or one has fewer than two frames.
        """
        wanted = self.wanted(data)
        keys = [one.key for one in wanted]
        kept = videos.kept("motion", keys)
        if kept is None:
            kept = {
                one.key: [energy(video_frames(file, f"video {one.number} of {one.prompt!r:.60}"))]
                for one, file in videos.each(wanted)
            }
            videos.keep("motion", kept)
        made = float(np.mean([kept[key][0] for key in keys]))
        real = self._real(videos, data)
        if not real > 0:
            raise BadInput(f"{self.name}: nothing moves in the videos of {data.id}")
        return {f"{self.name}/energy": made, f"{self.name}/ratio": min(1.0, made / real)}

    def _real(self, videos: Videos, data: EvaluationSet) -> float:
        """Return the mean of the real videos, cut and scaled as the others are."""
        rows, sampling = self._rows(data), self.config.sampling
        shape = [sampling.frames, *sampling.size, self.config.stride]
        name = content_id("motion", self.VERSION, data.id, rows, shape)
        keys = list(map(str, rows))
        found = videos.shared(name, keys)
        if found is None:
            found, table = {}, SampleTable(data.uri)
            for row in rows:
                media = table.media([row], "video")[0]
                if not media:
                    raise BadInput(f"{self.name}: row {row} of {data.id} has no video")
                frames = video_frames(media[0].data, f"the video of row {row} of {data.id}")
                some = frames[:: self.config.stride][: sampling.frames]
                if len(some) < 2:
                    raise BadInput(f"{self.name}: row {row} of {data.id}: two frames are needed")
                found[str(row)] = [energy(fitted(some, sampling.size))]
            videos.share(name, found)
        return float(np.mean([found[key][0] for key in keys]))

    def _rows(self, data: EvaluationSet) -> list[int]:
        """Return the rows of the real videos, the same ones for every trial."""
        return data.some(self.config.videos)


def energy(frames: Frames) -> float:
    """Return the mean absolute difference of one frame to the next, as a share of white.

    Args:
        frames: two at least, (frames, height, width, 3).
    """
    apart = np.abs(np.diff(frames.astype(np.int16), axis=0))
    return float(apart.mean()) / _WHITE

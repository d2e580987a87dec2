"""A model in training as evaluators see it: it denoises clips of their sets, and makes videos."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from djsandbox_ray.errors import BadInput, require
from djsandbox_ray.evaluation.video.video_files import Frames
from djsandbox_ray.evaluation.video.wanted import SamplingConfig, WantedVideo
from djsandbox_ray.trials.t2v.base_folder import VideoBase
from djsandbox_ray.trials.t2v.config import T2vModelConfig
from djsandbox_ray.trials.t2v.denoisers import Prompts
from djsandbox_ray.trials.t2v.distil import Consistency, ConsistencyConfig
from djsandbox_ray.trials.t2v.evaluated import EvaluationLatents, VideoDenoiser
from djsandbox_ray.trials.t2v.sampler import sampled, sampled_at_once, videos
from djsandbox_ray.trials.t2v.schedule import Schedule


class VideoModel(VideoDenoiser):
    """Also a :class:`~djsandbox_ray.evaluation.video.wanted.VideoMaker`.

    A model that was distilled makes videos in the few steps that its settings say, without
    guidance: that has been distilled, too.

    Args:
        model: a transformer.
        base: of the model.
        config: of the model.
        schedule: of noise.
        latents: of evaluation sets.
        prompts: returns what the text encoder makes of captions.
        device: a torch device name.
        cpus: of the trial, for whoever measures its videos.
        gpus: as ``cpus``.
    """

    def __init__(
        self,
        model: Any,
        base: VideoBase,
        config: T2vModelConfig,
        schedule: Schedule,
        latents: EvaluationLatents,
        prompts: Callable[[Sequence[str]], Prompts],
        device: str,
        cpus: float = 1.0,
        gpus: float = 0.0,
    ) -> None:
        half, batch = config.precision == "bf16", config.evaluation_batch
        super().__init__(model, base.adapter, schedule, latents, prompts, device, batch, half)
        self._codec, self._objective = base.codec, config.objective
        self.cpus, self.gpus = cpus, gpus

    def videos(self, wanted: Sequence[WantedVideo], sampling: SamplingConfig) -> Iterator[Frames]:
        """See :class:`~djsandbox_ray.evaluation.video.wanted.VideoMaker`.

        Those that are made together are there together: whoever keeps them loses no more.
        """
        for start in range(0, len(wanted), self._batch):
            yield from self.made(sampling, wanted[start : start + self._batch])

    def made(self, sampling: SamplingConfig, wanted: Sequence[WantedVideo]) -> list[Frames]:
        """Return the frames of videos, in order; each has its own noise.

        Raises:
            BadInput: the model makes no videos of such frames or sizes.
        """
        torch = require("torch", "clip")
        try:
            shape = self._codec.ratios.shape(sampling.frames, *sampling.size)
            self._adapter.check(shape)
        except BadInput as error:
            raise BadInput(f"evaluation.metrics: sampling: {error}") from error
        training = self._model.training
        self._model.eval()
        kind = torch.device(self._device).type
        found: list[Frames] = []
        try:
            with (
                torch.inference_mode(),
                torch.autocast(kind, torch.bfloat16, enabled=self._half),
            ):
                for start in range(0, len(wanted), self._batch):
                    latents = self._latents_of(wanted[start : start + self._batch], sampling, shape)
                    found += list(videos(self._codec, latents))
        finally:
            self._model.train(training)
        return found

    def _latents_of(
        self, wanted: Sequence[WantedVideo], sampling: SamplingConfig, shape: Sequence[int]
    ) -> Any:
        """Return the latents of some videos."""
        torch = require("torch", "clip")
        prompts, nothing = (
            self._prompts(texts).map(lambda value: value.to(self._device))
            for texts in ([one.prompt for one in wanted], [""])
        )
        rngs, objective = [one.rng() for one in wanted], self._objective
        if isinstance(objective, ConsistencyConfig):
            return sampled_at_once(
                self._model,
                Consistency(self._adapter, self._schedule, objective.time_scale),
                rngs,
                shape,
                prompts,
                objective.sampling_steps,
                objective.solver_steps,
                self._device,
            )
        start = np.stack([rng.standard_normal(tuple(shape), np.float32) for rng in rngs])
        return sampled(
            self._model,
            self._adapter,
            self._schedule,
            torch.from_numpy(start).to(self._device),
            prompts,
            nothing,
            sampling.steps,
            sampling.guidance,
        )

"""A model in training as evaluators see it: how well it denoises the clips of their sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.dataset.videos import ClipShape
from djsandbox_ray.errors import SandboxError, require
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.denoising import Described
from djsandbox_ray.trials.exporting import Exported, emptied, load_whole
from djsandbox_ray.trials.lora import merged_weights
from djsandbox_ray.trials.objective import noise
from djsandbox_ray.trials.t2v.base_folder import TRANSFORMER
from djsandbox_ray.trials.t2v.codec import Codec
from djsandbox_ray.trials.t2v.denoisers import Prompts, TransformerAdapter
from djsandbox_ray.trials.t2v.encoding import of_set
from djsandbox_ray.trials.t2v.latents import StoredLatents, encoded
from djsandbox_ray.trials.t2v.objective import denoising_errors
from djsandbox_ray.trials.t2v.schedule import Schedule
from djsandbox_ray.trials.t2v.training_clips import Clips


class EvaluationLatents:
    """The latents of clips of evaluation sets; each is computed once, and kept.

    Args:
        sets: Lance tables by the ids of the sets.
        shape: of the clips: the window in the middle.
        codec: of the model.
        stored: tables of latents, under the names of :func:`~.encoding.of_set`.
    """

    def __init__(
        self,
        sets: Mapping[str, str],
        shape: ClipShape,
        codec: Codec,
        stored: Mapping[str, str] | None = None,
    ) -> None:
        self._sets, self._shape, self._codec = sets, shape, codec
        self._stored = stored or {}
        self._known: dict[tuple[str, int], NDArray[np.float16]] = {}

    def __call__(self, data: EvaluationSet, rows: Sequence[int]) -> NDArray[np.float16]:
        """Return the latents of some rows; shape (n, channels, frames, height, width).

        Raises:
            SandboxError: the trial was not given the set.
            BadInput: a row has no video, or one that is too short.
        """
        if data.id not in self._sets:
            raise SandboxError(f"the trial was not given the evaluation set {data.id}")
        new = [row for row in dict.fromkeys(rows) if (data.id, row) not in self._known]
        if new and (uri := self._stored.get(of_set(data.id))) is not None:
            held = StoredLatents(uri, np.array(new, np.int64)).holds()
            there = [row for row, is_held in zip(new, held, strict=True) if is_held]
            new = [row for row, is_held in zip(new, held, strict=True) if not is_held]
            if there:
                read = StoredLatents(uri, np.array(there, np.int64)).take(np.arange(len(there)))
                self._known |= {(data.id, row): one for row, one in zip(there, read, strict=True)}
        if new:
            clips = Clips(self._sets[data.id], self._shape, np.array(new, np.int64))
            for place, row in enumerate(new):
                frames = clips.take(np.array([place]))
                self._known[data.id, row] = encoded(self._codec, frames)[0]
        return np.stack([self._known[data.id, row] for row in rows])


class VideoDenoiser:
    """See :class:`~djsandbox_ray.evaluation.denoising.Denoiser`.

    Args:
        model: a transformer.
        adapter: calls it.
        schedule: of noise.
        latents: of the sets.
        prompts: returns what the text encoder makes of captions.
        device: a torch device name.
        batch: clips that are denoised at once.
        half: whether that is done under bfloat16 autocast.
    """

    def __init__(
        self,
        model: Any,
        adapter: TransformerAdapter,
        schedule: Schedule,
        latents: EvaluationLatents,
        prompts: Callable[[Sequence[str]], Prompts],
        device: str,
        batch: int,
        half: bool = False,
    ) -> None:
        self._model, self._adapter, self._schedule = model, adapter, schedule
        self._latents, self._prompts = latents, prompts
        self._device, self._batch, self._half = device, batch, half

    def export(self, folder: Path) -> Exported:
        """Write the transformer as diffusers has it, adapters in its matrices.

        All else of a pipeline is the base's.
        """
        kind, config = type(self._model), self._model.config
        whole = load_whole(emptied(kind.from_config, config), merged_weights(self._model))
        whole.save_pretrained(folder / TRANSFORMER)
        loading = (
            f"from diffusers import {kind.__name__}\n"
            f'transformer = {kind.__name__}.from_pretrained(folder, subfolder="{TRANSFORMER}")\n'
            f"# {self._adapter.PIPELINE}.from_pretrained(BASE, transformer=transformer)"
        )
        return Exported("diffusers", "text-to-video", loading)

    def losses(
        self,
        data: EvaluationSet,
        times: Sequence[float],
        seed: int,
        clips: Sequence[Described],
    ) -> NDArray[np.float32]:
        """Return the mean squared errors of clips, means over the times; shape (clips,)."""
        torch = require("torch", "clip")
        training = self._model.training
        self._model.eval()
        try:
            with torch.inference_mode():
                parts = [
                    self._errors(data, times, seed, clips[start : start + self._batch])
                    for start in range(0, len(clips), self._batch)
                ]
        finally:
            self._model.train(training)
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)

    def _errors(
        self, data: EvaluationSet, times: Sequence[float], seed: int, clips: Sequence[Described]
    ) -> NDArray[np.float32]:
        torch = require("torch", "clip")
        rows = [row for row, _ in clips]
        latents = self._latents(data, rows).astype(np.float32)
        drawn = [noise(seed, row).standard_normal(latents.shape[1:], np.float32) for row in rows]
        x0, eps = (torch.from_numpy(array).to(self._device) for array in (latents, np.stack(drawn)))
        prompts = self._prompts([text for _, text in clips]).map(
            lambda value: value.to(self._device)
        )
        found = torch.zeros(len(clips), device=self._device)
        kind = torch.device(self._device).type
        for share in times:
            at = torch.full((len(clips),), self._schedule.at(share), device=self._device)
            with torch.autocast(kind, torch.bfloat16, enabled=self._half):
                found += denoising_errors(
                    self._adapter, self._schedule, self._model, x0, eps, at, prompts
                )
        errors: NDArray[np.float32] = (found / len(times)).cpu().numpy()
        return errors

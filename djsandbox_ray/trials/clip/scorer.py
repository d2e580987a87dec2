"""A CLIP trained on trusted data, as the model of ``image_text_similarity_filter``.

The idea of data filtering networks (Fang et al. 2023, arXiv 2309.17425): a small model trained on a
little clean data separates matched from mismatched pairs in the rest.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, SerializeAsAny

from djsandbox_ray.dataset.source import SOURCES
from djsandbox_ray.records import RungReport
from djsandbox_ray.settings.sections import Component, Section, component
from djsandbox_ray.trials.checkpoint import Checkpoint
from djsandbox_ray.trials.clip.arch import build_model
from djsandbox_ray.trials.clip.export import export_hugging_face
from djsandbox_ray.trials.clip.family import ClipConfig
from djsandbox_ray.trials.clip.samples import Streamed
from djsandbox_ray.trials.clip.training import DeviceArrays, Training
from djsandbox_ray.trials.config import WorkerResources
from djsandbox_ray.trials.family import device_for

_CHECKPOINTS = 10


class ScorerConfig(Section):
    """Which trusted data, which model, how long."""

    dataset: Annotated[SerializeAsAny[Component], component(SOURCES)]
    """Trusted image-text pairs, apart from the data in question."""
    model: ClipConfig = ClipConfig(type="clip")
    """The model; its architecture must be one that Hugging Face's CLIP can hold."""
    budget: int = Field(gt=0, le=10**12, strict=True)
    """Samples seen in training."""
    seed: int = Field(default=0, ge=0, strict=True)
    """Decides the initial weights and the order of samples."""
    resources: WorkerResources = WorkerResources()
    """What the training occupies."""


def train_scorer(
    uri: str,
    rows: int,
    config: ScorerConfig,
    arch: dict[str, Any],
    folder: Path,
    checkpoint: Checkpoint,
) -> float:
    """Train the scorer and save it as a Hugging Face folder.

    Args:
        uri: the Lance table of the trusted samples.
        rows: how many there are.
        config: model and budget.
        arch: of the model, read where the command was given: it may be a file there.
        folder: an existing empty folder.
        checkpoint: what a training that was cut off has left; this one goes on from there, to the
            same weights bit for bit, and keeps its own state ten times on its way.

    Returns:
        The mean training loss.
    """
    device = device_for(config.resources.cpus_per_worker, config.resources.gpus_per_worker)
    model = build_model(arch, config.seed).to(device)
    samples = Streamed(uri, arch, threads=2)
    every = np.arange(rows, dtype=np.int64)
    arrays = DeviceArrays(samples.images(every), samples.tokens(every), config.seed, device)
    training = Training(model, arrays, config.model, device)
    with checkpoint.load() as found:
        if found is not None:
            training.load(found[1])
    for state in training.run(_stops(config.budget)):
        now = time.time_ns() // 1_000_000
        report = RungReport(state.samples, state.loss, {}, 0.0, 0.0, now)
        checkpoint.save(report, training.save)
    export_hugging_face(model.cpu().eval(), arch, folder)
    return _mean_loss(checkpoint.reports())


def _stops(budget: int) -> list[int]:
    """Return the samples seen at every checkpoint; the last is the budget."""
    return sorted({max(1, budget * part // _CHECKPOINTS) for part in range(1, _CHECKPOINTS + 1)})


def _mean_loss(reports: Sequence[RungReport]) -> float:
    """Return the mean over all samples; a report has that since the one before."""
    total, seen = 0.0, 0
    for report in reports:
        total += report.loss * (report.samples - seen)
        seen = report.samples
    return total / seen

"""The command that scores what other programs have made: answers or videos, without a training."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich import box
from rich.table import Table
from rich.text import Text

from djsandbox_ray.errors import BadInput, unknown
from djsandbox_ray.evaluation.data import NO_SET
from djsandbox_ray.evaluation.evaluator import EVALUATORS, Evaluator
from djsandbox_ray.evaluation.metric import Metric
from djsandbox_ray.evaluation.video.evaluator import VideoEvaluator
from djsandbox_ray.evaluation.video.stored_videos import VideoFolder
from djsandbox_ray.evaluation.vqa.benchmark import FILES, Benchmark
from djsandbox_ray.settings.yaml_input import problems, read_value

OF_VIDEOS = ("vbench",)
"""Evaluators that look at videos, and at nothing else."""
BENCHMARKS = ("mmbench", "mme", "pope", "textvqa", "vqa")
"""Evaluators whose benchmarks have answers in files."""


@dataclass(frozen=True)
class Scored:
    """What answers are worth."""

    benchmark: str
    answers: int
    """How many there are, one to every question."""
    metrics: dict[str, float]
    """By full name, what makes the score first."""


@dataclass(frozen=True)
class ScoredVideos:
    """What videos are worth."""

    benchmark: str
    videos: int
    """How many were looked at."""
    metrics: dict[str, float]
    """By full name."""


def score_answers(
    benchmark: str,
    answers: str,
    files: Sequence[str] = (),
    questions: str | None = None,
    settings: Sequence[str] = (),
) -> tuple[Scored, dict[str, Metric]]:
    """Score the answers of a model that others have run.

    Args:
        benchmark: one of :data:`BENCHMARKS`.
        answers: a file, or a folder of files.
        files: of the benchmark, with what is right.
        questions: a file of the other program that says what its answers are to.
        settings: of the evaluator, ``key=value`` each.

    Returns:
        The scores, and what is known of each metric.

    Raises:
        BadInput: answers and questions do not belong together, or a setting is none.
    """
    evaluator = _evaluator(benchmark, files, settings)
    data, said = evaluator.made_elsewhere(answers, questions)
    scores = evaluator.score_said(data, said)
    known = {metric.name: metric for metric in evaluator.metrics() if metric.name in scores}
    ordered = {name: scores[name] for name in known}
    return Scored(evaluator.name, len(said), ordered), known


def score_videos(
    benchmark: str,
    folder: str,
    files: Sequence[str] = (),
    settings: Sequence[str] = (),
    gpus: float = 0.0,
) -> tuple[ScoredVideos, dict[str, Metric]]:
    """Score videos that a model has made elsewhere: ``<prompt>-<number>.mp4``.

    Args:
        benchmark: one of :data:`OF_VIDEOS`.
        folder: with the videos of all prompts.
        files: the file of the prompts, if no setting names it.
        settings: of the evaluator, ``key=value`` each.
        gpus: that models may use.

    Returns:
        The scores, and what is known of each metric.

    Raises:
        BadInput: videos are missing, or a setting is none.
    """
    if benchmark not in OF_VIDEOS:
        raise unknown("benchmark of videos", benchmark, OF_VIDEOS)
    if not Path(folder).is_dir():
        raise BadInput(f"--videos: {folder!r} does not exist, or is no folder")
    evaluator = _configured(benchmark, {"prompts": files[0]} if files else {}, settings, ("type",))
    assert isinstance(evaluator, VideoEvaluator)
    wanted = evaluator.wanted(NO_SET)
    videos = VideoFolder(Path(folder), cpus=float(len(os.sched_getaffinity(0))), gpus=gpus)
    videos.check(wanted)
    evaluator.check(NO_SET)
    scores = evaluator.evaluate(videos, NO_SET)
    known = {metric.name: metric for metric in evaluator.metrics() or ()}
    return ScoredVideos(evaluator.name, len(wanted), scores), known


def score_table(scored: Scored | ScoredVideos, known: dict[str, Metric]) -> Table:
    """Return the scores as a table; those that are compared are in bold."""
    count = (
        f"{scored.answers:,} answers" if isinstance(scored, Scored) else f"{scored.videos:,} videos"
    )
    title = f"{scored.benchmark}: {count}"
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("metric")
    for column in ("value", "chance", "highest"):
        table.add_column(column, justify="right")
    for name, value in scored.metrics.items():
        metric = known[name]
        bounds = ["" if bound is None else f"{bound:g}" for bound in (metric.chance, metric.high)]
        table.add_row(name, f"{value:.4f}", *bounds, style="bold" if metric.scored else None)
    return table


def _evaluator(benchmark: str, files: Sequence[str], settings: Sequence[str]) -> Benchmark[Any]:
    if benchmark not in BENCHMARKS:
        raise unknown("benchmark", benchmark, BENCHMARKS)
    given = {"path": list(files) if len(files) > 1 else files[0]} if files else {}
    evaluator = _configured(benchmark, given, settings, ("type", "path", "dataset"))
    assert isinstance(evaluator, Benchmark)
    return evaluator


def _configured(
    benchmark: str, given: Mapping[str, Any], settings: Sequence[str], taken: Sequence[str]
) -> Evaluator:
    """Return an evaluator as it is configured on a command line.

    Args:
        benchmark: its type.
        given: keys that have options of their own.
        settings: of the others, ``key=value`` each; ``key.key=value`` goes into a section.
        taken: keys that no setting may be.
    """
    kind = EVALUATORS.get(benchmark)
    document: dict[str, Any] = {"type": benchmark, **given}
    for setting in settings:
        key, equals, text = setting.partition("=")
        *sections, last = key.split(".")
        if not equals or (sections or [last])[0] in taken:
            raise BadInput(f"--set {setting!r}: key=value is needed, a key of the evaluator")
        place = document
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise BadInput(f"--set {setting!r}: {section!r} is no section")
        place[last] = read_value(text, f"--set {key}")
    try:
        config = kind.Config.model_validate(document, context={FILES: True})
    except ValidationError as error:
        found = [f"  {problem}" for problem in problems(error, kind.Config, document)]
        raise BadInput("\n".join([f"{benchmark}: {len(found)} error(s)", *found])) from None
    return kind(config)

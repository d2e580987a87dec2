"""The command that scores answers which other programs have written: no model, no training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError
from rich import box
from rich.table import Table
from rich.text import Text

from djsandbox_ray.errors import BadInput, unknown
from djsandbox_ray.evaluation.evaluator import EVALUATORS
from djsandbox_ray.evaluation.metric import Metric
from djsandbox_ray.evaluation.vqa.benchmark import FILES, Benchmark
from djsandbox_ray.settings.yaml_input import problems, read_value

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


def score_table(scored: Scored, known: dict[str, Metric]) -> Table:
    """Return the scores as a table; those that are compared are in bold."""
    title = f"{scored.benchmark}: {scored.answers:,} answers"
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
    kind = EVALUATORS.get(benchmark)
    document: dict[str, Any] = {"type": benchmark}
    if files:
        document["path"] = list(files) if len(files) > 1 else files[0]
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals or key in ("type", "path", "dataset"):
            raise BadInput(f"--set {setting!r}: key=value is needed, a key of the evaluator")
        document[key] = read_value(text, f"--set {key}")
    try:
        config = kind.Config.model_validate(document, context={FILES: True})
    except ValidationError as error:
        found = [f"  {problem}" for problem in problems(error, kind.Config, document)]
        raise BadInput("\n".join([f"{benchmark}: {len(found)} error(s)", *found])) from None
    evaluator = kind(config)
    assert isinstance(evaluator, Benchmark)
    return evaluator

"""How records look in MLflow: names, metrics of a rung, inputs, and the mark of what was sent."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

from djsandbox_ray.identity import content_id
from djsandbox_ray.records import RungReport, TrialState
from djsandbox_ray.tracking.outbox import Refused
from djsandbox_ray.tracking.tracker import DatasetInput

if TYPE_CHECKING:
    from mlflow import entities

T = TypeVar("T")

# FINISHED means the full budget: MLflow's tables, filtered by it, rank no score at a smaller one
# beside full ones. The tag ``state`` tells trials that were stopped early from those cut off.
STATUS = {
    TrialState.RUNNING: "RUNNING",
    TrialState.COMPLETED: "FINISHED",
    TrialState.STOPPED: "KILLED",
    TrialState.FAILED: "FAILED",
}


_LONGEST_DIGEST = 36


def named(given: Mapping[str, T]) -> dict[str, T]:
    """Replace the characters that MLflow forbids in the names of metrics and parameters by ``_``.

    Raises:
        Refused: two names would become one.
    """
    result = {re.sub(r"[^/\w.\- ]", "_", key): value for key, value in given.items()}
    if len(result) < len(given):
        raise Refused(f"names that MLflow cannot tell apart among {sorted(given)}")
    return result


def values(report: RungReport) -> dict[str, float]:
    """Return the metrics of a rung: those of the evaluators, the loss, and seconds so far."""
    own = {
        "train/loss": report.loss,
        "train/seconds": report.train_seconds,
        "evaluation/seconds": report.evaluation_seconds,
    }
    return named(report.metrics | own)


def mark(reports: Sequence[RungReport]) -> str:
    """Return a fingerprint of each report, by which later ones are compared with what was sent.

    Of what was measured, not of when: a deterministic trial that begins anew says the same again.
    """
    return " ".join(_fingerprint(report) for report in reports)


def unsent(reports: Sequence[RungReport], marked: str) -> Sequence[RungReport] | None:
    """Return the reports that must still be sent, after those that a mark stands for.

    None of them if a resumed trial has not got as far again as it was.

    Returns:
        None if they contradict what was sent, as another attempt with other results does.
    """
    now, before = mark(reports).split(), marked.split()
    both = min(len(now), len(before))
    return reports[both:] if now[:both] == before[:both] else None


def _fingerprint(report: RungReport) -> str:
    # repr is exact, and has a text for NaN.
    numbers = [repr(value) for _, value in sorted(report.metrics.items())]
    parts = (report.samples, repr(report.loss), sorted(report.metrics), numbers)
    return content_id("report", *parts)[-8:]


def mlflow_inputs(
    datasets: Sequence[DatasetInput], there: Collection[tuple[str, str]]
) -> list[entities.DatasetInput]:
    """Return the datasets as MLflow takes them, but for those with a name and digest of ``there``.

    MLflow shows the context beside each, and finds runs by it: ``dataset.context = 'evaluation'``.
    """
    from mlflow.entities import Dataset, InputTag
    from mlflow.entities import DatasetInput as MlflowInput

    new = {(item.name, item.digest[:_LONGEST_DIGEST]): item for item in datasets}
    return [
        MlflowInput(
            Dataset(
                name=name,
                digest=digest,
                source_type=item.source.partition("://")[0] if "://" in item.source else "local",
                source=json.dumps({"uri": item.source}),
                profile=json.dumps({"num_rows": item.rows}),
            ),
            [InputTag("mlflow.data.context", item.context)],
        )
        for (name, digest), item in new.items()
        if (name, digest) not in there
    ]


def started_ms(reports: Sequence[RungReport]) -> int | None:
    """Return when a trial began, in milliseconds since the epoch, if its reports tell."""
    if not reports:
        return None
    first = reports[0]
    return first.time_ms - round(1000 * (first.train_seconds + first.evaluation_seconds))

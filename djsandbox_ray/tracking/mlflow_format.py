"""How records look in MLflow: names, metrics of a rung, and the mark of what was sent. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

from djsandbox_ray.identity import content_id
from djsandbox_ray.records import RungReport, TrialState
from djsandbox_ray.tracking.outbox import Refused

T = TypeVar("T")

STATUS = {
    TrialState.RUNNING: "RUNNING",
    TrialState.COMPLETED: "FINISHED",
    TrialState.STOPPED: "KILLED",
    TrialState.FAILED: "FAILED",
}


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
    """Return ``<how many> <fingerprint>``, by which later reports are known to continue these."""
    if not reports:
        return ""
    times = [[report.samples, report.time_ms] for report in reports]
    return f"{len(reports)} {content_id('reports', times)}"


def sent(marked: str) -> int:
    """Return how many reports a mark stands for."""
    return int(marked.split()[0]) if marked else 0


def continues(reports: Sequence[RungReport], marked: str) -> bool:
    """Say whether reports begin with those that a mark stands for."""
    return mark(reports[: sent(marked)]) == marked


def started_ms(reports: Sequence[RungReport]) -> int | None:
    """Return when a trial began, in milliseconds since the epoch, if its reports tell."""
    if not reports:
        return None
    first = reports[0]
    return first.time_ms - round(1000 * (first.train_seconds + first.evaluation_seconds))


def without_secrets(text: str) -> str:
    """Mask user names, passwords and tokens of the addresses in a text."""
    masked = re.sub(r"://[^/\s]*@", "://***@", text)
    return re.sub(r"(?i)((?:password|token)=)[^&\s]*", r"\1***", masked)

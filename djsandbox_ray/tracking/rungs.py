"""What a trial's reports hold for a tracker, and which of them it has not got yet."""

from __future__ import annotations

from collections.abc import Sequence

from djsandbox_ray.identity import content_id
from djsandbox_ray.records import RungReport
from djsandbox_ray.tracking.tracker import SCORE


def numbers(report: RungReport) -> dict[str, float]:
    """Return the numbers of a rung: those of the evaluators, the loss, and seconds so far.

    What the loss is made of is beside it.
    """
    own = {
        **{f"train/{name}": value for name, value in report.terms.items()},
        "train/loss": report.loss,
        "train/seconds": report.train_seconds,
        "evaluation/seconds": report.evaluation_seconds,
    }
    return report.metrics | own


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
    # The score is made of the others; earlier versions had none.
    measured = sorted((name, value) for name, value in report.metrics.items() if name != SCORE)
    names = [name for name, _ in measured]
    # repr is exact, and has a text for NaN.
    parts = (report.samples, repr(report.loss), names, [repr(value) for _, value in measured])
    return content_id("report", *parts)[-8:]


def started_ms(reports: Sequence[RungReport]) -> int | None:
    """Return when a trial began, in milliseconds since the epoch, if its reports tell."""
    if not reports:
        return None
    first = reports[0]
    return first.time_ms - round(1000 * (first.train_seconds + first.evaluation_seconds))

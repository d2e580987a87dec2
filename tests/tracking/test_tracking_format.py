from __future__ import annotations

import pytest

from djsandbox_ray.records import RungReport
from djsandbox_ray.tracking.mlflow_format import (
    continues,
    mark,
    named,
    sent,
    started_ms,
    values,
    without_secrets,
)
from djsandbox_ray.tracking.outbox import Refused


def report(samples: int, time_ms: int) -> RungReport:
    return RungReport(samples, 0.5, {"retrieval/r@1": 0.25}, 2.0, 1.0, time_ms)


def test_names_that_mlflow_forbids_are_rewritten_but_never_merged():
    assert named({"retrieval/r@1": 1, "a b.c-d": 2}) == {"retrieval/r_1": 1, "a b.c-d": 2}
    with pytest.raises(Refused, match="tell apart"):
        named({"r@1": 1, "r_1": 2})


def test_the_metrics_of_a_rung():
    assert values(report(10, 0)) == {
        "retrieval/r_1": 0.25,
        "train/loss": 0.5,
        "train/seconds": 2.0,
        "evaluation/seconds": 1.0,
    }


def test_a_mark_tells_reports_that_continue_from_reports_of_another_attempt():
    first, second, other = report(10, 1000), report(20, 2000), report(10, 1001)
    assert continues([first, second], mark([first]))
    assert continues([first], mark([]))
    assert sent(mark([first, second])) == 2
    assert not continues([other, second], mark([first]))
    assert not continues([], mark([first]))


def test_start_of_a_trial():
    assert started_ms([report(10, 10_000), report(20, 20_000)]) == 7_000
    assert started_ms([]) is None


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("http://user:pass@host:5000/x", "http://***@host:5000/x"),
        ("postgresql://u:p@ss@db/mlflow", "postgresql://***@db/mlflow"),
        (
            "postgresql://db/mlflow?password=pw&sslmode=on",
            "postgresql://db/mlflow?password=***&sslmode=on",
        ),
        ("http://host:5000", "http://host:5000"),
    ],
)
def test_secrets_are_masked(text, masked):
    assert without_secrets(text) == masked

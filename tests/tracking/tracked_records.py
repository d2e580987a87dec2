"""What tests of trackers are told: one trial of each state."""

from __future__ import annotations

import math

from djsandbox_ray.records import RungReport, TrialRecord, TrialSpec, TrialState
from djsandbox_ray.tracking.tracker import DatasetInput, PoolVerdict, RunInfo

RUN = RunInfo(
    name="demo",
    key="demo it's-1f",
    params={"budget": "200", "operators[0]": "text_length_filter"},
    tags={"djsandbox.version": "0.1.0"},
    datasets=[DatasetInput("shapes", "dataset-0123456789abcdef", "shapes", 1200)],
)
TAGS = {"stage": "trials", "operator": "text_length_filter", "statistic": "text_len"}
PARAMS = {"model": "tiny"}
POOL = DatasetInput("text_len/high", "0123456789abcdef0123456789abcdef", "text_len", 400)


def report(samples: int, accuracy: float, attempt: int = 0) -> RungReport:
    time_ms = 1_700_000_000_000 + 1000 * samples + attempt
    return RungReport(samples, 2.0 - accuracy, {"zero_shot/top1": accuracy}, 3.0, 1.0, time_ms)


def record(seed: int, state: TrialState, *reports: RungReport, **more) -> TrialRecord:
    spec = TrialSpec(f"trial-{seed}", "text_len/high", seed, "draw", 200)
    return TrialRecord(spec, state, reports, **more)


COMPLETED = record(0, TrialState.COMPLETED, report(100, 0.4), report(200, 0.6))
FAILED = record(1, TrialState.FAILED, report(100, math.nan), error="the loss is NaN")
STOPPED = record(2, TrialState.STOPPED, report(100, 0.1))
VERDICTS = (
    PoolVerdict("text_len/high", "better", 1, 0.25),
    PoolVerdict("text_len/low", "failed", 2, math.nan),
)

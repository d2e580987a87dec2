from __future__ import annotations

import math
from dataclasses import replace

import pytest

from djsandbox_ray.evaluation.metric import Metric, ScoreMetrics
from djsandbox_ray.records import Pool, PoolKind, RungReport, TrialRecord, TrialSpec, TrialState
from djsandbox_ray.tracking.mlflow_runs import in_short, named, values
from djsandbox_ray.tracking.outbox import Refused
from djsandbox_ray.tracking.rungs import mark, started_ms, unsent
from djsandbox_ray.tracking.tracker import SCORE, trial_facts


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


def test_what_is_unsent_beside_a_mark():
    first, second, third = report(10, 1000), report(20, 2000), report(30, 3000)
    assert unsent([first, second], "") == [first, second]
    assert unsent([first, second, third], mark([first])) == [second, third]
    assert unsent([first, second], mark([first, second])) == []
    # A resumed trial has not got as far again as it was; what it repeats, it says at other times.
    assert unsent([first], mark([first, second])) == []
    assert unsent([], mark([first])) == []
    assert unsent([report(10, 9999), second], mark([first])) == [second]


@pytest.mark.parametrize(
    "change",
    [{"loss": 0.4}, {"loss": math.nan}, {"samples": 11}, {"metrics": {"retrieval/r@1": 0.3}}],
)
def test_reports_of_another_attempt_contradict_a_mark(change):
    first, second = report(10, 1000), report(20, 2000)
    assert unsent([replace(first, **change), second], mark([first])) is None
    assert unsent([replace(first, **change)], mark([first, second])) is None


def test_a_mark_knows_nan():
    diverged = replace(report(10, 1000), loss=math.nan)
    assert unsent([diverged], mark([diverged])) == []


def test_a_score_that_earlier_versions_had_not_contradicts_nothing():
    first = report(10, 1000)
    scored = replace(first, metrics={SCORE: 0.25, **first.metrics})
    assert unsent([scored], mark([first])) == []


POOL = Pool("text_len/high", PoolKind.BUCKET, "text_len", 2, 100, "hash")


def scores(score: ScoreMetrics, *metrics: dict[str, float]) -> list[float | None]:
    reports = tuple(RungReport(n, 0.5, given, 1.0, 0.0, 0) for n, given in enumerate(metrics))
    spec = TrialSpec("trial-0", POOL.id, 0, "draw", 200)
    facts = trial_facts(TrialRecord(spec, TrialState.RUNNING, reports), POOL, "trials", score)
    return [one.metrics.get(SCORE) for one in facts.record.reports]


def test_every_report_has_the_mean_of_what_makes_the_score():
    less = ScoreMetrics(("top1", "loss"), (Metric("loss", better="less"),))
    given = {"top1": 0.5, "loss": 0.25, "shown": 9.0}
    assert scores(less, given, {**given, "top1": 0.75}) == [0.125, 0.25]
    assert scores(ScoreMetrics(), {"a": 1.0, "b": 3.0}) == [2.0]
    # What is not there has no mean, and an evaluator's own metric of that name stays.
    assert scores(ScoreMetrics(("a", "b")), {"a": 1.0}, {}) == [None, None]
    assert scores(ScoreMetrics(), {SCORE: 7.0, "a": 1.0}) == [7.0]


def test_start_of_a_trial():
    assert started_ms([report(10, 10_000), report(20, 20_000)]) == 7_000
    assert started_ms([]) is None


def test_an_error_of_a_database_is_told_in_a_line():
    error = RuntimeError(
        "(sqlite3.OperationalError) database is locked\n"
        "[SQL: INSERT INTO params (key, value) VALUES (?, ?)]\n"
        "[parameters: ('caption', 'planted-sample')]\n"
        "(Background on this error at: https://sqlalche.me/e/20/e3q8)"
    )
    assert in_short(error) == "RuntimeError: (sqlite3.OperationalError) database is locked"
    assert in_short(ValueError("no [SQL: x] [parameters: y]")) == "ValueError: no"
    assert len(in_short(ValueError("x" * 10_000))) < 500
    assert in_short(ValueError()) == "ValueError"


def test_a_damaged_database_is_named_with_its_remedy():
    said = in_short(RuntimeError("(sqlite3.DatabaseError) file is not a database\n[SQL: x]"))
    assert said.endswith("the database is damaged: move its file away, and a new one is written")

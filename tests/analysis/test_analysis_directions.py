"""A metric that is better when less turns changes and verdicts round, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from djsandbox_ray.analysis.scale.fitting import error_of
from djsandbox_ray.analysis.verdicts.ranking import rank
from djsandbox_ray.analysis.verdicts.scores import Yardstick, relative_change
from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.metric import Metric, ScoreMetrics
from djsandbox_ray.records import (
    Pool,
    PoolKind,
    RankingRow,
    RungReport,
    TrialRecord,
    TrialSpec,
    TrialState,
)

SEEDS = (0, 1, 2)
LESS = ScoreMetrics(None, (Metric("loss", "less"), Metric("cut", "less", scored=False)))


def pools() -> list[Pool]:
    controls = [Pool(f"control/{n}", PoolKind.CONTROL, f"c{n}", 0, 9, "h") for n in range(8)]
    names = ("good/high", "bad/high")
    return [*controls, *(Pool(name, PoolKind.BUCKET, name, 0, 9, "h") for name in names)]


def trials() -> list[TrialRecord]:
    """The loss of ``good/high`` is less than that of controls, that of ``bad/high`` greater."""
    rng = np.random.default_rng(3)
    found = []
    for pool in pools():
        shift = {"good/high": -0.3, "bad/high": 0.3}.get(pool.id, 0.0)
        for seed in SEEDS:
            loss = 1 + shift + 0.02 * float(rng.normal())
            report = RungReport(8, 1.0, {"loss": loss, "cut": float(rng.random())}, 0, 0, 0)
            spec = TrialSpec(f"{pool.id}{seed}", pool.id, seed, "draw", 8)
            found.append(TrialRecord(spec, TrialState.COMPLETED, (report,)))
    return found


def verdicts(score: ScoreMetrics | None, aggregate: str) -> dict[str, RankingRow]:
    metrics = score or ["loss"]
    found = rank(pools(), trials(), seeds=SEEDS, metrics=metrics, aggregate=aggregate)
    return {row.pool: row for row in found}


@pytest.mark.parametrize("aggregate", ["mean_relative", "standardized"])
def test_verdicts_turn_round(aggregate: str) -> None:
    less, greater = verdicts(LESS, aggregate), verdicts(None, aggregate)
    assert (less["good/high"].verdict, less["bad/high"].verdict) == ("better", "worse")
    assert (greater["good/high"].verdict, greater["bad/high"].verdict) == ("worse", "better")
    for name, row in less.items():
        assert row.change == pytest.approx(-greater[name].change)
        assert row.metrics == greater[name].metrics, "numbers are shown as they were measured"
    assert less["good/high"].rank == 1


def test_what_cannot_be_summed_is_refused_by_name() -> None:
    with pytest.raises(BadInput, match="sums the metrics, but 'loss' is better when less"):
        verdicts(LESS, "pooled")


def test_changes_against_the_formulas() -> None:
    scores, control, less = [0.6, 3.0], [0.5, 4.0], [False, True]
    found = relative_change(scores, control, "mean_relative", less=less)
    assert found == pytest.approx((0.1 / 0.5 + 1.0 / 4.0) / 2)
    noise = [0.05, 0.5]
    found = relative_change(scores, control, "standardized", noise=noise, less=less)
    assert found == pytest.approx((0.1 / 0.05 + 1.0 / 0.5) / 2)
    with pytest.raises(ValueError, match="pooled sums metrics"):
        relative_change(scores, control, "pooled", less=less)
    with pytest.raises(ValueError, match="less has 1 values"):
        relative_change(scores, control, "mean_relative", less=[True])


def test_a_yardstick_without_a_metric_keeps_the_directions_of_the_others() -> None:
    score = ScoreMetrics(None, (Metric("loss", "less"),))
    controls = {(f"c{n}", 0): {"right": 0.5 + n / 10, "loss": 2.0 + n} for n in range(3)}
    whole = Yardstick.from_controls(controls, score, "mean_relative")
    assert whole.less == (False, True)
    rest = whole.without("right")
    assert rest.change({"loss": 1.5}) == pytest.approx((3.0 - 1.5) / 3.0)
    assert replace(rest, less=None).change({"loss": 1.5}) == pytest.approx(-0.5)


def test_errors_of_a_law_are_shares_of_the_range() -> None:
    score = ScoreMetrics(None, (Metric("points", low=0, high=2000), Metric("loss", "less")))
    assert error_of({"points": 1500.0, "loss": 0.25}, score) == pytest.approx(0.25)
    assert np.isnan(error_of({"points": 1500.0}, None))

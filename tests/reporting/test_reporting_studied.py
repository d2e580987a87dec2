"""How trials went: means over seeds, the band of the controls, and where the money went."""

from __future__ import annotations

from dataclasses import replace

from factories import pool as pool_of
from factories import ranking_row, rung_report, trial_record
from matplotlib.figure import Figure

from djsandbox_ray.evaluation.metric import Metric
from djsandbox_ray.records import Cost, TrialRecord, TrialState
from djsandbox_ray.reporting.figures import VERDICT_COLOURS, svg
from djsandbox_ray.reporting.studied import costs_chart, curve_charts, mean_curves, mean_metrics


def trial(name: str, seed: int, *values: float) -> TrialRecord:
    """Return a trial with reports at 50 and 100 samples, or only at the first."""
    reports = tuple(rung_report(50 * place, value) for place, value in enumerate(values, start=1))
    state = TrialState.COMPLETED if len(values) == 2 else TrialState.STOPPED
    return replace(trial_record(name, seed), reports=reports, state=state)


TRIALS = [
    trial("control/0", 0, 0.1, 0.2),
    trial("control/0", 1, 0.3, 0.4),
    trial("control/1", 0, 0.3, 0.6),
    trial("a/high", 0, 0.4, 0.8),
    trial("a/high", 1, 0.6, 1.0),
    trial("a/low", 0, 0.1),
    trial("a/low", 1, 0.1),
]
POOLS = [pool_of(name) for name in ("control/0", "control/1", "a/high", "a/low")]
ROWS = [
    ranking_row("a/high", 0.5, "better", rank=1),
    ranking_row("a/low", float("nan"), "stopped", rank=2, stopped_at=50),
]


def rounded(values: dict) -> dict:
    return {key: round(value, 6) for key, value in values.items()}


def test_only_what_was_trained_to_the_end_has_a_mean() -> None:
    assert rounded(mean_metrics(TRIALS, ["control/0", "control/1"])) == {"m": 0.4}
    assert mean_metrics(TRIALS, ["a/low"]) == {}
    assert mean_metrics([], ["a/low"]) == {}


def test_curves_are_means_over_the_same_seeds_all_along() -> None:
    curves = mean_curves(TRIALS)["m"]
    assert rounded(curves["a/high"]) == {50: 0.5, 100: 0.9}
    assert curves["a/low"] == {50: 0.1}
    # One of two seeds was cut off: what it leaves of the second rung is no mean of both.
    assert mean_curves([trial("b", 0, 0.1, 0.9), trial("b", 1, 0.3)])["m"]["b"] == {50: 0.2}


def test_pools_are_drawn_against_the_band_of_the_controls() -> None:
    ((title, figure),) = curve_charts(TRIALS, POOLS, ROWS, [Metric("m", chance=0.1), Metric("x")])
    assert title == "m"
    axes = figure.axes[0]
    (band,) = axes.collections
    heights = band.get_paths()[0].vertices[:, 1]
    assert (round(heights.min(), 6), round(heights.max(), 6)) == (0.2, 0.6)
    named = [line for line in axes.lines if line.get_color() == VERDICT_COLOURS["better"]]
    assert [*map(float, named[0].get_ydata())] == [0.5, 0.9]
    assert any(line.get_linestyle() == "--" for line in axes.lines)
    assert "dashed: given up early; dotted: chance" in figure.get_supxlabel()
    assert svg(figure).startswith(b"<?xml")


def test_one_report_is_no_curve() -> None:
    once = [trial("control/0", 0, 0.1), trial("a/high", 0, 0.2)]
    assert curve_charts(once, POOLS, ROWS, [Metric("m")]) == []
    assert curve_charts([], [], [], [Metric("m")]) == []


def bars(figure: Figure) -> list[float]:
    return [bar.get_width() for bar in figure.axes[0].patches]


def test_the_dearest_is_what_is_drawn() -> None:
    costs = [
        Cost("ingest", 10, None, cpu_seconds=50, gpu_seconds=0, wall_seconds=50),
        Cost("trials", 10, None, cpu_seconds=940, gpu_seconds=0, wall_seconds=50),
        Cost("ranking", 0, None, cpu_seconds=1, gpu_seconds=0, wall_seconds=1),
    ]
    figure = costs_chart(costs)
    assert figure is not None
    assert bars(figure) == [50, 940]
    assert figure.axes[0].get_title(loc="left") == "CPU time by stage"
    on_gpus = costs_chart([*costs, replace(costs[1], gpu_seconds=9)])
    assert on_gpus is not None
    assert bars(on_gpus) == [9]
    assert costs_chart([]) is None
    assert costs_chart([replace(costs[0], cpu_seconds=0)]) is None

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from factories import ranking_row

from djsandbox_ray.analysis.planning.noise import NoiseFloor, Realised
from djsandbox_ray.analysis.planning.power import MAX_SEEDS, PlannedDesign
from djsandbox_ray.analysis.planning.sight import Blind, Cause, Reason
from djsandbox_ray.analysis.verdicts.design import Design
from djsandbox_ray.analysis.verdicts.racing import AuditReport, Savings, wrong_stops
from djsandbox_ray.evaluation.metric import Metric
from djsandbox_ray.records import MetricRow
from djsandbox_ray.reporting.method import (
    blind_lines,
    confirmation_notes,
    confirmation_section,
    flips_notes,
    flips_section,
    noise_lines,
    realised_lines,
    sensitivity_lines,
    sensitivity_section,
    stopping_lines,
    suspicion_lines,
)
from djsandbox_ray.reporting.ranking import NOTHING, Unit

SEEN = [
    MetricRow("loss", 2.5, 0.01, 0.03, 41.26, sees=True, scored=True),
    MetricRow("cut", 0.1, 0.01, 0.03, 4.0, sees=True, scored=False),
    MetricRow("top1", 0.51234, 0.02, 0.06, 0.4, sees=False, scored=True),
]
SAVINGS = Savings(samples=120_000, share=0.404, share_of_stoppable=0.617)


def floor(bucket_sd: float) -> NoiseFloor:
    rng = np.random.default_rng(0)
    trials = 0.02 * rng.normal(size=(8, 3))
    trials -= trials.mean(axis=1, keepdims=True)
    scores = trials + bucket_sd * rng.normal(size=(8, 1))
    return NoiseFloor.from_controls(scores, Design(18, 8, 3, 0.5))


def test_a_blind_study_says_why_and_which_one_would_see():
    noise, better = floor(0.0), PlannedDesign(Design(18, 12, 6, 2 / 3), 0.81, 0.05)
    reasons = (
        Reason(Cause.BUDGET, metrics=("zero_shot/top1",)),
        Reason(Cause.POOL_SIZE, 0.666),
        Reason(Cause.METRIC, metrics=("a", "b")),
        Reason(Cause.TRAINING),
    )
    what, why, how = blind_lines(Blind(0.05, reasons, better), noise, Unit.PERCENT)
    assert what.startswith("this study is not likely to see a change of 5.00 %: a pool must be ")
    assert f"{100 * noise.detectable.value:.2f} % better" in what
    assert why.startswith("likely because the models have learnt hardly anything (at chance: ")
    assert "; and because 67 % of the noise is which samples are in a bucket" in why
    assert "; and because a, b scatters far more" in why
    assert why.count("; and because ") == 3
    assert how == (
        "the cheapest design that would see 5.00 % takes 180 trials in place of 78: "
        "--set pools.controls=12 --set trials.seeds=6 --set pools.draw_share=0.667"
    )
    *_, none = blind_lines(Blind(0.05, reasons, None), noise, Unit.SD)
    assert none == "no design of up to 40 control arms and 16 seeds sees 0.05 sd"


def test_the_noise_says_what_can_be_found():
    noise = floor(0.0)
    first, width, more = noise_lines(noise, Unit.PERCENT, stopping=False)
    assert "8 control arms and 3 seeds" in first
    assert f"{100 * noise.detectable.value:.2f} % better" in first
    assert f"{100 * noise.detectable.low:.2f} % to {100 * noise.detectable.high:.2f} %" in first
    assert f"about {100 * noise.half_width.value:.2f} % to each side" in width
    half = noise.detectable.value / 2
    assert more == f"to find half of that, {100 * half:.2f} %, takes {noise.seeds_for(half)} seeds"
    assert "given up early" not in first
    assert "given up early" in noise_lines(noise, Unit.PERCENT, stopping=True)[0]
    assert (
        f"{noise.detectable.value:.2f} sd better" in noise_lines(noise, Unit.SD, stopping=False)[0]
    )


def test_what_each_metric_can_see():
    table = sensitivity_section(SEEN)
    assert table.rows[0] == ["loss", "2.5", "0.01", "0.03", "41.3", "sees"]
    assert table.rows[1][-1] == "sees, not in the score"
    assert table.rows[2] == ["top1", "0.5123", "0.02", "0.06", "0.4", ""]
    unknown = [replace(row, seen=math.nan, sees=False) for row in SEEN]
    assert sensitivity_section(unknown).rows[0][-2:] == [NOTHING, ""]


def test_which_metrics_see_the_self_tests():
    (line,) = sensitivity_lines(SEEN, chosen=False)
    assert line.startswith("The self-tests are seen by 1 of 2 metrics of the score: loss. The")
    (line,) = sensitivity_lines(SEEN, chosen=True)
    assert line == ("The score is made of 1 of 2 metrics, those that see the self-tests: loss.")
    assert sensitivity_lines(SEEN[:2], chosen=False) == []
    blind = [replace(row, sees=False) for row in SEEN]
    assert sensitivity_lines(blind, chosen=False) == ["No metric of the score sees the self-tests."]
    assert sensitivity_lines(blind, chosen=True)[0].endswith("self-tests: all of them count.")
    unknown = [replace(row, seen=math.nan) for row in blind]
    assert sensitivity_lines(unknown, chosen=False) == []
    assert sensitivity_lines(unknown, chosen=True) == [
        "No self-test says which metrics see anything: all count."
    ]


def test_where_no_number_of_seeds_will_do_it_says_why():
    last = noise_lines(floor(0.5), Unit.PERCENT, stopping=False)[-1]
    assert last.startswith(f"not even {MAX_SEEDS} seeds")
    assert "does not average out" in last


def test_no_noise_at_all():
    quiet = NoiseFloor.from_controls(np.ones((8, 3)), Design(18, 8, 3, 0.5))
    assert len(noise_lines(quiet, Unit.PERCENT, stopping=False)) == 2


def test_the_intervals_that_came_out():
    plain = Realised(half_width=0.021, ratio=1.05, warning=None)
    line = "Intervals came out 2.10 % to each side, 1.05 times what the noise floor foretold."
    assert realised_lines(plain, Unit.PERCENT) == [line]
    wide = replace(plain, warning="the intervals are wider")
    assert realised_lines(wide, Unit.PERCENT) == [line, "Beware: the intervals are wider."]
    assert realised_lines(None, Unit.PERCENT) == []


def test_what_giving_up_early_saved_and_how_often_it_was_wrong():
    finals = {f"p{i}": float(i) for i in range(10)}
    audit = wrong_stops(["p0", "p1", "p9"], finals, keep=3)
    assert stopping_lines(9, audit, SAVINGS) == [
        "Early stopping gave up 9 pools and saved 40% of all training (62% of that of the pools "
        "that race).",
        "3 pools that would have been given up ran on as a check: 1 ended among the best (33%; "
        "95 % interval 1% to 91%).",
    ]


def test_without_a_check_nothing_is_known():
    unknown = AuditReport(0, 0, None, 0.0, 1.0)
    one, check = stopping_lines(1, unknown, SAVINGS)
    assert one.startswith("Early stopping gave up 1 pool and")
    assert "is not known" in check
    none = Savings(0, 0.0, 0.0)
    assert stopping_lines(0, unknown, none) == ["Early stopping gave up no pool."]


def test_confirmed_effects_beside_the_first(confirmed):
    table = confirmation_section(confirmed, Unit.PERCENT)
    assert table.header == ["pool", "first %", "shrunken %", "confirmed %", "verdict"]
    assert table.rows == [
        ["similarity/high", "+20.00 [14.00, 26.00]", "+15.00", "+12.00 [5.00, 19.00]", "better"],
        ["text_len/middle", "+10.00 [4.00, 16.00]", "+7.00", "-10.00 [-17.00, -3.00]", "worse"],
        ["text_len/high", "+10.00 [4.00, 16.00]", "+7.00", "-", "failed"],
    ]
    assert confirmation_section(confirmed, Unit.SD).rows[0][1] == "+0.20 [0.14, 0.26]"
    assert confirmation_notes(confirmed) == [
        "Confirmed: 1 of 3 pools that were called better are better again.",
        "Contradicted, worse in the second study: text_len/middle.",
    ]
    assert len(confirmation_notes(confirmed[:1])) == 1
    assert confirmation_notes([]) == []


def test_flips_come_first(flips):
    table = flips_section(flips, Unit.PERCENT)
    assert table.rows == [
        ["text_len/low", "-15.00", "worse", "-2.00", "undecided", "flips"],
        ["similarity/high", "+20.00", "better", "+18.00", "better", ""],
    ]
    assert len(table.header) == len(table.rows[0])
    assert flips_notes(flips) == [
        "1 of 2 decided verdicts flip at the second learning rate: "
        "text_len/low (worse, then undecided)."
    ]
    assert flips_notes(flips[:1]) == [
        "All 1 decided verdicts are the same at the second learning rate."
    ]
    assert flips_notes([]) == []


def test_models_that_say_yes_to_everything_are_named():
    metrics = (Metric("pope/f1"), Metric("pope/yes", scored=False, suspect_above=0.9))
    shares = {"similarity/low": 0.97, "similarity/middle": 0.9, "similarity/high": 0.5}
    rows = [
        replace(ranking_row(pool, 0.0, "undecided"), metrics={"pope/f1": 0.667, "pope/yes": share})
        for pool, share in shares.items()
    ]
    rows.append(replace(ranking_row("text_len/low", 0.0, "failed"), metrics={}))
    assert suspicion_lines(rows, metrics) == [
        "Beware: pope/yes is above 0.9 in similarity/low; there the other metrics of pope say "
        "little."
    ]
    assert "in all pools; " in suspicion_lines(rows[:1], metrics)[0]
    assert suspicion_lines(rows[1:], metrics) == []

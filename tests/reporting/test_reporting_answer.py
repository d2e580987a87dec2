"""What a run comes to: what to keep, what it is worth, how sure it is, and what to do next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from factories import pool as pool_of
from factories import ranking_row

from djsandbox_ray.evaluation.metric import Metric
from djsandbox_ray.records import ConfirmationRow, Pool, Range, RankingRow
from djsandbox_ray.reporting.answer import (
    Certainty,
    Conclusion,
    Measured,
    RunPlace,
    Share,
    answer_lines,
    bucket_range,
    conclude,
    metrics_section,
    range_text,
    summary_line,
)
from djsandbox_ray.reporting.ranking import Unit

NAN = math.nan
PLACE = RunPlace("demo", "./sandbox")


def bucket(name: str, low: float, high: float, **changes) -> Pool:
    return pool_of(name, low=low, high=high, **changes)


@pytest.fixture
def pools() -> dict[str, Pool]:
    made = [
        bucket("text_len/low", 1, 9),
        bucket("text_len/middle", 10, 63),
        bucket("text_len/high", 64, 900),
        bucket("similarity/low", 0.1, 0.19),
        bucket("similarity/high", 0.3, 0.42),
    ]
    return {one.id: one for one in made}


def row(name: str, change: float, verdict: str, **more) -> RankingRow:
    return ranking_row(
        name, change, verdict, **({"low": change - 0.1, "high": change + 0.1} | more)
    )


def look(name: str, confirmed: float, verdict: str) -> ConfirmationRow:
    ends = (confirmed - 0.1, confirmed + 0.1) if math.isfinite(confirmed) else (NAN, NAN)
    return ConfirmationRow(name, 0.5, 0.4, 0.6, 0.45, confirmed, *ends, verdict, 3)


ROWS = [
    row("similarity/high", 0.5, "better"),
    row("text_len/middle", 0.3, "better", carried_by="top1"),
    row("text_len/low", -0.4, "worse"),
    row("text_len/high", -0.1, "worse"),
]


def said(found: Conclusion, **more) -> dict[str, list[str]]:
    lines: dict[str, list[str]] = {}
    for word, text in answer_lines(found, Unit.PERCENT, PLACE, confidence=0.95, **more):
        lines.setdefault(word, []).append(text)
    return lines


def test_what_is_confirmed_is_kept_in_the_units_of_the_statistic(pools):
    looks = [look("similarity/high", 0.4, "better"), look("text_len/middle", 0.2, "better")]
    found = conclude(ROWS, looks, pools)
    assert found.certainty is Certainty.CONFIRMED
    assert found.ranges == (Range("similarity", 0.3, None),)
    lines = said(
        found,
        share=Share(4000, 12000),
        measured=[Measured(Metric("top1", chance=0.1), 0.6, 0.4), Measured(Metric("fid"), 3, NAN)],
    )
    assert lines["keep"] == [
        "Keep samples with similarity of 0.3 or more: 33.3 % of the data (4,000 of 12,000 "
        "samples). That is the pool similarity/high."
    ]
    assert lines["worth"] == [
        "+40.00 % [+30.00, +50.00] against training on as many random samples; +50.00 % when it "
        "was chosen. In the score's own terms: top1 0.6 (controls 0.4, chance 0.1); fid 3 "
        "(controls -)."
    ]
    assert lines["sure"][0].startswith("Confirmed: better again with fresh seeds")
    assert lines["hurts"] == ["text_len/low hurts most: -40.00 % [-50.00, -30.00], seen once."]
    assert lines["next"] == [
        "the recipe for Data-Juicer: djsandbox recipe demo",
        "combine what is confirmed: djsandbox run ./sandbox/runs/demo/config.yaml --set "
        "workflow=multi_op",
    ]


def test_the_second_look_decides_which_pool_it_is(pools):
    looks = [look("similarity/high", 0.05, "undecided"), look("text_len/middle", 0.2, "better")]
    found = conclude(ROWS, looks, pools)
    assert (found.pool, found.certainty) == ("text_len/middle", Certainty.CONFIRMED)
    assert found.ranges == (Range("text_len", 10, 63),)
    lines = said(found)
    assert "It hangs on one metric, top1" in lines["sure"][0]
    assert len(lines["next"]) == 1  # one statistic is nothing to combine


def test_what_is_not_confirmed_is_not_promised(pools):
    looks = [look("similarity/high", 0.05, "undecided"), look("text_len/middle", 0.02, "undecided")]
    found = conclude(ROWS, looks, pools)
    assert (found.pool, found.certainty) == ("similarity/high", Certainty.UNCONFIRMED)
    lines = said(found)
    assert lines["keep"][0].startswith("Perhaps keep samples")
    assert "+5.00 % [-5.00, +15.00]" in lines["worth"][0]
    assert lines["sure"][0].startswith("Not confirmed")
    assert "trials.seeds=6" in lines["next"][0]
    assert not any("recipe" in text for text in lines["next"])


def test_what_the_second_look_contradicts_is_not_even_perhaps_kept(pools):
    looks = [look("similarity/high", -0.2, "worse"), look("text_len/middle", 0.02, "undecided")]
    found = conclude(ROWS, looks, pools)
    assert (found.pool, found.certainty) == ("text_len/middle", Certainty.UNCONFIRMED)
    found = conclude(ROWS, [look(one.pool, -0.2, "worse") for one in ROWS[:2]], pools)
    assert found.certainty is Certainty.NOTHING


@pytest.mark.parametrize("looks", [None, [look("similarity/high", NAN, "failed")]])
def test_what_was_seen_once_says_so(pools, looks):
    rows = ROWS if looks is None else ROWS[:1]
    found = conclude(rows, looks, pools)
    assert (found.pool, found.certainty) == ("similarity/high", Certainty.ONCE)
    assert found.change == 0.5
    lines = said(found)
    assert "confirm.top=3" in lines["next"][0]
    assert math.isnan(found.first)
    assert "when it was chosen" not in lines["worth"][0]


def test_nothing_found_keeps_all_of_it(pools):
    found = conclude(ROWS[2:], None, pools)
    assert found.certainty is Certainty.NOTHING
    lines = said(found)
    assert lines["keep"][0].startswith("All of it")
    assert lines["hurts"][0].startswith("text_len/low hurts most")
    assert lines["next"][-1].endswith("djsandbox plan ./sandbox/runs/demo/config.yaml --power")
    assert "hurts" not in said(conclude([], None, pools))


def test_a_failed_self_test_takes_the_answer_away(pools):
    test = row("self_test/shuffled_statistic", 0.5, "better", expected="undecided")
    found = conclude([*ROWS, test], [look("similarity/high", 0.4, "better")], pools)
    assert found == Conclusion(Certainty.UNTRUSTED)
    assert "self-tests failed" in said(found)["keep"][0]
    assert "worth" not in said(found)
    line = summary_line("demo", [*ROWS, test], [], pools, Unit.PERCENT)
    assert line.startswith("demo: SELF-TEST FAILED: self_test/shuffled_statistic is better but")
    assert "keep" not in line


def test_a_pool_that_breaks_a_policy_is_none(pools):
    pools["similarity/high"] = replace(pools["similarity/high"], breaks=("too much",))
    assert conclude(ROWS, None, pools).pool == "text_len/middle"


def test_a_combination_keeps_what_all_its_parts_keep(pools):
    name = "similarity/high&text_len/middle"
    parts = ("similarity/high", "text_len/middle")
    joined = [row(name, 0.9, "better"), row("similarity/high", 0.5, "better")]
    looks = [look("similarity/high", 0.4, "better"), look("text_len/middle", 0.2, "better")]
    found = conclude(
        ROWS, looks, pools, combined=joined, combinations=[pool_of(name, parts=parts, column=name)]
    )
    assert (found.pool, found.certainty, found.change) == (name, Certainty.ONCE, 0.9)
    assert [item.statistic for item in found.ranges] == ["similarity", "text_len"]
    combined = RunPlace("demo", "./sandbox", has_combined=True)
    lines = answer_lines(found, Unit.PERCENT, combined, confidence=0.95)
    assert "similarity of 0.3 or more and text_len from 10 to 63" in lines[0][1]
    assert "What is confirmed is similarity/high alone: +40.00 %" in dict(lines)["sure"]
    assert [text for word, text in lines if word == "next"] == [
        "the recipe for Data-Juicer: djsandbox recipe demo"
    ]


def test_a_pool_without_a_statistic_is_written_out(pools):
    own = {**pools, "mine": pool_of("mine")}
    found = conclude([row("mine", 0.5, "better")], [look("mine", 0.4, "better")], own)
    assert found.ranges == ()
    lines = said(found)
    assert lines["keep"] == ["Keep the rows of the pool mine. That is the pool mine."]
    assert lines["next"] == [
        "write its rows to files: djsandbox materialise demo mine --output demo-kept"
    ]


def test_names_that_a_shell_would_take_apart_are_quoted():
    place = RunPlace("demo", "s3://bucket/my data")
    assert (
        place.command("recipe", "demo") == "djsandbox recipe demo --storage 's3://bucket/my data'"
    )
    assert (
        place.again("a=1") == "djsandbox run 's3://bucket/my data/runs/demo/config.yaml' --set a=1"
    )


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (None, 9.0, "n of 9 or less"),
        (0.25, None, "n of 0.25 or more"),
        (1.0, 2.0, "n from 1 to 2"),
        (None, None, "any n"),
    ],
)
def test_ranges_in_words(low, high, text):
    assert range_text(Range("n", low, high)) == text


def test_only_the_outermost_buckets_are_open(pools):
    members: Sequence[Pool] = [*pools.values()]
    found = [bucket_range(pools[f"text_len/{part}"], members) for part in ("low", "middle", "high")]
    assert found == [
        Range("text_len", None, 9),
        Range("text_len", 10, 63),
        Range("text_len", 64, None),
    ]


def test_metrics_stand_beside_controls_and_chance():
    less = Measured(Metric("fvd", better="less"), 10, 12)
    assert less.text == "fvd (less is better) 10 (controls 12)"
    table = metrics_section([less])
    assert table.header == ["metric", "this pool", "controls"]
    table = metrics_section([less, Measured(Metric("top1", chance=0.125), 0.5, NAN)])
    assert [*map(list, table.rows)] == [
        ["fvd ↓", "10", "12", "-"],
        ["top1", "0.5", "-", "0.125"],
    ]


def test_the_summary_is_one_line(pools):
    line = summary_line("demo", ROWS, [look("similarity/high", 0.4, "better")], pools, Unit.PERCENT)
    assert line == (
        "demo: keep similarity/high (similarity of 0.3 or more): +40.00 % [+30.00, +50.00], "
        "confirmed with fresh seeds. Of 4 pools: 2 better, 2 worse, 0 undecided."
    )
    assert "no pool is better" in summary_line("demo", ROWS[2:], [], pools, Unit.PERCENT)
    assert "perhaps keep similarity/high" in summary_line("demo", ROWS, [], pools, Unit.PERCENT)
    again = [look("similarity/high", 0.05, "undecided")]
    line = summary_line("demo", ROWS[:1], again, pools, Unit.PERCENT)
    assert "not confirmed by the second look. Of 1 pools" in line
    bare = row("a/high", 1.5, "better", low=NAN, high=NAN)
    line = summary_line("demo", [bare], [], {"a/high": pool_of("a/high")}, Unit.SD)
    assert line.startswith("demo: perhaps keep a/high (any a): +1.50 sd, seen once")

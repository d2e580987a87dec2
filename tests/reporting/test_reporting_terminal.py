from __future__ import annotations

import io
from dataclasses import replace

import pytest
from factories import confirmation_row
from rich.console import Console

from djsandbox_ray.records import PoolKind
from djsandbox_ray.reporting.blocks import ReportTable
from djsandbox_ray.reporting.method import confirmation_section
from djsandbox_ray.reporting.ranking import Unit, notes, sections
from djsandbox_ray.reporting.terminal import ranking_table, section_table


def render(rows, unit=Unit.PERCENT, width=120, **console) -> str:
    return show(ranking_table(rows, unit), width, **console)


def show(table, width=120, **console) -> str:
    terminal = Console(record=True, width=width, file=io.StringIO(), **console)
    terminal.print(table)
    return terminal.export_text(styles=bool(console))


def lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines() if "/" in line]


def test_every_row_says_all_of_it(rows):
    assert "change %" in render(rows)
    assert lines(render(rows)) == [
        "1 similarity/high +20.00 +14.00 .. +26.00 <.001 better 3",
        "3 text_len/low -15.00 -21.00 .. -9.00 0.020 worse 2/3 (1 failed)",
        "5 text_len/high - - - failed 0/3 (3 failed)",
        "2 self_test/shuffled_statistic +1.00 -5.00 .. +7.00 0.020 undecided (ok) 3",
        "4 self_test/shuffled_captions -30.00 -36.00 .. -24.00 0.020 worse (ok) 3",
    ]


def test_a_failed_self_test_comes_first(broken):
    first, second, *_ = lines(render(broken))
    assert first.startswith("4 self_test/shuffled_captions")
    assert first.endswith("better (must be worse) 3")
    assert second.startswith("1 similarity/high")


def test_a_title_is_only_text(rows):
    table = ranking_table(rows, Unit.PERCENT, "Pools [bold]of a & b[/bold]")
    assert "Pools [bold]of a & b[/bold]" in show(table)
    assert "None" not in render(rows)


def test_units():
    assert Unit.of("standardized") is Unit.SD
    assert Unit.of("pooled") is Unit.of("mean_relative") is Unit.PERCENT
    assert (Unit.SD.text(0.2), Unit.PERCENT.text(0.2)) == ("+0.20", "+20.00")


def test_the_unit_of_the_standardized_aggregate(rows):
    text = render(rows, Unit.SD)
    assert "change sd" in text
    assert "+0.20 +0.14 .. +0.26" in lines(text)[0]


def test_colours(rows):
    text = render(rows, force_terminal=True, color_system="standard")
    assert "\x1b[32mbetter" in text
    assert "\x1b[31mworse" in text


def test_hostile_names_and_narrow_terminals(rows):
    rows[1] = replace(rows[1], pool="[bold]x[/bold][/oops]")
    assert "[bold]x[/bold][/oops]" in render(rows)
    assert "0.020" in render(rows, width=80)


def test_sections_are_sorted_and_complete(rows, broken):
    assert [part.title for part in sections(rows)] == ["pools", "self-tests"]
    assert [part.title for part in sections(broken)] == [
        "failed self-tests",
        "pools",
        "self-tests",
    ]
    control = replace(rows[1], kind=PoolKind.CONTROL)
    assert [part.title for part in sections([control])] == ["controls"]
    assert sections([]) == []


def test_notes(rows, broken):
    assert notes(rows) == [
        "Self-tests passed: 2 of 2.",
        "4 trials failed and are left out: text_len/low, text_len/high.",
        "Of 3 pools: 1 better, 1 worse, 0 undecided, 1 failed.",
    ]
    assert notes(broken)[0].startswith(
        "SELF-TEST FAILED: self_test/shuffled_captions is better but must be worse"
    )
    assert len(notes(broken)) == 3
    assert notes([]) == [
        "This ranking has no self-tests.",
        "Of 0 pools: 0 better, 0 worse, 0 undecided.",
    ]


def test_pools_that_were_given_up_have_a_section_of_their_own(raced):
    assert [part.title for part in sections(raced)] == ["pools", "given up early", "self-tests"]
    assert lines(render(raced))[3:5] == [
        "6 sharpness/high - - - stopped at 15,000 -",
        "7 sharpness/low - - - stopped at 2,500 -",
    ]


def test_notes_on_what_was_given_up_and_what_one_metric_carries(raced):
    assert notes(raced) == [
        "Self-tests passed: 2 of 2.",
        "5 trials failed and are left out: text_len/low, text_len/high, sharpness/low.",
        "Of 5 pools: 1 better, 1 worse, 0 undecided, 2 given up early, 1 failed.",
        "Carried by one metric, without which the verdict would not stand: "
        "similarity/high (better: zero_shot/top1).",
    ]
    broken = [replace(row, verdict="better") if row.rank == 4 else row for row in raced]
    assert notes(broken)[0].startswith("SELF-TEST FAILED")
    one = [replace(raced[2], seeds=2, failed=1)]
    assert notes(one)[1] == "1 trial failed and is left out: text_len/low."


def test_trials_that_collapsed_are_named(rows):
    better = next(row for row in rows if row.verdict == "better")
    lost = replace(better, collapsed="seed 1, control/3 seed 0", without_collapsed="undecided")
    same = [
        replace(row, collapsed="control/3 seed 0", without_collapsed=row.verdict) for row in rows
    ]
    known = notes(same)[-1]
    assert known.startswith("Trials that collapsed, far below the rest of their arm: ")
    assert "more" in known or len(rows) <= 5
    assert known.endswith("; no verdict changes.")
    assert notes([lost])[-1].endswith(
        f"{lost.pool} (seed 1, control/3 seed 0); other verdicts without them: "
        f"{lost.pool} (better, without them undecided)."
    )
    assert not any("collapsed" in line for line in notes(rows))


def test_a_table_of_the_page_on_the_terminal():
    table = ReportTable("[bold]Title[/oops]", ["pool", "verdict"], [["[red]a/b", "better"]])
    text = show(section_table(table), force_terminal=True, color_system="standard")
    assert "[bold]Title[/oops]" in text
    assert "[red]a/b" in text
    assert "\x1b[32mbetter" in text


def test_a_second_look_fits_a_narrow_window():
    pool = "image_text_similarity/high"
    section = confirmation_section([confirmation_row(pool, 4.3)], Unit.PERCENT)
    narrow = show(section_table(section), width=80)
    assert pool in narrow
    assert max(map(len, narrow.splitlines())) <= 80
    assert "+430.00 [425.00, 435.00]" in show(section_table(section), width=120)


def test_a_self_test_without_a_result_is_a_failed_one(rows):
    rows[0] = replace(rows[0], verdict="failed")
    assert "is failed but must be worse" in notes(rows)[0]


@pytest.mark.parametrize("width", [60, 80, 100])
def test_an_empty_ranking_renders(width):
    assert "rank" in render([], width=width)

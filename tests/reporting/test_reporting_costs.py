from __future__ import annotations

import io

import pytest
from rich.console import Console

from djsandbox_ray.records import Cost
from djsandbox_ray.reporting.costs import costs_section, costs_table, duration, operations
from djsandbox_ray.reporting.page import report_html

COSTS = [
    Cost("ingest", 12_000, 0.0, 10.0, 0.0, 6.0),
    Cost("statistics", 12_000, None, 30.0, 0.0, 16.0),
    Cost("trials", 1_200_000, 6.95e13, 360.0, 0.0, 200.0),
]


def lines(costs: list[Cost], width: int = 140) -> list[str]:
    terminal = Console(record=True, width=width, file=io.StringIO())
    terminal.print(costs_table(costs))
    return [" ".join(line.split()) for line in terminal.export_text().splitlines()]


def test_every_stage_and_the_total_are_shown() -> None:
    shown = lines(COSTS)
    assert "stage samples operations CPU GPU wall share of CPU" in shown
    assert "ingest 12,000 0 FLOP 10.0 s - 6.0 s 2.5 %" in shown
    assert "statistics 12,000 not counted 30.0 s - 16.0 s 7.5 %" in shown
    assert "trials 1,200,000 69.5 TFLOP 6 min 00 s - 3 min 20 s 90.0 %" in shown
    (footer,) = [line for line in shown if line.startswith("total")]
    assert footer.startswith("total 1,224,000 at least 69.5 TFLOP (not counted: statistics)")
    assert footer.endswith("6 min 40 s - 3 min 42 s")


def test_the_share_is_that_of_the_gpus_where_there_are_any() -> None:
    on_gpu = Cost("scorer", 10, 1e9, 40.0, 20.0, 20.0)
    trials = Cost("trials", 90, 3e9, 10.0, 60.0, 60.0)
    shown = lines([on_gpu, trials])
    assert "scorer 10 1 GFLOP 40.0 s 20.0 s 20.0 s 25.0 %" in shown
    assert "share of GPU" in shown[1]


def test_the_page_says_the_same() -> None:
    section = costs_section(COSTS)
    assert [row[0] for row in section.rows] == ["ingest", "statistics", "trials", "total"]
    page = report_html("run", [], tables=[section])
    assert "What it cost" in page
    assert "69.5 TFLOP" in page


@pytest.mark.parametrize("width", [50, 80])
def test_an_empty_ledger_renders(width: int) -> None:
    assert any(line.startswith("total") for line in lines([], width))


def test_hostile_names_are_no_markup() -> None:
    assert "[/oops]" in "".join(lines([Cost("[/oops]", 1, None, 0.0, 0.0, 1.0)]))


@pytest.mark.parametrize(
    ("flops", "shown"),
    [
        (None, "not counted"),
        (0.0, "0 FLOP"),
        (999.0, "999 FLOP"),
        (999.9, "1 kFLOP"),
        (57.92e6, "57.9 MFLOP"),
        (1e24, "1 YFLOP"),
        (1.5e27, "1.5e+03 YFLOP"),
    ],
)
def test_operations_are_in_engineering_units(flops: float | None, shown: str) -> None:
    assert operations(flops) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 00 s"),
        (723, "12 min 03 s"),
        (3599.4, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (25_500, "7 h 05 min"),
        (360_000, "100 h 00 min"),
    ],
)
def test_durations_are_read_at_a_glance(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


def test_stages_that_took_no_time_have_no_line_but_count() -> None:
    shown = "".join(
        lines([Cost("leaks", 7, 0.0, 0.0, 0.0, 0.1), Cost("trials", 5, 1.0, 2.0, 0, 1)])
    )
    assert "leaks" not in shown
    assert "total 12" in shown

from __future__ import annotations

import io

import pytest
from rich.console import Console

from djsandbox_ray.reporting.progress import Progress, rough_duration


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def plain(width: int = 80) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=False)


def written(console: Console) -> list[str]:
    return console.file.getvalue().splitlines()


def test_a_log_gets_few_lines_and_the_last_state():
    console, clock = plain(), Clock()
    with Progress(console, clock) as progress:
        progress.stage("ingest")
        progress.stage("trials", total=92)
        for done in range(93):
            progress.update(done=done, running=2, failed=1, best="similarity/high +5.2 %")
            clock.now += 1
        progress.note("the ranking follows")
    lines = written(console)
    assert lines[:2] == ["ingest", "trials: 0/92 done"]
    assert lines[2] == (
        "trials: 5/92 done, 2 running, 1 failed, best similarity/high +5.2 %, about 87 s left"
    )
    assert len(lines) <= 2 + 92 / 5 + 2
    assert lines[-2] == "the ranking follows"
    assert lines[-1] == "trials: 92/92 done, 2 running, 1 failed, best similarity/high +5.2 %"


def test_the_log_of_a_night_has_some_hundred_lines():
    console, clock = plain(), Clock()
    with Progress(console, clock) as progress:
        progress.stage("trials", total=28_800)
        for done in range(28_800):
            progress.update(done=done)
            clock.now += 1
    assert 100 < len(written(console)) < 250


def test_what_was_found_done_does_not_count_for_the_pace():
    console, clock = plain(), Clock()
    with Progress(console, clock) as progress:
        progress.stage("trials", total=100)
        progress.update(done=90)
        clock.now += 60
        progress.update(done=91)
    assert written(console)[-1] == "trials: 91/100 done, about 9 min left"


def test_a_total_may_come_later_and_what_is_left_out_stays():
    console, clock = plain(), Clock()
    with Progress(console, clock) as progress:
        progress.stage("statistics")
        progress.update(done=1, failed=2)
        clock.now += 10
        progress.update(total=4)
    assert written(console)[-1] == "statistics: 1/4 done, 2 failed"


def test_a_stage_that_waits_for_others_says_so_until_it_goes_on():
    console, clock = plain(), Clock()
    with Progress(console, clock) as progress:
        progress.stage("trials", total=4)
        for change in ({"waiting": "4 CPUs (1.5 free)"}, {"running": 1}, {"waiting": ""}):
            clock.now += 10
            progress.update(**change)
    assert written(console) == [
        "trials: 0/4 done",
        "trials: 0/4 done, waiting for 4 CPUs (1.5 free)",
        "trials: 0/4 done, 1 running, waiting for 4 CPUs (1.5 free)",
        "trials: 0/4 done, 1 running",
    ]


def test_a_terminal_gets_a_live_line_and_the_notes_stay():
    console = Console(
        file=io.StringIO(), width=120, force_terminal=True, force_interactive=True, _environ={}
    )
    with Progress(console) as progress:
        progress.stage("[red]trials[/oops]", total=3)
        progress.update(done=1, running=2, best="a/high [x]")
        progress.note("a note [not markup]")
        progress.update(done=3, running=0)
    text = console.file.getvalue()
    assert "[red]trials[/oops]" in text
    assert "3/3 done" in text
    assert "a/high [x]" in text
    assert "a note [not markup]" in text
    assert "\x1b[?25h" in text  # the cursor is back


def test_an_error_inside_ends_the_live_line():
    console = Console(file=io.StringIO(), force_terminal=True, force_interactive=True, _environ={})

    def work() -> None:
        with Progress(console) as progress:
            progress.stage("trials", total=3)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert console.file.getvalue().rstrip().endswith("\x1b[?25h")


def test_an_update_without_a_stage_is_an_error():
    with Progress(plain()) as progress, pytest.raises(RuntimeError, match="no stage"):
        progress.update(done=1)


def test_durations():
    assert [rough_duration(seconds) for seconds in (45.4, 89, 600, 11_100)] == [
        "45 s",
        "89 s",
        "10 min",
        "3 h 05 min",
    ]


@pytest.mark.parametrize("width", [80, 120])
def test_the_live_line_keeps_its_bar_in_a_narrow_window(width: int):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    with Progress(console) as progress:
        progress.stage("confirmation_trials", total=54)
        progress.update(done=20, running=2, best="image_text_similarity/high +442.83 %")
        shown = Console(file=io.StringIO(), width=width, color_system=None)
        shown.print(progress._live.get_renderable())
    (line,) = shown.file.getvalue().splitlines()
    assert "confirmation_trials" in line
    assert line.count("━") >= 3
    assert "20/54 done, 2 running" in line
    assert len(line) <= width

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
            running = 2 if done < 92 else 0
            progress.update(done=done, running=running, failed=1, best="similarity/high +5.2 %")
            clock.now += 1
        progress.note("the ranking follows")
    lines = written(console)
    assert lines[:2] == ["ingest", "trials: 0/92 done"]
    assert lines[2] == (
        "trials: 5/92 done, 2 running, 85 to come, 1 failed, best similarity/high +5.2 %, "
        "about 87 s left"
    )
    assert len(lines) <= 2 + 92 / 5 + 2
    assert lines[-2] == "the ranking follows"
    assert lines[-1] == "trials: 92/92 done, 1 failed, best similarity/high +5.2 %"


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
        "trials: 0/4 done, 1 running, 3 to come, waiting for 4 CPUs (1.5 free)",
        "trials: 0/4 done, 1 running, 3 to come",
    ]


def terminal(width: int = 120) -> Console:
    return Console(
        file=io.StringIO(),
        width=width,
        force_terminal=True,
        force_interactive=True,
        color_system=None,
        _environ={},
    )


def panel(progress: Progress, width: int) -> list[str]:
    """Return what the panel shows, line by line, without its frame."""
    shown = Console(file=io.StringIO(), width=width, color_system=None)
    shown.print(progress.panel())
    lines = shown.file.getvalue().splitlines()
    assert all(len(line) <= width for line in lines)
    return [line.strip("│╭╮╰╯─ ") for line in lines]


def test_a_terminal_gets_a_panel_and_what_stays_is_said_above_it():
    console = terminal()
    with Progress(console) as progress:
        progress.stage("[red]trials[/oops]", total=3)
        progress.update(done=1, running=2, best="a/high [x]")
        progress.note("a note [not markup]")
        progress.update(done=3, running=0)
    text = console.file.getvalue()
    assert "[red]trials[/oops]: 3/3 done, best a/high [x]\n" in text
    assert "a note [not markup]" in text
    assert text.count("3/3 done") == 1, "a stage has one last word"
    assert "\x1b[?25h" in text  # the cursor is back


def test_a_quiet_terminal_swallows_nothing_that_others_print(capsys):
    console = Console(quiet=True, force_terminal=True, force_interactive=True)
    with Progress(console) as progress:
        progress.stage("trials", total=3)
        print("of others")
    assert capsys.readouterr().out == "of others\n"


def test_an_error_inside_ends_the_panel():
    console = terminal()

    def work() -> None:
        with Progress(console) as progress:
            progress.stage("trials", total=3)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    text = console.file.getvalue()
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is back"


@pytest.mark.parametrize("width", [80, 120])
def test_the_panel_says_where_run_and_stage_stand_in_a_narrow_window_too(width: int):
    clock = Clock()
    progress = Progress(terminal(width), clock)
    jobs = ["statistics", "pools", "confirmation_trials", "confirmation", "ledger", "report"]
    progress.run("demo", jobs)
    for job in jobs[:2]:
        progress.job_done(job)
    progress.stage("confirmation_trials", total=54)
    told = {"running": 2, "held": 12, "stopped": 4, "failed": 1}
    best = "image_text_similarity/high at 8,064 samples"
    progress.update(done=20, **told, best=best, left=lambda now: 300 - (now - 1000))
    clock.now += 200
    title, stages, bar, counts, leader, left, _ = panel(progress, width)
    assert title == "demo, 3 min"
    assert stages.startswith("stages")
    assert "━━━" in stages
    assert "2 of 6 done, then confirmation" in stages
    assert bar.startswith("confirmation_trials ━━━")
    assert bar.endswith("20 of 54 done")
    assert counts == "2 running, 12 waiting at a rung, 20 to come, 4 given up, 1 failed"
    assert leader == f"best so far: {best}"
    assert left == "about 2 min left of this stage"


def test_the_panel_counts_down_and_asks_no_more_than_once_a_second():
    clock, asked = Clock(), []
    progress = Progress(terminal(), clock)
    progress.stage("trials", total=4)

    def left(now: float) -> float:
        asked.append(now)
        return 60 - (now - 1000)

    progress.update(done=1, left=left)
    seen = []
    for _ in range(4):
        seen.append(panel(progress, 80)[-2])
        clock.now += 0.5
    assert asked == [1000, 1001]
    assert seen == ["about 60 s left of this stage"] * 2 + ["about 59 s left of this stage"] * 2


def test_a_stage_of_unknown_length_shows_that_it_is_at_work():
    progress = Progress(terminal())
    assert panel(progress, 80) == [""]
    progress.stage("ingest")
    assert panel(progress, 80)[1].endswith("at work")
    progress.update(done=12_000)
    assert panel(progress, 80)[1].endswith("12,000 done")


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

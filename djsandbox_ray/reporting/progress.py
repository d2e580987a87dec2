"""How far long work is: a live panel on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

PLAIN_SECONDS = 5.0
"""Between two lines of a log, at first."""
PLAIN_SHARE = 0.05
"""The longer a stage lasts, the rarer its lines: a night's stage is some hundred of them."""
LONGEST_PLAIN_SECONDS = 300.0
_REFRESHED = 4
"""Times a second that the panel is drawn."""
_ASKED = 1.0
"""Seconds between two questions how long it takes yet."""
_BAR = 20
"""Characters of a bar."""

TimeLeft = Callable[[float], float | None]
"""Returns the seconds that are left at a time of the clock; None where nobody knows."""


@dataclass
class _Stage:
    """Where a stage stands."""

    name: str
    total: int | None
    done: int = 0
    running: int = 0
    held: int = 0
    failed: int = 0
    best: str | None = None
    waiting: str = ""
    stopped: int = 0
    left: TimeLeft | None = None
    since: float = 0.0
    """When."""
    first: tuple[int, float] | None = None
    """What was done at the first update, and when: found done already, perhaps."""

    @property
    def counts(self) -> str:
        """How many are in which state, but for those that are done."""
        told = [(self.running, "running"), (self.held, "waiting at a rung")]
        if self.total is not None and (self.running or self.held):
            told.append((self.total - self.done - self.running - self.held, "to come"))
        told += [(self.stopped, "given up"), (self.failed, "failed")]
        return ", ".join(f"{count:,} {what}" for count, what in told if count)

    def status(self, now: float) -> str:
        """Return all of it but the name, in words; nothing if there is nothing to count yet."""
        parts = []
        if self.total is not None:
            parts.append(f"{self.done}/{self.total} done")
        elif self.done:
            parts.append(f"{self.done} done")
        parts.append(self.counts)
        if self.waiting:
            parts.append(f"waiting for {self.waiting}")
        if self.best is not None:
            parts.append(f"best {self.best}")
        if (left := self.seconds_left(now)) is not None:
            parts.append(f"about {rough_duration(left)} left")
        return ", ".join(filter(None, parts))

    def seconds_left(self, now: float) -> float | None:
        """Return what the stage knows of it, or else the mean pace since the first update."""
        if self.total is None or self.first is None or self.done >= self.total:
            return None
        if self.left is not None:
            return self.left(now)
        found, since = self.first
        if self.done <= found:
            return None
        return (now - since) / (self.done - found) * (self.total - self.done)


class Progress:
    """Shows the stages of a run one after another.

    Args:
        console: where to; a live panel if it is a terminal, else one line of text at the begin and
            end of each stage and now and then in between.
        clock: seconds, for the pace.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._begun = clock()
        self._title = ""
        self._jobs: list[str] = []
        """Not done yet, in order."""
        self._done = 0
        self._stage: _Stage | None = None
        self._shown = ""
        self._shown_at = 0.0
        self._left: tuple[float, float | None] = (0.0, None)
        """What was answered last, and when."""
        self._spinner = Spinner("dots")
        self._live: Live | None = None
        # A quiet one shows nothing, and would swallow what others print.
        if console.is_interactive and not console.quiet:
            self._live = Live(
                console=console,
                get_renderable=self.panel,
                refresh_per_second=_REFRESHED,
                transient=True,  # what is to stay are the notes
            )

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start(refresh=True)
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
        if self._live:
            self._live.stop()

    def run(self, title: str, jobs: Sequence[str]) -> None:
        """Say which run it is, and which jobs it has: the panel shows how many are done.

        Args:
            title: of the run.
            jobs: in order.
        """
        self._title, self._jobs, self._done = title, list(jobs), 0

    def job_done(self, job: str) -> None:
        """Count a job of the run as done."""
        self._jobs.remove(job)
        self._done += 1

    def stage(self, name: str, total: int | None = None) -> None:
        """Begin a stage; the one before has ended.

        Args:
            name: shown before everything.
            total: how many things there are to do, if that is known.
        """
        self.close()
        self._stage = _Stage(name, total, since=self._clock())
        self._show(always=True)

    def update(
        self,
        *,
        done: int | None = None,
        running: int | None = None,
        held: int | None = None,
        failed: int | None = None,
        best: str | None = None,
        total: int | None = None,
        waiting: str | None = None,
        stopped: int | None = None,
        left: TimeLeft | None = None,
    ) -> None:
        """Say where the stage stands; what is left out stays as it was.

        Args:
            done: ended, well or not.
            running: at work now.
            held: begun, and waiting at a rung until it is decided.
            failed: of those that are done.
            best: what leads so far.
            total: how many there are.
            waiting: what the stage cannot go on without, as others use it: ``4 CPUs (1.5 free)``;
                empty once it goes on.
            stopped: given up early; they are among those that are done.
            left: asked, by the clock, how many seconds are left; without it the pace of what was
                done tells. It may be asked in another thread.

        Raises:
            RuntimeError: no stage was begun.
        """
        stage = self._stage
        if stage is None:
            raise RuntimeError("no stage was begun")
        stage.done = stage.done if done is None else done
        stage.running = stage.running if running is None else running
        stage.held = stage.held if held is None else held
        stage.failed = stage.failed if failed is None else failed
        stage.best = stage.best if best is None else best
        stage.total = stage.total if total is None else total
        stage.waiting = stage.waiting if waiting is None else waiting
        stage.stopped = stage.stopped if stopped is None else stopped
        stage.left = stage.left if left is None else left
        stage.first = stage.first or (stage.done, self._clock())
        self._show(always=False)

    def note(self, text: str) -> None:
        """Show a line of text that stays."""
        self._console.print(Text(text), soft_wrap=True)

    def panel(self) -> RenderableType:
        """Return where everything stands, for a terminal; nothing before anything was begun."""
        stage, now = self._stage, self._clock()
        if stage is None and not self._title:
            return Text()
        bars = Table.grid(padding=(0, 1), expand=True)
        bars.add_column(no_wrap=True)
        bars.add_column(width=_BAR)
        bars.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        if self._title:
            count = self._done + len(self._jobs)
            then = f", then {', '.join(self._jobs[1:])}" if self._jobs[1:] else ""
            told = Text(f"{self._done} of {count} done{then}")
            bars.add_row("stages", ProgressBar(count, self._done, _BAR), told)
        lines: list[Text] = []
        if stage is not None:
            bars.add_row(Text(stage.name), *self._bar(stage))
            lines = self._lines(stage, now)
        past = rough_duration(now - self._begun)
        title = Text(f"{self._title}, {past}" if self._title else past)
        return Panel(Group(bars, *lines), title=title, title_align="left", border_style="dim")

    def _bar(self, stage: _Stage) -> tuple[RenderableType, Text]:
        """Return a bar of what is done, or what shows that something is, and that in words."""
        if stage.total is None:
            return self._spinner, Text(f"{stage.done:,} done" if stage.done else "at work")
        told = Text(f"{stage.done:,} of {stage.total:,} done")
        return ProgressBar(stage.total, stage.done, _BAR), told

    def _lines(self, stage: _Stage, now: float) -> list[Text]:
        """Return what else is known of a stage."""
        if now - self._left[0] >= _ASKED:
            self._left = (now, stage.seconds_left(now))
        left = self._left[1]
        told = [
            stage.counts,
            f"waiting for {stage.waiting}" if stage.waiting else "",
            f"best so far: {stage.best}" if stage.best is not None else "",
            f"about {rough_duration(left)} left of this stage" if left is not None else "",
        ]
        return [Text(line, no_wrap=True, overflow="ellipsis") for line in told if line]

    def _show(self, *, always: bool) -> None:
        stage, now = self._stage, self._clock()
        if stage is None or self._live:
            return
        pause = max(PLAIN_SECONDS, PLAIN_SHARE * (now - stage.since))
        if always or now - self._shown_at >= min(pause, LONGEST_PLAIN_SECONDS):
            self._say(stage, now)

    def _say(self, stage: _Stage, now: float) -> None:
        """Write where a stage stands, unless that was the last thing said."""
        status = stage.status(now)
        line = f"{stage.name}: {status}" if status else stage.name
        if line != self._shown:
            self._shown, self._shown_at = line, now
            self.note(line)

    def close(self) -> None:
        """End the stage, if there is one, with a last word on where it stood."""
        stage, self._stage, self._left = self._stage, None, (0.0, None)
        if stage is not None:
            self._say(stage, self._clock())


def rough_duration(seconds: float) -> str:
    """Return seconds as ``45 s``, ``12 min`` or ``3 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02} min"

"""How far long work is: a live line on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TaskID, TextColumn
from rich.progress import Progress as Live
from rich.table import Column
from rich.text import Text

PLAIN_SECONDS = 5.0
"""Between two lines of a log, at first."""
PLAIN_SHARE = 0.05
"""The longer a stage lasts, the rarer its lines: a night's stage is some hundred of them."""
LONGEST_PLAIN_SECONDS = 300.0
_ROOM_FOR_BAR = 120
"""Characters of a window in which a long bar leaves room for where a stage stands."""


@dataclass
class _Stage:
    """Where a stage stands."""

    name: str
    total: int | None
    done: int = 0
    running: int = 0
    failed: int = 0
    best: str | None = None
    waiting: str = ""
    begun: float = 0.0
    """Work in those that run, in units of a whole one."""
    stopped: int = 0
    since: float = 0.0
    """When."""
    first: tuple[float, float] | None = None
    """What was done at the first update, and when: found done already, perhaps."""

    def status(self, now: float) -> str:
        """Return all of it but the name, in words; nothing if there is nothing to count yet."""
        parts = []
        if self.total is not None:
            parts.append(f"{self.done}/{self.total} done")
        elif self.done:
            parts.append(f"{self.done} done")
        if self.running:
            parts.append(f"{self.running} running")
        if self.stopped:
            parts.append(f"{self.stopped} given up")
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.waiting:
            parts.append(f"waiting for {self.waiting}")
        if self.best is not None:
            parts.append(f"best {self.best}")
        if (left := self.seconds_left(now)) is not None:
            parts.append(f"about {rough_duration(left)} left")
        return ", ".join(parts)

    def seconds_left(self, now: float) -> float | None:
        """Estimate from the mean pace since the first update; None while there is none."""
        if self.total is None or self.first is None:
            return None
        found, since = self.first
        worked = self.done + self.begun
        if worked <= found or worked >= self.total:
            return None
        return (now - since) / (worked - found) * (self.total - worked)


class Progress:
    """Shows the stages of a run one after another.

    Args:
        console: where to; a live line if it is a terminal, else one line of text at the begin and
            end of each stage and now and then in between.
        clock: seconds, for the pace.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._stage: _Stage | None = None
        self._shown = ""
        self._shown_at = 0.0
        self._task: TaskID | None = None
        self._live: Live | None = None
        if console.is_interactive:
            self._live = Live(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                BarColumn(24 if console.width >= _ROOM_FOR_BAR else 10),
                # What has no room is cut: the bar stays.
                TextColumn(
                    "{task.fields[status]}",
                    markup=False,
                    table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
                ),
                console=console,
                expand=True,
            )

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
        if self._live:
            self._live.stop()

    def stage(self, name: str, total: int | None = None) -> None:
        """Begin a stage; the one before has ended.

        Args:
            name: shown before everything.
            total: how many things there are to do, if that is known.
        """
        self.close()
        self._stage = _Stage(name, total, since=self._clock())
        if self._live:
            self._task = self._live.add_task(name, total=total, status="")
        self._show(always=True)

    def update(
        self,
        *,
        done: int | None = None,
        running: int | None = None,
        failed: int | None = None,
        best: str | None = None,
        total: int | None = None,
        waiting: str | None = None,
        begun: float = 0.0,
        stopped: int | None = None,
    ) -> None:
        """Say where the stage stands; what is left out stays as it was.

        Args:
            done: ended, well or not.
            running: at work now.
            failed: of those that are done.
            best: what leads so far.
            total: how many there are.
            waiting: what the stage cannot go on without, as others use it: ``4 CPUs (1.5 free)``;
                empty once it goes on.
            begun: work done in those that run, in units of a whole one.
            stopped: given up early; they are among those that are done.

        Raises:
            RuntimeError: no stage was begun.
        """
        stage = self._stage
        if stage is None:
            raise RuntimeError("no stage was begun")
        stage.done = stage.done if done is None else done
        stage.running = stage.running if running is None else running
        stage.failed = stage.failed if failed is None else failed
        stage.best = stage.best if best is None else best
        stage.total = stage.total if total is None else total
        stage.waiting = stage.waiting if waiting is None else waiting
        stage.begun = begun
        stage.stopped = stage.stopped if stopped is None else stopped
        stage.first = stage.first or (stage.done + stage.begun, self._clock())
        self._show(always=False)

    def note(self, text: str) -> None:
        """Show a line of text that stays."""
        self._console.print(Text(text), soft_wrap=True)

    def _show(self, *, always: bool) -> None:
        stage, now = self._stage, self._clock()
        if stage is None:
            return
        status = stage.status(now)
        if self._live and self._task is not None:
            self._live.update(self._task, completed=stage.done, total=stage.total, status=status)
            return
        line = f"{stage.name}: {status}" if status else stage.name
        pause = max(PLAIN_SECONDS, PLAIN_SHARE * (now - stage.since))
        due = now - self._shown_at >= min(pause, LONGEST_PLAIN_SECONDS)
        if line != self._shown and (always or due):
            self._shown, self._shown_at = line, now
            self.note(line)

    def close(self) -> None:
        """End the stage, if there is one, with a last word on where it stood."""
        self._show(always=True)
        if self._live and self._task is not None:
            if self._stage and self._stage.total is None:  # else its bar would move for ever
                self._live.update(self._task, total=1, completed=1)
            self._live.stop_task(self._task)
        self._stage = self._task = None


def rough_duration(seconds: float) -> str:
    """Return seconds as ``45 s``, ``12 min`` or ``3 h 05 min``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02} min"

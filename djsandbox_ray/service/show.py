"""What is said about jobs: where one can be seen, how it ended, and the table of all."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterable, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from djsandbox_ray.reporting.progress import duration
from djsandbox_ray.service.jobs import Job, Jobs

_ENDINGS = {"SUCCEEDED": "is done", "FAILED": "has failed", "STOPPED": "was stopped"}
_STYLES = {"RUNNING": "green", "FAILED": "bold magenta", "STOPPED": "dim", "SUCCEEDED": "dim"}


def links(jobs: Jobs, job: Job) -> list[str]:
    """Say where a job can be watched, one line each."""
    found = [f"Ray dashboard: {jobs.shown}/#/jobs/{job.id}"]
    if job.tracking:
        found.append(f"MLflow: {job.tracking}")
    return found


def attached(jobs: Jobs, job: Job) -> list[str]:
    """Say how a job that goes on by itself is reached, one line each."""
    options = f"{shlex.quote(job.id)} --address {shlex.quote(jobs.shown)}"
    return [
        f"see it again: djsandbox logs {options} --follow",
        f"stop it:      djsandbox stop {options}",
    ]


def ending(job: Job) -> list[str]:
    """Say how a job ended, and what goes on with it, one line each."""
    took = f" after {duration(job.seconds)}" if job.seconds is not None else ""
    why = f": {job.reason}" if job.state == "FAILED" and job.reason else ""
    said = [f"{job.id} {_ENDINGS.get(job.state, f'is {job.state}')}{took}{why}"]
    if job.over and job.state != "SUCCEEDED" and job.exit_code == 1:
        again = f": {job.command}" if job.command else ""
        said.append(f"what is finished is kept; the same command resumes the run{again}")
    return said


def jobs_table(jobs: Sequence[Job]) -> Table:
    """Return the table of jobs, in the order given."""
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for name in ("id", "run", "state", "started (UTC)", "duration", "node", "message"):
        table.add_column(name, no_wrap=name == "id", overflow="fold")
    for job in jobs:
        table.add_row(*_cells(job))
    return table


def _cells(job: Job) -> Iterable[Text]:
    started = "-" if job.started is None else time.strftime("%F %T", time.gmtime(job.started))
    took = "-" if job.seconds is None else duration(job.seconds)
    yield Text(job.id)
    yield Text(job.run or "-")
    yield Text(job.state, _STYLES.get(job.state, ""))
    for cell in (started, took, job.node or "-", job.reason):
        yield Text(cell)

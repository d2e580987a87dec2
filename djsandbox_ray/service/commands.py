"""The commands for jobs on a cluster: submit, status, stop, logs; with what they say about a job.

Thin, as the other commands are, with which they share arguments and options. What talks to Ray is
imported where it is needed: importing Ray takes seconds.
"""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from djsandbox_ray.errors import SandboxError
from djsandbox_ray.reporting.progress import rough_duration
from djsandbox_ray.service.dashboard import EXAMPLE, find_address

if TYPE_CHECKING:
    from djsandbox_ray.service.cluster_jobs import ClusterJob, ClusterJobs

DETACHED = 130
"""The exit code after Ctrl-C: how the job will end is not known."""
_ENDINGS = {"SUCCEEDED": "is done", "FAILED": "has failed", "STOPPED": "was stopped"}
_STYLES = {"RUNNING": "green", "FAILED": "bold magenta", "STOPPED": "dim", "SUCCEEDED": "dim"}

ConfigPath = Annotated[str, typer.Argument(help="The YAML configuration of the run.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Replace one value, e.g. trials.seeds=5."),
]
StorageUrl = Annotated[
    str | None, typer.Option("--storage", help="Folder or URL for artifacts, over the config's.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]
OverBudget = Annotated[
    bool, typer.Option("--over-budget", help="Allow more than the section `cost` does.")
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="URL",
        help=f"The Ray dashboard, {EXAMPLE}; else of RAY_API_SERVER_ADDRESS or RAY_ADDRESS.",
    ),
]
JobKey = Annotated[str, typer.Argument(metavar="ID", help="A job, or a run: its newest job.")]


def submit(
    config: ConfigPath,
    address: Address = None,
    overrides: Overrides = None,
    storage: StorageUrl = None,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Show the job's log until it is over.")
    ] = True,
    over_budget: OverBudget = False,
) -> None:
    """Run a configuration, or resume it, as a job of a Ray cluster elsewhere."""
    from djsandbox_ray.config import with_places
    from djsandbox_ray.service.cluster_jobs import ClusterJobs
    from djsandbox_ray.service.submit import prepare, submit_run

    with with_places(config, overrides or (), storage):
        submission = prepare(config, overrides or (), storage)
    jobs = ClusterJobs(find_address(address))
    command = ["djsandbox", *sys.argv[1:]]
    job = submit_run(jobs, submission, command, _say, over_budget=over_budget)
    _say(f"submitted {job.id}")
    if follow:
        _follow(jobs, job)
    else:
        _say(*links(jobs, job), *attached(jobs, job))


def status(
    key: Annotated[
        str | None, typer.Argument(metavar="[ID|RUN]", help="One job, or all jobs of one run.")
    ] = None,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """List the jobs of a cluster that are runs of the sandbox, the newest first."""
    from djsandbox_ray.service.cluster_jobs import ClusterJobs

    jobs = ClusterJobs(find_address(address))
    found = jobs.all() if key is None else jobs.matching(key)
    if as_json:
        typer.echo(json.dumps([asdict(job) for job in found], indent=2))
    elif found:
        Console(width=None if sys.stdout.isatty() else 120).print(jobs_table(found))
    else:
        _say(f"no jobs at {jobs.shown}")


def stop(key: JobKey, address: Address = None) -> None:
    """Stop a job; what is finished is kept, and submitting the same again resumes the run."""
    from djsandbox_ray.service.cluster_jobs import ClusterJobs
    from djsandbox_ray.service.submit import STOP_SECONDS

    jobs = ClusterJobs(find_address(address))
    job = jobs.get(key)
    if job.over:
        _say(f"{job.id} is over already: {job.state}")
    else:
        _say(*ending(jobs.stop(job, 2 * STOP_SECONDS)))


def logs(
    key: JobKey,
    address: Address = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on until the job is over; Ctrl-C detaches.")
    ] = False,
) -> None:
    """Show the log of a job; with `--follow`, end as the job does."""
    from djsandbox_ray.service.cluster_jobs import ClusterJobs, read_log

    jobs = ClusterJobs(find_address(address))
    job = jobs.get(key)
    if follow:
        _follow(jobs, job)
    else:
        _write(read_log(jobs, job))


def _follow(jobs: ClusterJobs, job: ClusterJob) -> None:
    """Show a job until it is over and end with its exit code."""
    from djsandbox_ray.service.cluster_jobs import follow

    _say(*links(jobs, job))
    try:
        job = follow(jobs, job, _write)
    except KeyboardInterrupt:
        _say("", f"detached: the job {job.id} goes on", *attached(jobs, job))
        raise typer.Exit(DETACHED) from None
    _say(*ending(job), *links(jobs, job))
    raise typer.Exit(job.exit_code or 0)


def _say(*lines: str) -> None:
    for line in lines:
        typer.echo(line)


def _write(text: str) -> None:
    typer.echo(text, nl=False)


def links(jobs: ClusterJobs, job: ClusterJob) -> list[str]:
    """Say where a job can be watched, one line each."""
    found = [f"Ray dashboard: {jobs.shown}/#/jobs/{job.id}"]
    if job.tracking:
        found.append(f"MLflow: {job.tracking}")
    return found


def attached(jobs: ClusterJobs, job: ClusterJob) -> list[str]:
    """Say how a job that goes on by itself is reached, one line each."""
    options = f"{shlex.quote(job.id)} --address {shlex.quote(jobs.shown)}"
    return [
        f"see it again: djsandbox logs {options} --follow",
        f"stop it:      djsandbox stop {options}",
    ]


def ending(job: ClusterJob) -> list[str]:
    """Say how a job ended, and what goes on with it, one line each."""
    took = f" after {rough_duration(job.seconds)}" if job.seconds is not None else ""
    why = f": {job.reason}" if job.state == "FAILED" and job.reason else ""
    said = [f"{job.id} {_ENDINGS.get(job.state, f'is {job.state}')}{took}{why}"]
    if job.over and job.state != "SUCCEEDED" and job.exit_code == SandboxError.exit_code:
        again = f": {job.command}" if job.command else ""
        said.append(f"what is finished is kept; the same command resumes the run{again}")
    return said


def jobs_table(jobs: Sequence[ClusterJob]) -> Table:
    """Return the table of jobs, in the order given."""
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    for name in ("id", "run", "state", "started (UTC)", "duration", "node", "message"):
        table.add_column(name, no_wrap=name == "id", overflow="fold")
    for job in jobs:
        table.add_row(*_cells(job))
    return table


def _cells(job: ClusterJob) -> Iterable[Text]:
    started = "-" if job.started is None else time.strftime("%F %T", time.gmtime(job.started))
    took = "-" if job.seconds is None else rough_duration(job.seconds)
    yield Text(job.id)
    yield Text(job.run or "-")
    yield Text(job.state, _STYLES.get(job.state, ""))
    for cell in (started, took, job.node or "-", job.reason):
        yield Text(cell)

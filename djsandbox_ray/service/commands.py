"""The commands for jobs on a cluster: submit, status, stop, logs. Thin, as the others are."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from djsandbox_ray.options import (
    Address,
    AsJson,
    ConfigPath,
    JobKey,
    OverBudget,
    Overrides,
    StorageUrl,
)

if TYPE_CHECKING:
    from djsandbox_ray.service.jobs import Job, Jobs

DETACHED = 130
"""The exit code after Ctrl-C: how the job will end is not known."""


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
    from djsandbox_ray.service.dashboard import find_address
    from djsandbox_ray.service.jobs import Jobs
    from djsandbox_ray.service.show import attached, links
    from djsandbox_ray.service.submit import prepare, submit_run

    submission = prepare(config, overrides or (), storage)
    jobs = Jobs(find_address(address))
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
    from djsandbox_ray.service.dashboard import find_address
    from djsandbox_ray.service.jobs import Jobs
    from djsandbox_ray.service.show import jobs_table

    jobs = Jobs(find_address(address))
    found = jobs.all() if key is None else jobs.matching(key)
    if as_json:
        typer.echo(json.dumps([asdict(job) for job in found], indent=2))
    elif found:
        Console(width=None if sys.stdout.isatty() else 120).print(jobs_table(found))
    else:
        _say(f"no jobs at {jobs.shown}")


def stop(key: JobKey, address: Address = None) -> None:
    """Stop a job; what is finished is kept, and submitting the same again resumes the run."""
    from djsandbox_ray.service.dashboard import find_address
    from djsandbox_ray.service.jobs import Jobs
    from djsandbox_ray.service.show import ending
    from djsandbox_ray.service.submit import STOP_SECONDS

    jobs = Jobs(find_address(address))
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
    from djsandbox_ray.service.dashboard import find_address
    from djsandbox_ray.service.follow import read_log
    from djsandbox_ray.service.jobs import Jobs

    jobs = Jobs(find_address(address))
    job = jobs.get(key)
    if follow:
        _follow(jobs, job)
    else:
        _write(read_log(jobs, job))


def _follow(jobs: Jobs, job: Job) -> None:
    """Show a job until it is over and end with its exit code."""
    from djsandbox_ray.service.follow import follow
    from djsandbox_ray.service.show import attached, ending, links

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

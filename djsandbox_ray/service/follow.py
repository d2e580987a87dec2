"""Shows the log of a job as it grows, until the job is over."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from aiohttp import ClientError

from djsandbox_ray.errors import SandboxError
from djsandbox_ray.service.jobs import ATTEMPTS, PAUSE, Job, Jobs

_WAITING = 60.0
"""Seconds between two lines on a job that has not started."""


def follow(jobs: Jobs, job: Job, write: Callable[[str], None]) -> Job:
    """Write the log of a job from its begin until the job is over; return how it stands then.

    A connection that breaks is taken up again where it was. Interrupting this leaves the job alone.

    Args:
        jobs: of the cluster.
        job: that one.
        write: takes pieces of text with their line breaks.

    Raises:
        SandboxError: the dashboard went away and did not come back.
    """
    job = _started(jobs, job, write)
    shown = failed = 0

    async def tail() -> None:
        nonlocal shown, failed
        seen = 0
        async for text in jobs.client.tail_job_logs(job.id):
            fresh = text[max(shown - seen, 0) :]
            seen += len(text)
            shown, failed = max(shown, seen), 0
            write(fresh)

    while True:
        try:
            asyncio.run(tail())  # ends when there is no more to come
            job = jobs.look(job)
            if job.over:
                return job
        except (ClientError, OSError, RuntimeError) as error:
            if job.over:
                write(f"the rest of the log cannot be read: {error}\n")
                return job
            failed += 1
            if failed >= ATTEMPTS:
                raise SandboxError(
                    f"the log of {job.id} cannot be read from {jobs.shown} any more: {error}; the "
                    "job itself may go on"
                ) from error
        time.sleep(PAUSE)


def read_log(jobs: Jobs, job: Job) -> str:
    """Return what a job has written so far.

    Raises:
        SandboxError: the node that has the log does not give it.
    """
    try:
        return jobs.client.get_job_logs(job.id)
    except (OSError, RuntimeError) as error:
        raise SandboxError(f"the log of {job.id} cannot be read: {error}") from error


def _started(jobs: Jobs, job: Job, write: Callable[[str], None]) -> Job:
    """Wait until a job is not pending any more."""
    said = -_WAITING
    while job.state == "PENDING":
        if time.monotonic() - said >= _WAITING:
            said = time.monotonic()
            write(f"{job.id} waits to be started: {job.reason}\n")
        time.sleep(PAUSE)
        job = jobs.look(job)
    return job

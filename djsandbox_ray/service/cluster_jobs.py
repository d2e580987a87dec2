"""The jobs of a cluster that are runs of the sandbox, as its dashboard knows them; their logs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar
from urllib.parse import urlsplit

from aiohttp import ClientError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from djsandbox_ray.errors import BadInput, PlanRefused, SandboxError
from djsandbox_ray.masking import without_secrets
from djsandbox_ray.service.dashboard import connect_dashboard

PAUSE = 1.0
"""Seconds between two looks."""
ATTEMPTS = 30
"""How often in a row a connection that broke is tried again."""
_WAITING = 60.0
"""Seconds between two lines on a job that has not started."""
_LISTED = 20

T = TypeVar("T")


@dataclass(frozen=True)
class ClusterJob:
    """A run as a Ray job."""

    id: str
    """Ray's submission id."""
    run: str | None
    """Its name; None of a job that ``djsandbox submit`` did not make, as for the next four."""
    storage: str | None
    user: str | None
    config: str | None
    """The hash of its configuration."""
    tracking: str | None
    """Where or how its tracker is seen."""
    command: str | None
    """That submits it, or what is left of it, again."""
    state: str
    """PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""
    started: float | None
    """Seconds since the epoch."""
    seconds: float | None
    """How long it ran, or has been running."""
    message: str
    """Ray's, with the end of the log where it failed."""
    node: str | None
    """Host of the driver."""
    exit_code: int | None
    """Of the run, as ``djsandbox run`` would have ended here; None while it is not over."""

    @classmethod
    def of(cls, details: JobDetails) -> ClusterJob:
        """Read Ray's record of a job."""
        known = details.metadata or {}
        began, ended = details.start_time, details.end_time
        until = ended / 1000 if ended else time.time()
        agent = details.driver_agent_http_address
        return cls(
            id=str(details.submission_id),
            run=known.get("run"),
            storage=known.get("storage"),
            user=known.get("user"),
            config=known.get("config"),
            tracking=known.get("tracking"),
            command=known.get("command"),
            state=details.status.value,
            started=began / 1000 if began else None,
            seconds=round(max(until - began / 1000, 0), 1) if began else None,
            message=without_secrets(details.message or ""),
            node=urlsplit(agent).hostname if agent else None,
            exit_code=_exit_code(details),
        )

    @property
    def over(self) -> bool:
        """Whether it has ended, well or not."""
        return JobStatus(self.state).is_terminal()

    @property
    def reason(self) -> str:
        """The message in one line: of a failed run, the error that it ended with."""
        lines = [line.strip() for line in self.message.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith("error: ")]
        return (errors or lines[-1:] or [""])[-1] if self.state == "FAILED" else "".join(lines[:1])


class ClusterJobs:
    """What a cluster has of such jobs.

    Args:
        address: of the dashboard.

    Raises:
        BadInput: no dashboard answers there.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.client: JobSubmissionClient = connect_dashboard(address)

    def all(self) -> list[ClusterJob]:
        """Return all, the newest first.

        Raises:
            SandboxError: the dashboard went away and did not come back; as for all methods here.
        """
        known = self._asked(self.client.list_jobs)
        ours = [ClusterJob.of(item) for item in known if _is_ours(item)]
        return sorted(ours, key=lambda job: job.started or 0, reverse=True)

    def get(self, key: str) -> ClusterJob:
        """Return a job by its id, or the newest of a run by the run's name.

        Raises:
            BadInput: there is none; lists those there are.
        """
        return self.matching(key)[0]

    def matching(self, key: str) -> list[ClusterJob]:
        """Return the job with that id, or all of a run, the newest first.

        Raises:
            BadInput: there is none; lists those there are.
        """
        known = self.all()
        named = [job for job in known if job.id == key] or [job for job in known if job.run == key]
        if named:
            return named
        listed = ", ".join(job.id for job in known[:_LISTED]) or "none"
        more = f" and {len(known) - _LISTED} older ones" if len(known) > _LISTED else ""
        raise BadInput(f"no job or run {key!r} at {self.shown} (there are: {listed}{more})")

    def look(self, job: ClusterJob) -> ClusterJob:
        """Return how a job stands now."""
        return ClusterJob.of(self._asked(lambda: self.client.get_job_info(job.id)))

    def running(self, run: str, storage: str) -> ClusterJob | None:
        """Return the job that runs, or is about to run, a run of that name in that storage."""
        same = [job for job in self.all() if (job.run, job.storage) == (run, storage)]
        return next((job for job in same if not job.over), None)

    def stop(self, job: ClusterJob, patience: float) -> ClusterJob:
        """Have a job stopped, by SIGTERM, and wait until it is over.

        Args:
            job: that one; nothing is done if it is over.
            patience: seconds to wait.

        Raises:
            SandboxError: it is not over after that time.
        """
        self._asked(lambda: self.client.stop_job(job.id))
        deadline = time.monotonic() + patience
        while not (job := self.look(job)).over:
            if time.monotonic() > deadline:
                raise SandboxError(f"{job.id} is still {job.state} after {patience:g} s")
            time.sleep(0.3)
        return job

    @property
    def shown(self) -> str:
        """The address as it may be printed."""
        return without_secrets(self.address)

    def _asked(self, call: Callable[[], T]) -> T:
        """Return the dashboard's answer to what may be asked twice."""
        failed = 0
        while True:
            try:
                return call()
            except (OSError, RuntimeError) as error:
                failed += 1
                if failed >= ATTEMPTS:
                    raise SandboxError(
                        f"the dashboard at {self.shown} does not answer any more: {error}; its "
                        "jobs may go on"
                    ) from error
            time.sleep(PAUSE)


def _is_ours(details: JobDetails) -> bool:
    """Tell runs from other jobs; also those that ``ray job submit`` has made."""
    if details.submission_id is None:
        return False
    return "run" in (details.metadata or {}) or _runs_us(details.entrypoint.split())


def _runs_us(words: Sequence[str]) -> bool:
    names = [word.rsplit("/", 1)[-1] for word in words]
    return any(
        name.startswith("djsandbox") and word == "run"
        for name, word in zip(names, words[1:], strict=False)
    )


def _exit_code(details: JobDetails) -> int | None:
    if not details.status.is_terminal():
        return None
    if details.status is JobStatus.SUCCEEDED:
        return 0
    code = details.driver_exit_code
    known = {kind.exit_code for kind in (SandboxError, BadInput, PlanRefused)}
    return code if code in known else SandboxError.exit_code  # it does not say why it ended


def follow(jobs: ClusterJobs, job: ClusterJob, write: Callable[[str], None]) -> ClusterJob:
    """Write the log of a job from its begin until the job is over; return how it stands then.

    A connection that breaks is taken up again where it was. Interrupting this leaves the job alone.

    Args:
        jobs: of the cluster.
        job: that one.
        write: takes pieces of text with their line breaks.

    Raises:
        SandboxError: the dashboard went away and did not come back.
        Exception: what ``write`` has raised.
    """
    job = _started(jobs, job, write)
    shown = failed = 0
    unwritten: Exception | None = None

    async def tail() -> None:
        nonlocal shown, failed, unwritten
        seen = 0
        async for text in jobs.client.tail_job_logs(job.id):
            fresh = text[max(shown - seen, 0) :]
            seen += len(text)
            shown, failed = max(shown, seen), 0
            try:
                write(fresh)
            except Exception as error:
                unwritten = error
                raise

    while True:
        try:
            asyncio.run(tail())  # ends when there is no more to come
            job = jobs.look(job)
            if job.over:
                return job
        except (ClientError, OSError, RuntimeError) as error:
            if error is unwritten:  # a closed pipe or a full disk of ours: no connection broke
                raise
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


def read_log(jobs: ClusterJobs, job: ClusterJob) -> str:
    """Return what a job has written so far.

    Raises:
        SandboxError: the node that has the log does not give it.
    """
    try:
        return jobs.client.get_job_logs(job.id)
    except (OSError, RuntimeError) as error:
        raise SandboxError(f"the log of {job.id} cannot be read: {error}") from error


def _started(jobs: ClusterJobs, job: ClusterJob, write: Callable[[str], None]) -> ClusterJob:
    """Wait until a job is not pending any more."""
    said = -_WAITING
    while job.state == "PENDING":
        if time.monotonic() - said >= _WAITING:
            said = time.monotonic()
            write(f"{job.id} waits to be started: {job.reason}\n")
        time.sleep(PAUSE)
        job = jobs.look(job)
    return job

"""Ray's records of jobs, read; the lists and the table are those of real jobs in integration/."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from typing import Any, ClassVar, cast

import pytest
from ray.job_submission import JobDetails, JobStatus, JobType
from rich.console import Console

from djsandbox_ray.errors import SandboxError
from djsandbox_ray.service import cluster_jobs
from djsandbox_ray.service.cluster_jobs import ClusterJob, ClusterJobs
from djsandbox_ray.service.commands import ending, jobs_table


def details(**changes: Any) -> JobDetails:
    record = {
        "type": JobType.SUBMISSION,
        "submission_id": "demo-1",
        "status": JobStatus.RUNNING,
        "entrypoint": "exec python -m djsandbox_ray run demo.yaml",
        "start_time": 1_000_000,
        "metadata": {"run": "demo", "command": "djsandbox submit demo.yaml"},
    }
    return JobDetails(**{**record, **changes})


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (JobStatus.PENDING, None, None),
        (JobStatus.RUNNING, None, None),
        (JobStatus.SUCCEEDED, 0, 0),
        (JobStatus.FAILED, 1, 1),
        (JobStatus.FAILED, 2, 2),
        (JobStatus.FAILED, 3, 3),
        (JobStatus.FAILED, -9, 1),
        (JobStatus.FAILED, None, 1),
        (JobStatus.STOPPED, None, 1),
    ],
)
def test_exit_codes_are_those_of_the_run(
    status: JobStatus, code: int | None, expected: int | None
) -> None:
    job = ClusterJob.of(details(status=status, driver_exit_code=code))
    assert (job.exit_code, job.over) == (expected, expected is not None)


def test_the_reason_is_the_error_that_the_log_ends_with() -> None:
    message = "Job entrypoint command failed with exit code 1, last available logs:\nnoise: 1/2\n"
    message += "error: the first\nerror: s3://user:secret@host is away\n  at all\n"
    job = ClusterJob.of(details(status=JobStatus.FAILED, message=message, end_time=1_090_000))
    assert job.reason == "error: s3://***@host is away"
    assert job.seconds == 90
    killed = details(status=JobStatus.FAILED, message="Killed.\n", end_time=1_090_000)
    assert ending(ClusterJob.of(killed)) == [
        "demo-1 has failed after 2 min: Killed.",
        "what is finished is kept; the same command resumes the run: djsandbox submit demo.yaml",
    ]


def test_bad_input_is_not_resumed_by_the_same_command() -> None:
    assert len(ending(ClusterJob.of(details(status=JobStatus.FAILED, driver_exit_code=2)))) == 1


def test_a_job_that_others_made_has_gaps_in_the_table() -> None:
    job = ClusterJob.of(
        details(metadata=None, start_time=None, status=JobStatus.PENDING, message="[x]")
    )
    console = Console(file=StringIO(), width=120)
    console.print(jobs_table([job]))
    assert console.file.getvalue().split()[-7:] == ["demo-1", "-", "PENDING", "-", "-", "-", "[x]"]


class Shaky(BaseHTTPRequestHandler):
    """A dashboard that breaks off as many calls as it is told to."""

    record: ClassVar[dict[str, Any]] = {
        **vars(details()),
        "type": "SUBMISSION",
        "status": "RUNNING",
    }
    broken = 0
    refused = 0

    def do_GET(self) -> None:
        kind = type(self)
        if self.path.startswith("/api/version"):
            self._answer(200, {"version": "4", "ray_version": "2.55.1", "ray_commit": ""})
        elif kind.broken:
            kind.broken -= 1  # the connection is closed without an answer
        elif kind.refused:
            kind.refused -= 1
            self._answer(500, "no agent")
        else:
            self._answer(200, [self.record] if self.path == "/api/jobs/" else self.record)

    def do_POST(self) -> None:
        type(self).record = {**self.record, "status": "STOPPED"}
        self.do_GET() if self.broken or self.refused else self._answer(200, {"stopped": True})

    def _answer(self, code: int, content: Any) -> None:
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(content, default=str).encode())

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def shaky(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[type[Shaky], ClusterJobs]]:
    monkeypatch.setattr(cluster_jobs, "PAUSE", 0.0)
    handler = type("Handler", (Shaky,), {})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield handler, ClusterJobs(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("changes", "ours"),
    [
        ({}, True),
        ({"metadata": {}}, True),
        ({"metadata": None, "entrypoint": "/opt/bin/djsandbox run x.yaml"}, True),
        ({"metadata": None, "entrypoint": "djsandbox plan x.yaml"}, False),
        ({"metadata": {}, "entrypoint": "python train.py"}, False),
        ({"submission_id": None, "type": "DRIVER"}, False),
    ],
)
def test_only_runs_of_the_sandbox_are_listed(
    shaky: tuple[type[Shaky], ClusterJobs], changes: dict[str, Any], ours: bool
) -> None:
    handler, known = shaky
    handler.record = {**Shaky.record, **changes}
    assert len(known.all()) == ours


ASKING: list[Callable[[ClusterJobs, ClusterJob], object]] = [
    lambda jobs, job: jobs.all(),
    lambda jobs, job: jobs.look(job),
    lambda jobs, job: jobs.stop(job, 5),
    lambda jobs, job: cluster_jobs._started(jobs, replace(job, state="PENDING"), lambda text: None),
]


@pytest.mark.parametrize("ask", ASKING, ids=["all", "look", "stop", "follow"])
def test_a_connection_that_breaks_is_taken_up_again(
    shaky: tuple[type[Shaky], ClusterJobs], ask: Callable[[ClusterJobs, ClusterJob], object]
) -> None:
    handler, known = shaky
    (job,) = known.all()
    assert job.id == "demo-1"
    handler.broken, handler.refused = 2, 2
    ask(known, job)
    assert (handler.broken, handler.refused) == (0, 0)
    handler.broken = 10 * cluster_jobs.ATTEMPTS
    with pytest.raises(SandboxError, match=r"http://127\.0\.0\.1:.* does not answer any more"):
        ask(known, job)


class Telling:
    """What :func:`follow` asks of a cluster: a job that prints and goes on."""

    shown = "http://here"

    def __init__(self, breaks: int) -> None:
        self.client, self._breaks, self.asked = self, breaks, 0

    async def tail_job_logs(self, id: str) -> AsyncIterator[str]:
        self.asked += 1
        yield "one\n"
        if self.asked <= self._breaks:
            raise ConnectionError("reset by peer")
        yield "two\n"

    def look(self, job: ClusterJob) -> ClusterJob:
        return replace(job, state="SUCCEEDED")


def test_a_log_goes_on_where_its_connection_broke(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster_jobs, "PAUSE", 0.0)
    told: list[str] = []
    cluster = Telling(breaks=2)
    cluster_jobs.follow(cast(ClusterJobs, cluster), ClusterJob.of(details()), told.append)
    assert "".join(told) == "one\ntwo\n"
    assert cluster.asked == 3


def test_who_cannot_write_does_not_ask_for_the_log_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``| head``, which has seen enough, and a full disk."""
    monkeypatch.setattr(cluster_jobs, "PAUSE", 0.0)
    cluster = Telling(breaks=0)

    def write(text: str) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        cluster_jobs.follow(cast(ClusterJobs, cluster), ClusterJob.of(details()), write)
    assert cluster.asked == 1

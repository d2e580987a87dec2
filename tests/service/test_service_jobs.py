"""Ray's records of jobs, read; the lists and the table are those of real jobs in integration/."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from ray.job_submission import JobDetails, JobStatus, JobType
from rich.console import Console

from djsandbox_ray.service.jobs import Job, _is_ours
from djsandbox_ray.service.show import ending, jobs_table


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
    job = Job.of(details(status=status, driver_exit_code=code))
    assert (job.exit_code, job.over) == (expected, expected is not None)


def test_the_reason_is_the_error_that_the_log_ends_with() -> None:
    message = "Job entrypoint command failed with exit code 1, last available logs:\nnoise: 1/2\n"
    message += "error: the first\nerror: s3://user:secret@host is away\n  at all\n"
    job = Job.of(details(status=JobStatus.FAILED, message=message, end_time=1_090_000))
    assert job.reason == "error: s3://***@host is away"
    assert job.seconds == 90
    killed = details(status=JobStatus.FAILED, message="Killed.\n", end_time=1_090_000)
    assert ending(Job.of(killed)) == [
        "demo-1 has failed after 2 min: Killed.",
        "what is finished is kept; the same command resumes the run: djsandbox submit demo.yaml",
    ]


def test_bad_input_is_not_resumed_by_the_same_command() -> None:
    assert len(ending(Job.of(details(status=JobStatus.FAILED, driver_exit_code=2)))) == 1


@pytest.mark.parametrize(
    ("changes", "ours"),
    [
        ({}, True),
        ({"metadata": {}}, True),
        ({"metadata": None, "entrypoint": "/opt/bin/djsandbox run x.yaml"}, True),
        ({"metadata": None, "entrypoint": "djsandbox plan x.yaml"}, False),
        ({"metadata": {}, "entrypoint": "python train.py"}, False),
        ({"submission_id": None, "type": JobType.DRIVER}, False),
    ],
)
def test_only_runs_of_the_sandbox_are_listed(changes: dict[str, Any], ours: bool) -> None:
    assert _is_ours(details(**changes)) is ours


def test_a_job_that_others_made_has_gaps_in_the_table() -> None:
    job = Job.of(details(metadata=None, start_time=None, status=JobStatus.PENDING, message="[x]"))
    console = Console(file=StringIO(), width=120)
    console.print(jobs_table([job]))
    assert console.file.getvalue().split()[-7:] == ["demo-1", "-", "PENDING", "-", "-", "-", "[x]"]

"""The one loop that runs a workflow: job by job, each skipped when its artifact is there.

A job's artifact id stands for its hook and the ``VERSION`` of its code, the part of the
configuration the hook depends on, the ids of the records that it takes and its parameters. The
completion marker ``jobs/<job>.json`` in the folder of the round (``runs/<name>/``, for later rounds
``round-<n>/`` in it) holds that id and the output; it is written last, so that a killed job is run
again. What every job cost is kept in ``costs.json`` beside it.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import Any

from pydantic import TypeAdapter

from djsandbox_ray.errors import SandboxError
from djsandbox_ray.hooks.hook import HOOKS, Context
from djsandbox_ray.identity import content_id
from djsandbox_ray.settings.code import codes_in, version_of
from djsandbox_ray.telemetry import metrics
from djsandbox_ray.telemetry.events import event
from djsandbox_ray.workflows.language.jobs import Job, Workflow
from djsandbox_ray.workflows.language.parameters import Arguments, as_data, output_type, resolve

_TRACEBACK = 8000
"""Characters of a traceback in an event, the last ones."""


def run_workflow(
    workflow: Workflow, context: Context, on_output: Callable[[Any], None]
) -> dict[str, Any]:
    """Run every job that is not done and return all outputs by job id.

    Args:
        workflow: the checked job list.
        context: what hooks work with.
        on_output: called with every output, of jobs that were done before too.
    """
    outputs: dict[str, Any] = {}
    for job in workflow.jobs:
        outputs[job.id] = _run_job(job, workflow, context, outputs)
        on_output(outputs[job.id])
    return outputs


def finished_jobs(workflow: Workflow, context: Context) -> dict[str, Any]:
    """Return the outputs of the leading jobs that are done, without running anything."""
    outputs: dict[str, Any] = {}
    for job in workflow.jobs:
        if any(reference.job not in outputs for reference in job.references.values()):
            continue
        found, output = _load(job, context, _artifact(job, context, resolve(job, outputs)))
        if found:
            outputs[job.id] = output
    return outputs


def _run_job(job: Job, workflow: Workflow, context: Context, outputs: dict[str, Any]) -> Any:
    arguments = resolve(job, outputs)
    artifact = _artifact(job, context, arguments)
    found, output = _load(job, context, artifact)
    if found:
        context.progress.note(f"{job.id}: done before ({artifact})")
        event("job_skipped", stage=job.id, artifact=artifact)
        return output
    # From here on the files of this job change: an old marker would speak of what is gone.
    context.storage.remove(_marker(job, context))
    start = time.monotonic()
    kind = HOOKS.get(job.hook)
    hook = kind(context)
    event("job_begun", stage=job.id, hook=job.hook, artifact=artifact)
    with _failures_told(job):
        output = hook.run(**arguments.values)
    if not isinstance(output, output_type(kind)):
        raise SandboxError(
            f"{job.id}: hook {job.hook!r} returned a {type(output).__name__}, "
            "which the annotation of its run does not allow"
        )
    seconds = round(time.monotonic() - start, 1)
    cost = replace(hook.spent, stage=job.id, wall_seconds=seconds)
    noted = {"artifact": artifact, "hook": job.hook, **asdict(cost)}
    _keep_cost(workflow, job, context, noted)
    record = {
        "artifact": artifact,
        "seconds": seconds,
        "output": as_data(output),
    }
    kept = hook.keep(output)
    if kept:
        context.storage.write_json(_marker(job, context), record)
    event("job_done", stage=job.id, seconds=seconds, kept=kept)
    metrics.JOB_SECONDS.set(seconds, stage=job.id)
    context.progress.close()
    context.progress.note(f"{job.id}: done in {seconds:g} s")
    return output


@contextmanager
def _failures_told(job: Job) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
        trace = traceback.format_exc()[-_TRACEBACK:]
        event("job_failed", level=logging.ERROR, stage=job.id, error=reason, traceback=trace)
        raise


def _keep_cost(workflow: Workflow, job: Job, context: Context, cost: dict[str, Any]) -> None:
    """Keep what a job cost, with the wall time of earlier endings of the same artifact."""
    path = f"{context.folder}/costs.json"
    known = context.storage.read_json(path) if context.storage.exists(path) else {}
    earlier = known.get(job.id)
    if earlier is not None and earlier["artifact"] == cost["artifact"]:
        cost["wall_seconds"] = round(cost["wall_seconds"] + earlier["wall_seconds"], 1)
    known[job.id] = cost
    kept = {item.id: known[item.id] for item in workflow.jobs if item.id in known}
    context.storage.write_json(path, kept)


def _artifact(job: Job, context: Context, arguments: Arguments) -> str:
    kind = HOOKS.get(job.hook)
    identity = [version_of(kind), kind(context).identity()]
    codes = codes_in(arguments.settings)  # none where no class of a user is named
    return content_id(job.id, job.hook, identity, arguments.records, arguments.settings, *codes)


def _load(job: Job, context: Context, artifact: str) -> tuple[bool, Any]:
    """Return whether the job is done, and its output."""
    path = _marker(job, context)
    if not context.storage.exists(path):
        return False, None
    kind = TypeAdapter(output_type(HOOKS.get(job.hook)))
    try:
        marker = context.storage.read_json(path)
        if marker["artifact"] != artifact:
            return False, None
        return True, kind.validate_python(marker["output"])
    except (ValueError, KeyError, TypeError):  # not of this version: the job is run again
        return False, None


def _marker(job: Job, context: Context) -> str:
    return f"{context.folder}/jobs/{job.id}.json"

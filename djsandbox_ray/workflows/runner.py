"""The one loop that runs a workflow: job by job, each skipped when its artifact is there.

A job's artifact id stands for its hook and the ``VERSION`` of its code, the part of the
configuration the hook depends on, the ids of the records that it takes and its parameters. The
completion marker ``jobs/<job>.json`` in the folder of the round (``runs/<name>/``, for later rounds
``round-<n>/`` in it) holds that id and the output; it is written last, so that a killed job is run
again. What every job cost is kept in its marker, and of all jobs in ``costs.json``.

A marker proves that a job ran, not that its files are whole: it holds size and digest of each, and
a job whose files are not as it wrote them is run again. So is the job that made a file which turns
out to be damaged when a later job reads it. What was there is set aside, not thrown away.
"""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import chain, count
from typing import Any

from pydantic import TypeAdapter

from djsandbox_ray.errors import Damaged, Missing, SandboxError
from djsandbox_ray.hooks.hook import HOOKS, Context
from djsandbox_ray.identity import content_id
from djsandbox_ray.records import Cost
from djsandbox_ray.settings.code import codes_in, version_of
from djsandbox_ray.storage.seals import (
    Seal,
    broken,
    seals_from_json,
    seals_of,
    seals_to_json,
    shortened,
)
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
    mended: set[str] = set()
    while True:
        _mend_costs(workflow, context)
        try:
            return _run_jobs(workflow, context, on_output)
        except Damaged as error:
            # Once per file: what is damaged again as soon as it was made has another cause.
            if error.path in mended or not _made_by_jobs(error.path, context):
                raise
            context.check()  # else it may be what a successor is writing
            mended.add(error.path)
            _warn(context, None, f"{error.what}: it is made anew")
            _set_aside(context, error.path)


def _run_jobs(
    workflow: Workflow, context: Context, on_output: Callable[[Any], None]
) -> dict[str, Any]:
    outputs: dict[str, Any] = {}
    made: dict[str, _Done] = {}
    context.caveats.clear()
    context.progress.run(context.config.name, [job.id for job in workflow.jobs])
    for job in workflow.jobs:
        arguments = resolve(job, outputs)
        artifact = artifact_of(job, context, arguments)
        done = _load(job, context, artifact)
        if done is not None and not done.wrong:
            context.progress.note(f"{job.id}: done before ({artifact})")
            for line in done.caveats:
                context.progress.note(f"{job.id}: it was said: {line}")
            context.caveats.extend(done.caveats)
            event("job_skipped", stage=job.id, artifact=artifact)
        else:
            _clear(job, context, done)
            done = _run_job(job, workflow, context, artifact, arguments.values)
            _take_over(done.files.keys(), made, context)
        context.progress.job_done(job.id)
        made[job.id] = done
        outputs[job.id] = done.output
        on_output(done.output)
    return outputs


def finished_jobs(workflow: Workflow, context: Context) -> dict[str, Any]:
    """Return the outputs of the leading jobs that are done, without running anything."""
    outputs: dict[str, Any] = {}
    context.caveats.clear()
    for job in workflow.jobs:
        if any(reference.job not in outputs for reference in job.references.values()):
            continue
        try:
            done = _load(job, context, artifact_of(job, context, resolve(job, outputs)))
        except Damaged:  # as the costs, of which the ledger is made
            continue
        if done is not None and not done.wrong:
            outputs[job.id] = done.output
            context.caveats.extend(done.caveats)
    return outputs


@dataclass(frozen=True)
class _Done:
    """A job that is done, and what its marker says of its files."""

    output: Any
    files: dict[str, Seal]
    marker: dict[str, Any] | None
    """None where the same command does the job again."""
    wrong: dict[str, str]
    """Of its files, by path, those that are not as it wrote them, and how so."""

    @property
    def caveats(self) -> list[str]:
        """What it could not do, in lines."""
        kept = (self.marker or {}).get("caveats", [])
        return [str(line) for line in kept] if isinstance(kept, list) else []


def _clear(job: Job, context: Context, done: _Done | None) -> None:
    """Make ready for a job to be run, perhaps again: from here on its files change."""
    context.check()
    if done is not None:
        _warn(context, job, f"done before, but {shortened(done.wrong)}: it is done again")
        for path in done.wrong:
            if path.startswith(f"{context.folder}/"):  # of others, the hook takes care
                _set_aside(context, path)
    # Last: without it, a run that is killed here would know of nothing that is to be set aside.
    context.storage.remove(_marker(job, context))


def _run_job(
    job: Job, workflow: Workflow, context: Context, artifact: str, arguments: dict[str, Any]
) -> _Done:
    start = time.monotonic()
    kind = HOOKS.get(job.hook)
    hook = kind(context)
    event("job_begun", stage=job.id, hook=job.hook, artifact=artifact)
    said_before = len(context.caveats)
    with _failures_told(job), context.storage.noting() as written:
        output = hook.run(**arguments)
    if not isinstance(output, output_type(kind)):
        raise SandboxError(
            f"{job.id}: hook {job.hook!r} returned a {type(output).__name__}, "
            "which the annotation of its run does not allow"
        )
    seconds = round(time.monotonic() - start, 1)
    context.check()  # it may have slept: what its successor has marked stays
    cost = replace(hook.spent, stage=job.id, wall_seconds=seconds)
    noted = {"artifact": artifact, "hook": job.hook, **asdict(cost)}
    files = _files(context, output, written)
    record = {
        "artifact": artifact,
        "seconds": seconds,
        "output": as_data(output),
        "files": seals_to_json(files),
        "cost": noted,
    }
    if caveats := context.caveats[said_before:]:
        record["caveats"] = caveats
    kept = hook.keep(output)
    if kept:
        context.storage.write_sealed(_marker(job, context), record)
    _keep_cost(workflow, job, context, noted)
    event("job_done", stage=job.id, seconds=seconds, kept=kept)
    metrics.JOB_SECONDS.set(seconds, stage=job.id)
    context.progress.close()
    context.progress.note(f"{job.id}: done in {seconds:g} s")
    return _Done(output, files, record if kept else None, {})


def _take_over(paths: Iterable[str], made: Mapping[str, _Done], context: Context) -> None:
    """Note that files are those of the job that wrote them last, and no longer of earlier ones."""
    for id, done in made.items():
        if done.marker is None or not (common := done.files.keys() & set(paths)):
            continue
        for path in common:
            del done.files[path]
        done.marker["files"] = seals_to_json(done.files)
        context.storage.write_sealed(_marker_path(id, context), done.marker)


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
    known = _costs(context) or {}
    earlier = known.get(job.id)
    if earlier is not None and earlier["artifact"] == cost["artifact"]:
        wall_seconds = round(cost["wall_seconds"] + earlier["wall_seconds"], 1)
        cost = {**cost, "wall_seconds": wall_seconds}
    _write_costs(workflow, context, {**known, job.id: cost})


def _mend_costs(workflow: Workflow, context: Context) -> None:
    """Write from the markers of jobs what the file of costs lacks, or all of it where it is gone.

    A run that is killed behind a marker lacks the last one.
    """
    known = _costs(context)
    noted = {job.id: cost for job in workflow.jobs if (cost := _noted_cost(job, context))}
    kept = known or {}
    lacking = {
        id: cost
        for id, cost in noted.items()
        if id not in kept or kept[id]["artifact"] != cost["artifact"]
    }
    if not lacking:
        return
    if known is None:
        _warn(context, None, f"{_costs_path(context)} is damaged or gone: it is made anew")
    _write_costs(workflow, context, {**kept, **lacking})


def _noted_cost(job: Job, context: Context) -> dict[str, Any] | None:
    """Return what a job cost by its marker; None where that does not say it."""
    try:
        cost = context.storage.read_sealed(_marker(job, context)).get("cost")
    except Damaged:  # said where the job is done again
        return None
    return cost if _is_cost(cost) else None


def _write_costs(workflow: Workflow, context: Context, known: Mapping[str, Any]) -> None:
    kept = {job.id: known[job.id] for job in workflow.jobs if job.id in known}
    context.storage.write_sealed(_costs_path(context), kept)


def _costs(context: Context) -> dict[str, Any] | None:
    """Return what jobs cost, by job; None where that cannot be read."""
    try:
        known = context.storage.read_sealed(_costs_path(context))
    except Damaged:
        return None
    return known if all(map(_is_cost, known.values())) else None


def _is_cost(value: Any) -> bool:
    needed = {"artifact", "hook", *Cost.__dataclass_fields__}
    return isinstance(value, dict) and needed <= value.keys()


def _costs_path(context: Context) -> str:
    return f"{context.folder}/costs.json"


def artifact_of(job: Job, context: Context, arguments: Arguments) -> str:
    """Return the id of what a job makes: while it is the same, a finished job is not run again.

    Args:
        job: of a checked workflow.
        context: of the run.
        arguments: of the job, resolved.
    """
    kind = HOOKS.get(job.hook)
    identity = [version_of(kind), kind(context).identity()]
    codes = codes_in(arguments.settings)  # none where no class of a user is named
    return content_id(job.id, job.hook, identity, arguments.records, arguments.settings, *codes)


def _load(job: Job, context: Context, artifact: str) -> _Done | None:
    """Return what is known of a job that was done before; None if it was not."""
    marker = _read(job, context)
    if marker is None:
        return None
    hook = HOOKS.get(job.hook)
    try:
        if marker["artifact"] != artifact:
            return None
        output = TypeAdapter(output_type(hook)).validate_python(marker["output"])
        seals = seals_from_json(marker["files"]) if "files" in marker else {}
    except (ValueError, KeyError, TypeError):  # not of this version: the job is run again
        return None
    wrong = broken(context.storage, seals)
    if "files" not in marker:  # of an earlier version
        named = _paths(as_data(output), context.folder)
        wrong = {path: "is not there" for path in named if not context.storage.exists(path)}
    return _Done(output, seals, marker, wrong or hook(context).broken(output))


def _read(job: Job, context: Context) -> dict[str, Any] | None:
    """Return a job's marker; None where there is none that can be read."""
    try:
        return context.storage.read_sealed(_marker(job, context))
    except Missing:
        return None
    except Damaged as error:
        _warn(context, job, f"{error.what}: the job is done again")
        return None


def _files(context: Context, output: Any, written: Mapping[str, Seal]) -> dict[str, Seal]:
    """Return the seals of what a job has made in the run's folder, here or on another node."""
    storage, inside = context.storage, f"{context.folder}/"
    files = {path: seal for path, seal in written.items() if path.startswith(inside)}
    for path in _paths(as_data(output), context.folder) - files.keys():
        if (seal := storage.seal(path)) is not None:
            files[path] = seal
        else:  # a folder, or nothing
            files |= {f"{path}/{name}": seal for name, seal in seals_of(storage, path).items()}
    return files


def _paths(value: Any, folder: str) -> set[str]:
    """Return the paths below a folder that plain data names."""
    if isinstance(value, str):
        return {value} if value.startswith(f"{folder}/") else set()
    inner = value.values() if isinstance(value, Mapping) else value
    if not isinstance(inner, Iterable):
        return set()
    return {path for item in inner for path in _paths(item, folder)}


def _made_by_jobs(path: str, context: Context) -> bool:
    """Say whether jobs make a file again that is not there."""
    if path.startswith(f"{context.folder}/"):
        return not path.startswith(f"{context.folder}/tracking/")
    return path.startswith("datasets/") and {"stats", "leaks"} & set(path.split("/")) != set()


def _set_aside(context: Context, path: str) -> None:
    """Take a file out of the way, beside earlier ones: somebody may have changed it on purpose."""
    storage, inside = context.storage, f"{context.folder}/"
    if not storage.exists(path):
        return
    if path.startswith(inside):
        first = f"{inside}aside/{path.removeprefix(inside)}"
        targets = chain([first], (f"{first}.{number}" for number in count(2)))
        storage.move(path, next(target for target in targets if not storage.exists(target)))
    else:
        storage.remove(path)


def _warn(context: Context, job: Job | None, text: str) -> None:
    """Say what is wrong on the terminal and in the log."""
    context.progress.note(f"{job.id}: {text}" if job else text)
    event("warning", level=logging.WARNING, stage=job.id if job else None, message=text)


def _marker(job: Job, context: Context) -> str:
    return _marker_path(job.id, context)


def _marker_path(id: str, context: Context) -> str:
    return f"{context.folder}/jobs/{id}.json"

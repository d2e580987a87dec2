"""Whether a workflow makes sense as a whole: names, references and types, before any job runs.

A parameter that takes a record and is not given takes the output of the earlier job of its name;
here that is written out, so that whoever reads a checked job sees all that it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from djsandbox_ray.errors import BadInput, nearest
from djsandbox_ray.hooks.hook import HOOKS, Hook
from djsandbox_ray.workflows.language.jobs import Job, Reference, Repeat, parse
from djsandbox_ray.workflows.language.parameters import Parameter, output_type, parameters
from djsandbox_ray.workflows.language.repeat import Target
from djsandbox_ray.workflows.language.types import describe, fits

Replaced = Mapping[str, Mapping[str, Any]]
"""Per job and parameter, a value that the configuration gives in place of the workflow."""


@dataclass(frozen=True)
class Placed:
    """A job, and where it is written."""

    job: Job
    where: str
    """Such as ``jobs[3]``, after the name of its file if that is not the one that is read."""


def checked(
    placed: Sequence[Placed], repeat: Repeat | None, replaced: Replaced
) -> tuple[list[Job], list[str]]:
    """Return the jobs with all that each takes, and all that is wrong.

    Args:
        placed: the jobs of the workflow, in their order.
        repeat: its rounds.
        replaced: values in place of those that jobs give.

    Returns:
        The jobs, and one line per thing that is wrong, with the job and the place in the YAML.
    """
    found: list[str] = []
    jobs: list[Job] = []
    outputs: dict[str, Any] = {}
    hooks: dict[str, type[Hook]] = {}
    for item in placed:
        job, own = item.job, replaced.get(item.job.id, {})
        where = f"job {job.id!r}, {item.where}"
        if job.id in outputs:
            found.append(f"{where}.id: stands twice")
        job = job.model_copy(update={"given": {**job.given, **own}})
        output: Any = Any  # of a job that is wrong itself, nothing more is said
        try:
            hooks[job.id] = hook = HOOKS.get(job.hook)
            implied = _implied(job, hook, outputs)
            found += _job_problems(job, hook, implied, outputs, where, own)
            job = job.model_copy(update={"given": {**job.given, **implied}})
            output = output_type(hook, _taken(job, hook, outputs))
        except BadInput as error:
            found.append(f"{where}.hook: {error}")
        outputs[job.id] = output
        jobs.append(job)
    if repeat is not None:
        found += _repeat_problems(repeat, outputs, hooks)
    return jobs, found


def _implied(job: Job, hook: type[Hook], outputs: Mapping[str, Any]) -> dict[str, str]:
    """Return the references that need not be written: to jobs of the names of parameters."""
    return {
        name: str(Reference(name))
        for name, parameter in parameters(hook).items()
        if name in outputs and name not in job.given and not parameter.is_plain
    }


def _taken(job: Job, hook: type[Hook], outputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the types of the records that a job takes, by parameter; of what is wrong, none."""
    taken = {name: type(None) for name, known in parameters(hook).items() if known.default is None}
    for name, value in job.given.items():
        with suppress(BadInput):  # said where the value is checked
            if (reference := parse(value)) is not None:
                taken[name] = reference.type_in(outputs)
    return taken


def _job_problems(
    job: Job,
    hook: type[Hook],
    implied: Mapping[str, str],
    outputs: Mapping[str, Any],
    where: str,
    replaced: Mapping[str, Any],
) -> list[str]:
    known = parameters(hook)
    listed = ", ".join(known) or "nothing"
    found = []
    for name, value in job.given.items():
        own = f"job {job.id!r}, configuration jobs.{job.id}"
        place = f"{own if name in replaced else f'{where}.with'}.{name}"
        if name in known:
            found += _lines(_check, known[name], value, outputs, place)
        else:
            hint = nearest(name, known)
            found.append(f"{place}: hook {job.hook!r} takes no {name!r}{hint} (it takes {listed})")
    for name, parameter in known.items():
        if name in job.given:
            continue
        if name in implied:
            place = f"{where}.with.{name}: as it is not given, the job of its name is taken"
            found += _lines(_check, parameter, implied[name], outputs, place)
        elif parameter.required:
            found.append(f"{where}.with: {_missing(parameter, outputs)} (it takes {listed})")
        elif parameter.is_plain:
            found += _lines(parameter.read, parameter.default, f"{where}: the default of {name!r}")
    return found


def _missing(parameter: Parameter, outputs: Mapping[str, Any]) -> str:
    """Say that a parameter is missing, and what may stand there."""
    said = f"{parameter.name!r} is missing"
    if parameter.is_plain:
        return said
    fitting = [str(Reference(job)) for job, kind in outputs.items() if fits(kind, parameter.kind)]
    if fits(type(None), parameter.kind):
        fitting.append("null")
    allowed = " or ".join(fitting) or f"{describe(parameter.kind)}, which no earlier job gives"
    return f"{said}, and no earlier job is called so; allowed: {allowed}"


def _lines(check: Callable[..., Any], *arguments: Any) -> list[str]:
    try:
        check(*arguments)
    except BadInput as error:
        return str(error).split("\n")
    return []


def _check(parameter: Parameter, value: Any, outputs: Mapping[str, Any], place: str) -> None:
    """Check one value.

    Raises:
        BadInput: with one line per thing that is wrong, each beginning with the place.
    """
    try:
        reference = parse(value)
        if reference is not None:
            _check_reference(reference, parameter.kind, outputs)
    except BadInput as error:
        raise BadInput(f"{place}: {error}") from None
    if reference is not None:
        return
    try:
        parameter.read(value, place)
    except BadInput as error:
        meant = f"; did you mean {Reference(value)!s}?" if value in list(outputs) else ""
        raise BadInput(f"{error}{meant}") from None


def _check_reference(reference: Reference, wanted: Any, outputs: Mapping[str, Any]) -> None:
    given = reference.type_in(outputs)
    if not fits(given, wanted):
        raise BadInput(f"must be {describe(wanted)}, but {reference} is {describe(given)}")


def _repeat_problems(
    repeat: Repeat, outputs: Mapping[str, Any], hooks: Mapping[str, type[Hook]]
) -> list[str]:
    found = []
    for index, text in enumerate(repeat.until):
        lines = _lines(lambda text=text: Target.parse(text).check(outputs))
        found += [f"repeat.until[{index}]: {line}" for line in lines]
    for key, value in repeat.update.items():
        lines = _lines(_check_update, key, value, outputs, hooks)
        found += [f"repeat.update.{key}: {line}" for line in lines]
    return found


def _check_update(
    key: str, value: str, outputs: Mapping[str, Any], hooks: Mapping[str, type[Hook]]
) -> None:
    reference = parse(value)
    if reference is None:
        raise BadInput(f"a reference to an output is needed, not {value!r}")
    kind = reference.type_in(outputs)
    section, _, rest = key.partition(".")
    if section != "jobs":  # the rest of the configuration is not known to a workflow
        return
    job, _, name = rest.partition(".")
    if job not in outputs:
        raise BadInput(f"no job {job!r}{nearest(job, outputs)} (jobs: {', '.join(outputs)})")
    known = parameters(hooks[job]) if job in hooks else {}
    if job in hooks and name not in known:
        listed = ", ".join(known) or "nothing"
        raise BadInput(f"job {job!r} takes no {name!r}{nearest(name, known)} (it takes {listed})")
    if name in known and not fits(kind, known[name].kind):
        wanted = describe(known[name].kind)
        raise BadInput(f"must be {wanted}, but {reference} is {describe(kind)}")

"""Whether a workflow makes sense as a whole: names, references and types, before any job runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from djsandbox_ray.errors import BadInput
from djsandbox_ray.hooks.hook import HOOKS, Hook
from djsandbox_ray.workflows.language.jobs import Job, Reference, Repeat, Workflow, nearest, parse
from djsandbox_ray.workflows.language.parameters import Parameter, output_type, parameters
from djsandbox_ray.workflows.language.repeat import Target
from djsandbox_ray.workflows.language.types import describe, fits

Replaced = Mapping[str, Mapping[str, Any]]
"""Per job and parameter, a value that the configuration gives in place of the workflow."""


def workflow_problems(workflow: Workflow, replaced: Replaced) -> list[str]:
    """Return all that is wrong, one line each, with the job and the place in the YAML.

    Args:
        workflow: with the values of the configuration in place already.
        replaced: which values those are.
    """
    found: list[str] = []
    outputs: dict[str, Any] = {}
    hooks: dict[str, type[Hook]] = {}
    for index, job in enumerate(workflow.jobs):
        where = f"job {job.id!r}, jobs[{index}]"
        if job.id in outputs:
            found.append(f"{where}.id: stands twice")
        output: Any = Any  # of a job that is wrong itself, nothing more is said
        try:
            hooks[job.id] = hook = HOOKS.get(job.hook)
            found += _job_problems(job, hook, outputs, where, replaced.get(job.id, {}))
            output = output_type(hook, _taken(job, hook, outputs))
        except BadInput as error:
            found.append(f"{where}.hook: {error}")
        outputs[job.id] = output
    if workflow.repeat is not None:
        found += _repeat_problems(workflow.repeat, outputs, hooks)
    return found


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
        if parameter.required:
            found.append(f"{where}.with: {name!r} is missing (it takes {listed})")
        elif parameter.is_plain:
            found += _lines(parameter.read, parameter.default, f"{where}: the default of {name!r}")
    return found


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

"""What a job's hook is called with, and what of it makes the identity of the job's output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from djsandbox_ray.hooks.hook import HOOKS
from djsandbox_ray.workflows.jobs import Job
from djsandbox_ray.workflows.parameters import Parameter, parameters, plain


@dataclass(frozen=True)
class Arguments:
    """The arguments of ``run``, resolved."""

    values: dict[str, Any]
    """By parameter: records and plain values; what a workflow leaves out has its default."""
    records: dict[str, str | None]
    """The ids of the records among them; None where there is no record."""
    settings: dict[str, Any]
    """The plain values among them, as plain data."""


def resolve(job: Job, outputs: Mapping[str, Any]) -> Arguments:
    """Return what a checked job takes, when all it takes is there.

    Raises:
        BadInput: a value breaks a limit that only shows now.
    """
    values: dict[str, Any] = {}
    records: dict[str, str | None] = {}
    taken: dict[str, Any] = {}
    references = job.references
    for name, parameter in parameters(HOOKS.get(job.hook)).items():
        reference = references.get(name)
        if reference is None:
            read = setting(job, parameter)
            if parameter.is_plain or read is not None:
                taken[name] = plain(read)
            elif name in job.given:
                records[name] = None
            values[name] = read
            continue
        found = reference.look_up(outputs)
        values[name] = parameter.take(found, f"job {job.id!r}, {name} ({reference})")
        if reference.fields:
            taken[name] = plain(values[name])
        else:
            records[name] = None if found is None else found.id
    return Arguments(values, records, taken)


def setting(job: Job, parameter: Parameter) -> Any:
    """Return the plain value of a parameter that takes no reference, by default its default.

    Raises:
        BadInput: the annotation does not allow the value.
    """
    value = job.given.get(parameter.name, parameter.default)
    if parameter.name not in job.given and not parameter.is_plain:
        return value
    return parameter.read(value, f"job {job.id!r}, {parameter.name}")

"""What a workflow file holds: jobs in their order, what of it is repeated, and references.

A reference, ``${job.output}`` or ``${job.output.field}``, is what a job takes from an earlier one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, Literal, Union, get_type_hints

from pydantic import Field

from djsandbox_ray.errors import BadInput, nearest
from djsandbox_ray.settings.sections import MOST_NAME, Section
from djsandbox_ray.workflows.language.types import alternatives, describe


class Job(Section):
    """One step of a workflow."""

    id: str = Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=MOST_NAME)
    """Unique in the workflow."""
    hook: str
    """A registered hook, or ``package.module:Class``."""
    given: dict[str, Any] = Field(default={}, alias="with")
    """Per parameter of the hook, a reference to an earlier job's output, or a plain value; a
    parameter that takes a record and is not named takes the output of the earlier job of its
    name."""

    @property
    def references(self) -> dict[str, Reference]:
        """What it takes from earlier jobs, by parameter."""
        found = {name: parse(value) for name, value in self.given.items()}
        return {name: reference for name, reference in found.items() if reference is not None}


class Repeat(Section):
    """Rounds: the whole workflow again, with a configuration that the round before has changed."""

    until: list[str] = Field(min_length=1)
    """Targets, ``job.field OP number`` each."""
    match: Literal["all", "any"] = "all"
    """Which of the targets must hold."""
    most: int = Field(ge=1, le=1000)
    """Rounds, the first included; each is planned before anything runs."""
    update: dict[str, str] = Field(min_length=1)
    """Per key of the configuration, the output (or a field of it) that replaces its value."""


class Workflow(Section):
    """An ordered list of jobs."""

    after: str | None = None
    """A built-in workflow or a ``.yaml`` file that this one continues: its jobs come first. A job
    of it that is named again is replaced where it stands, or, if it is listed behind a job that is
    new, where it is listed."""
    jobs: list[Job] = Field(min_length=1)
    repeat: Repeat | None = None
    """By default the jobs are run once, or as the workflow that is continued says."""


FORM = "${job.output} or ${job.output.field}"
NAME = r"[A-Za-z_][A-Za-z0-9_]*"
_REFERENCE = re.compile(rf"\$\{{({NAME})\.output((?:\.{NAME})*)\}}")


@dataclass(frozen=True)
class Reference:
    """The output of an earlier job, or a field of it."""

    job: str
    fields: tuple[str, ...] = ()
    """Names, each a field of the one before; none stands for the whole record."""

    def __str__(self) -> str:
        return "${" + ".".join((self.job, "output", *self.fields)) + "}"

    def look_up(self, outputs: Mapping[str, Any]) -> Any:
        """Return what it stands for; of a job that gave None, None."""
        value = outputs[self.job]
        for name in self.fields:
            value = None if value is None else getattr(value, name)
        return value

    def type_in(self, outputs: Mapping[str, Any]) -> Any:
        """Return the annotation of what it stands for.

        Args:
            outputs: per job, the annotation of what it gives.

        Raises:
            BadInput: there is no such job or field.
        """
        if self.job not in outputs:
            hint = nearest(self.job, outputs)
            earlier = ", ".join(outputs) or "none"
            raise BadInput(f"no earlier job {self.job!r}{hint} (earlier: {earlier})")
        kind = outputs[self.job]
        for name in self.fields:
            kind = _field_type(kind, name)
        return kind


def parse(value: Any) -> Reference | None:
    """Return the reference that a value of a workflow is, or None if it is a plain value.

    Raises:
        BadInput: a reference in a longer text or in a list, or not of the right form.
    """
    if isinstance(value, str):
        if match := _REFERENCE.fullmatch(value):
            return Reference(match[1], tuple(match[2].split(".")[1:]))
        if "${" in value:
            raise BadInput(f"a reference is {FORM} and stands alone, unlike {value!r}")
    elif isinstance(value, (list, dict)) and any(map(_has_reference, _items(value))):
        raise BadInput(f"a reference ({FORM}) is the whole value, not a part of {value!r}")
    return None


def _items(value: list[Any] | dict[Any, Any]) -> list[Any]:
    return [*value, *value.values()] if isinstance(value, dict) else value


def _has_reference(value: Any) -> bool:
    if isinstance(value, (list, dict)):
        return any(map(_has_reference, _items(value)))
    return isinstance(value, str) and "${" in value


def _field_type(kind: Any, name: str) -> Any:
    """Return the annotation of a field; where there may be no record, there may be no field."""
    found = []
    for part in alternatives(kind):
        said = describe(part)
        if part in (Any, type(None)):
            found.append(part)
            continue
        known = [field.name for field in fields(part)] if is_dataclass(part) else []
        if name not in known:
            has = f"it has {', '.join(known)}" if known else "it has none"
            raise BadInput(f"{said} has no field {name!r}{nearest(name, known)} ({has})")
        try:
            found.append(get_type_hints(part, include_extras=True)[name])
        except (NameError, TypeError) as error:
            raise BadInput(f"the annotations of {said} cannot be read: {error}") from error
    return Any if Any in found else Union[tuple(found)]  # noqa: UP007 - made from a list

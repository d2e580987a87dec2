"""The models of a workflow file: jobs in their order, and what of it is repeated."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from djsandbox_ray.sections import Section
from djsandbox_ray.workflows.references import Reference, parse


class Job(Section):
    """One step of a workflow."""

    id: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Unique in the workflow."""
    hook: str
    """A registered hook, or ``package.module:Class``."""
    given: dict[str, Any] = Field(default={}, alias="with")
    """Per parameter of the hook, a reference to an earlier job's output, or a plain value."""

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
    most: int = Field(ge=1)
    """Rounds, the first included."""
    update: dict[str, str] = Field(min_length=1)
    """Per key of the configuration, the output (or a field of it) that replaces its value."""


class Workflow(Section):
    """An ordered list of jobs."""

    jobs: list[Job] = Field(min_length=1)
    repeat: Repeat | None = None
    """By default the jobs are run once."""

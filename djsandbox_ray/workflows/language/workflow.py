"""Reads a workflow, puts the configuration's own values in place, and checks it as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from typing import Any

from pydantic import ValidationError

from djsandbox_ray.config import RunConfig
from djsandbox_ray.errors import BadInput, nearest
from djsandbox_ray.settings.yaml_input import problems, read_mapping
from djsandbox_ray.storage.filesystems import read_text
from djsandbox_ray.workflows.language.checks import Replaced, workflow_problems
from djsandbox_ray.workflows.language.jobs import Workflow
from djsandbox_ray.workflows.language.repeat import key_problems

_BUILT_IN = resources.files("djsandbox_ray.workflows") / "builtin"


def load_workflow(source: str | Mapping[str, Any], replaced: Replaced | None = None) -> Workflow:
    """Read a workflow and check it.

    Args:
        source: a built-in workflow, the path of a ``.yaml`` file, or what such a file holds.
        replaced: per job and parameter, a value in place of the workflow's own.

    Raises:
        BadInput: with one line per error.
    """
    if isinstance(source, str):
        name = f"workflow {source}"
        document = read_mapping(_text(source), name)
    else:
        name, document = "workflow of the configuration", dict(source)
    try:
        workflow = Workflow.model_validate(document)
        workflow, lines = _replaced(workflow, replaced or {})
        lines += workflow_problems(workflow, replaced or {})
    except ValidationError as error:
        lines = [str(problem) for problem in problems(error, Workflow, document)]
    if lines:
        raise BadInput("\n".join([f"{name}:", *(f"  {line}" for line in lines)]))
    return workflow


def configured_workflow(config: RunConfig) -> Workflow:
    """Return the workflow of a configuration, with the parameters that it sets itself.

    Raises:
        BadInput: with one line per error.
    """
    workflow = load_workflow(config.workflow, config.jobs)
    if workflow.repeat is not None and (lines := key_problems(config, workflow.repeat.update)):
        raise BadInput("\n".join(["workflow:", *(f"  repeat.update.{line}" for line in lines)]))
    return workflow


def _replaced(workflow: Workflow, replaced: Replaced) -> tuple[Workflow, list[str]]:
    """Put values of the configuration in place; return also what is wrong with their jobs."""
    known = [job.id for job in workflow.jobs]
    lines = [
        f"jobs.{name} of the configuration: the workflow has no job {name!r}"
        f"{nearest(name, known)} (it has {', '.join(known)})"
        for name in replaced
        if name not in known
    ]
    jobs = [
        job.model_copy(update={"given": {**job.given, **replaced.get(job.id, {})}})
        for job in workflow.jobs
    ]
    return workflow.model_copy(update={"jobs": jobs}), lines


def _text(name: str) -> str:
    if name.endswith((".yaml", ".yml")):
        try:
            return read_text(name)
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"workflow {name}: cannot be read: {error}") from error
    built_in = sorted(
        entry.name.removesuffix(".yaml")
        for entry in _BUILT_IN.iterdir()
        if entry.name.endswith(".yaml")
    )
    if name not in built_in:
        known = ", ".join(built_in)
        raise BadInput(
            f"unknown workflow {name!r}{nearest(name, built_in)} (known: {known}; or a .yaml file)"
        )
    return (_BUILT_IN / f"{name}.yaml").read_text(encoding="utf-8")

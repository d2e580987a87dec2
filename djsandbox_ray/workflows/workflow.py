"""Job lists: read from YAML and checked as a whole, names, references and types, before any job."""

from __future__ import annotations

import types
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import Field, ValidationError

from djsandbox_ray.errors import BadInput
from djsandbox_ray.hooks.hook import HOOKS, Hook
from djsandbox_ray.sections import Section

_BUILT_IN = resources.files(__package__)


class Job(Section):
    """One step of a workflow."""

    id: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    """Unique in the workflow."""
    hook: str
    """A registered hook, or ``package.module:Class``."""
    inputs: dict[str, str] = Field(default={}, alias="with")
    """Per parameter of the hook, the earlier job whose output it takes."""


class Workflow(Section):
    """An ordered list of jobs."""

    jobs: list[Job] = Field(min_length=1)


def load_workflow(name: str) -> Workflow:
    """Read a workflow and check it.

    Args:
        name: a built-in workflow, or the path of a ``.yaml`` file.

    Raises:
        BadInput: with one line per error.
    """
    try:
        workflow = Workflow.model_validate(yaml.safe_load(_text(name)))
    except yaml.YAMLError as error:
        raise BadInput(f"workflow {name}: not valid YAML: {error}") from error
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise BadInput("\n".join([f"workflow {name}:", *lines])) from error
    if problems := _problems(workflow):
        raise BadInput("\n".join([f"workflow {name}:", *(f"  {line}" for line in problems)]))
    return workflow


def output_type(hook: type[Hook]) -> Any:
    """Return the annotation of what a hook's ``run`` returns."""
    return get_type_hints(hook.run).get("return", Any)


def _text(name: str) -> str:
    if name.endswith((".yaml", ".yml")):
        try:
            return Path(name).read_text()
        except OSError as error:
            raise BadInput(f"workflow {name}: cannot be read: {error}") from error
    built_in = sorted(
        entry.name.removesuffix(".yaml")
        for entry in _BUILT_IN.iterdir()
        if entry.name.endswith(".yaml")
    )
    if name not in built_in:
        near = get_close_matches(name, built_in, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        known = ", ".join(built_in)
        raise BadInput(f"unknown workflow {name!r}{hint} (known: {known}; or a .yaml file)")
    return (_BUILT_IN / f"{name}.yaml").read_text()


def _problems(workflow: Workflow) -> list[str]:
    problems: list[str] = []
    outputs: dict[str, Any] = {}
    for job in workflow.jobs:
        if job.id in outputs:
            problems.append(f"job {job.id!r} stands twice")
        try:
            hook = HOOKS.get(job.hook)
        except BadInput as error:
            problems.append(f"job {job.id!r}: {error}")
            outputs[job.id] = Any
            continue
        problems += _input_problems(job, hook, outputs)
        outputs[job.id] = output_type(hook)
    return problems


def _input_problems(job: Job, hook: type[Hook], outputs: dict[str, Any]) -> list[str]:
    wanted = {name: kind for name, kind in get_type_hints(hook.run).items() if name != "return"}
    listed = ", ".join(wanted) or "nothing"
    problems = [
        f"job {job.id!r}: hook {job.hook!r} takes no {name!r} (it takes {listed})"
        for name in job.inputs
        if name not in wanted
    ]
    for name, kind in wanted.items():
        source = job.inputs.get(name)
        if source is None:
            problems.append(f"job {job.id!r}: {name!r} is missing (it takes {listed})")
        elif source not in outputs:
            earlier = ", ".join(outputs) or "none"
            problems.append(f"job {job.id!r}: no earlier job {source!r} (earlier: {earlier})")
        elif not _fits(outputs[source], kind):
            problems.append(
                f"job {job.id!r}: {name!r} must be {_name(kind)}, "
                f"but {source!r} gives {_name(outputs[source])}"
            )
    return problems


def _fits(given: Any, wanted: Any) -> bool:
    allowed = _members(wanted)
    return Any in allowed or given is Any or _members(given) <= allowed


def _members(kind: Any) -> set[Any]:
    if get_origin(kind) in (Union, types.UnionType):
        return set(get_args(kind))
    return {kind}


def _name(kind: Any) -> str:
    return " or ".join(sorted(getattr(part, "__name__", str(part)) for part in _members(kind)))

"""Job lists: read from YAML and checked as a whole, names, references and types, before any job."""

from __future__ import annotations

import inspect
import types
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

from pydantic import Field, ValidationError

from djsandbox_ray.errors import BadInput
from djsandbox_ray.hooks.hook import HOOKS, Hook
from djsandbox_ray.sections import Section
from djsandbox_ray.yaml_input import problems, read_mapping

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
    document = read_mapping(_text(name), f"workflow {name}")
    try:
        workflow = Workflow.model_validate(document)
        lines = _problems(workflow)
    except ValidationError as error:
        lines = [str(problem) for problem in problems(error, Workflow, document)]
    if lines:
        raise BadInput("\n".join([f"workflow {name}:", *(f"  {line}" for line in lines)]))
    return workflow


def output_type(hook: type[Hook]) -> Any:
    """Return the annotation of what a hook's ``run`` returns.

    Raises:
        BadInput: it has none, or not one of records with an ``id`` (dataclasses) and None.
    """
    kind = _annotations(hook).get("return", Any)
    if all(_is_record(part) for part in _members(kind)):
        return kind
    raise BadInput(
        f"run of {hook.__name__} must be annotated to return a dataclass with an id, or None, "
        f"not {_name(kind)}"
    )


def _annotations(hook: type[Hook]) -> dict[str, Any]:
    try:
        return get_type_hints(hook.run)
    except (NameError, TypeError) as error:
        raise BadInput(f"the annotations of {hook.__name__}.run cannot be read: {error}") from error


def _is_record(kind: Any) -> bool:
    if kind is type(None):
        return True
    return is_dataclass(kind) and any(field.name == "id" for field in fields(kind))


def _text(name: str) -> str:
    if name.endswith((".yaml", ".yml")):
        try:
            return Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
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
    found: list[str] = []
    outputs: dict[str, Any] = {}
    for job in workflow.jobs:
        if job.id in outputs:
            found.append(f"job {job.id!r} stands twice")
        output: Any = Any  # of a job that is wrong itself, nothing more is said
        try:
            hook = HOOKS.get(job.hook)
            found += _input_problems(job, hook, outputs)
            output = output_type(hook)
        except BadInput as error:
            found.append(f"job {job.id!r}: {error}")
        outputs[job.id] = output
    return found


def _input_problems(job: Job, hook: type[Hook], outputs: dict[str, Any]) -> list[str]:
    annotations = _annotations(hook)
    _, *parameters = inspect.signature(hook.run).parameters.values()
    listed = ", ".join(parameter.name for parameter in parameters) or "nothing"
    found = [
        f"job {job.id!r}: hook {job.hook!r} takes no {name!r} (it takes {listed})"
        for name in job.inputs
        if name not in {parameter.name for parameter in parameters}
    ]
    for parameter in parameters:
        name, kind = parameter.name, annotations.get(parameter.name, Any)
        source = job.inputs.get(name)
        if source is None:
            if parameter.default is inspect.Parameter.empty:
                found.append(f"job {job.id!r}: {name!r} is missing (it takes {listed})")
        elif source not in outputs:
            earlier = ", ".join(outputs) or "none"
            found.append(f"job {job.id!r}: no earlier job {source!r} (earlier: {earlier})")
        elif not _fits(outputs[source], kind):
            found.append(
                f"job {job.id!r}: {name!r} must be {_name(kind)}, "
                f"but {source!r} gives {_name(outputs[source])}"
            )
    return found


def _fits(given: Any, wanted: Any) -> bool:
    allowed = _members(wanted)
    if given is Any or Any in allowed:
        return True
    classes = tuple(kind for kind in allowed if isinstance(kind, type))
    return all(issubclass(part, classes) for part in _members(given))


def _members(kind: Any) -> set[Any]:
    if get_origin(kind) in (Union, types.UnionType):
        return set(get_args(kind))
    return {kind}


def _name(kind: Any) -> str:
    return " or ".join(sorted(getattr(part, "__name__", str(part)) for part in _members(kind)))

"""Reads a workflow: its file, the one that it continues, what the configuration sets itself.

What comes of that is checked as a whole, and every job then says all that it takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from posixpath import normpath
from typing import Any

from pydantic import ValidationError

from djsandbox_ray.config import RunConfig
from djsandbox_ray.errors import BadInput, nearest, unknown
from djsandbox_ray.hooks.hook import HOOKS
from djsandbox_ray.hooks.recipe import WriteRecipe
from djsandbox_ray.recipes.ranges import no_ranges
from djsandbox_ray.settings.strict_yaml import MOST_BYTES
from djsandbox_ray.settings.yaml_input import problems, read_mapping
from djsandbox_ray.stats.operators import BadProcess, parse_process
from djsandbox_ray.storage.filesystems import read_text
from djsandbox_ray.workflows.language.checks import Placed, Replaced, checked
from djsandbox_ray.workflows.language.jobs import Repeat, Workflow
from djsandbox_ray.workflows.language.repeat import key_problems

_BUILT_IN = resources.files("djsandbox_ray.workflows") / "builtin"
_ENDINGS = (".yaml", ".yml")
_OPTIONAL = {"trials": "recipe_only", "evaluation": "recipe_only", "evolution": "single_op"}
_NAMED = 3
"""Jobs that are named as examples."""


def configured_workflow(config: RunConfig) -> Workflow:
    """Return the workflow of a configuration, with the parameters that it sets itself.

    Raises:
        BadInput: with one line per error.
    """
    workflow = load_workflow(config.workflow, config.jobs)
    update = workflow.repeat.update if workflow.repeat else ()
    lines = [f"repeat.update.{line}" for line in key_problems(config, update)]
    absent = list(filter(config.lacks, _OPTIONAL))
    if lines := [*_lacking(absent, workflow), *_rangeless(config.operators, workflow), *lines]:
        raise _wrong(_called(config.workflow), lines)
    return workflow


def drafted_workflow(document: Mapping[str, Any]) -> None:
    """Check the workflow of a configuration that cannot be read as a whole, as far as it says one.

    Args:
        document: as YAML gives it.

    Raises:
        BadInput: with one line per error.
    """
    defaults = {name: RunConfig.model_fields[name].default for name in ("workflow", "jobs")}
    source, jobs = (document.get(name, value) for name, value in defaults.items())
    if not isinstance(source, str | dict) or not isinstance(jobs, dict):
        return
    if not all(isinstance(given, dict) for given in jobs.values()):
        return
    workflow = load_workflow(source, jobs)
    absent = [section for section in _OPTIONAL if document.get(section) is None]
    lines = [*_lacking(absent, workflow), *_rangeless(document.get("operators"), workflow)]
    if lines:
        raise _wrong(_called(source), lines)


def _rangeless(process: Any, workflow: Workflow) -> Iterator[str]:
    """Say which operators no recipe can be made of, where a job makes one."""
    writing = [job.id for job in workflow.jobs if issubclass(HOOKS.get(job.hook), WriteRecipe)]
    if not writing:
        return
    try:
        operators = parse_process(process)
    except BadProcess:
        return  # said of the configuration
    for index, why in no_ranges(operators):
        yield (
            f"operators[{index}]: {why}, and the job {writing[0]!r} makes recipes; leave it out, "
            "or take a workflow that makes none, such as single_op"
        )


def _lacking(absent: Sequence[str], workflow: Workflow) -> Iterator[str]:
    """Say which sections the jobs need that the configuration is without."""
    for section in absent:
        jobs = [job.id for job in workflow.jobs if section in HOOKS.get(job.hook).SECTIONS]
        if jobs:
            more = f" and {len(jobs) - _NAMED} more" if len(jobs) > _NAMED else ""
            yield (
                f"{section}: the configuration has no such section, which its jobs need "
                f"({', '.join(jobs[:_NAMED])}{more}); `workflow: {_OPTIONAL[section]}` does without"
            )


def load_workflow(source: str | Mapping[str, Any], replaced: Replaced | None = None) -> Workflow:
    """Read a workflow and check it.

    Args:
        source: a built-in workflow, the path of a ``.yaml`` file, or what such a file holds.
        replaced: per job and parameter, a value in place of the workflow's own.

    Returns:
        All jobs, those of the workflow that is continued first; each names all that it takes.

    Raises:
        BadInput: with one line per error.
    """
    replaced = replaced or {}
    placed, repeat = _read(source, _document(source), ())
    known = [item.job.id for item in placed]
    lines = [
        f"jobs.{name} of the configuration: the workflow has no job {name!r}"
        f"{nearest(name, known)} (it has {', '.join(known)})"
        for name in replaced
        if name not in known
    ]
    jobs, found = checked(placed, repeat, replaced)
    if lines := [*lines, *found]:
        raise _wrong(_called(source), lines)
    return Workflow(jobs=jobs, repeat=repeat)


def built_in_workflows() -> list[str]:
    """Return the names of the workflows that are shipped, sorted."""
    files = (entry.name for entry in _BUILT_IN.iterdir())
    return sorted(name.removesuffix(".yaml") for name in files if name.endswith(".yaml"))


def continued_files(source: str | Mapping[str, Any]) -> list[str]:
    """Return the files that a workflow continues, one after the other; built-in ones are none.

    Raises:
        BadInput: one of them cannot be read.
    """
    found: list[str] = []
    here, document = source if isinstance(source, str) else "", _document(source)
    while isinstance(after := document.get("after"), str):
        here = _beside(here, after)
        if here in found or not here.endswith(_ENDINGS):
            break
        found.append(here)
        document = _document(here)
    return found


def _document(source: str | Mapping[str, Any]) -> dict[str, Any]:
    return read_mapping(_text(source), _called(source)) if isinstance(source, str) else dict(source)


def _read(
    source: str | Mapping[str, Any], document: dict[str, Any], continuing: tuple[str, ...]
) -> tuple[list[Placed], Repeat | None]:
    """Return the jobs of a workflow and of those that it continues, unchecked, and its rounds.

    Args:
        source: as for :func:`load_workflow`.
        document: what it holds.
        continuing: the workflows that continue this one, the first of them first.
    """
    name = _called(source)
    try:
        workflow = Workflow.model_validate(document)
    except ValidationError as error:
        found = problems(error, Workflow, document)
        raise _wrong(name, [str(problem) for problem in found]) from None
    # Of a workflow that is continued, an error must say which file it is in.
    file = f"{source}: " if continuing else ""
    own = [Placed(job, f"{file}jobs[{index}]") for index, job in enumerate(workflow.jobs)]
    if workflow.after is None:
        return own, workflow.repeat
    # Of two of one name, only one could take the place of a job of the other workflow.
    ids = [job.id for job in workflow.jobs]
    if twice := [index for index, id in enumerate(ids) if id in ids[:index]]:
        raise _wrong(name, [f"job {ids[i]!r}, jobs[{i}].id: stands twice" for i in twice])
    here = _normal(source) if isinstance(source, str) else ""
    chain, after = (*continuing, here), _beside(here, workflow.after)
    if after in chain:
        way = " -> ".join([*chain[chain.index(after) :], after])
        raise _wrong(name, [f"after: a workflow cannot continue itself: {way}"])
    try:
        document = _document(after)
    except BadInput as error:
        raise _wrong(name, [f"after: {error}"]) from None
    before, repeat = _read(after, document, chain)
    again = "repeat" in workflow.model_fields_set
    return _continued(before, own), workflow.repeat if again else repeat


def _continued(before: Sequence[Placed], own: Sequence[Placed]) -> list[Placed]:
    """Return the jobs of a workflow behind those that it continues.

    One that is named again stays in its place while no new job is listed before it: so a step is
    replaced. From the first new job on, all stand as they are listed: so what sums up comes last.
    """
    known = {item.job.id for item in before}
    new = next((i for i, item in enumerate(own) if item.job.id not in known), len(own))
    instead = {item.job.id: item for item in own[:new]}
    moved = {item.job.id for item in own[new:]}
    kept = [instead.get(item.job.id, item) for item in before if item.job.id not in moved]
    return [*kept, *own[new:]]


def _wrong(name: str, lines: Sequence[str]) -> BadInput:
    return BadInput("\n".join([f"{name}:", *(f"  {line}" for line in lines)]))


def _called(source: str | Mapping[str, Any]) -> str:
    return f"workflow {source}" if isinstance(source, str) else "workflow of the configuration"


def _beside(here: str, name: str) -> str:
    """Return the path of a file that another one names: relative to that one's folder."""
    if not name.endswith(_ENDINGS) or "://" in name or name.startswith("/"):
        return _normal(name)
    folder, slash, _ = here.rpartition("/")
    return _normal(f"{folder}{slash}{name}")


def _normal(name: str) -> str:
    """Return a path without detours, so that a file has one name."""
    if not name.endswith(_ENDINGS):
        return name
    scheme, mark, path = name.rpartition("://")
    return f"{scheme}{mark}{normpath(path)}"


def _text(name: str) -> str:
    if name.endswith(_ENDINGS):
        try:
            return read_text(name, MOST_BYTES)
        except (OSError, UnicodeDecodeError) as error:
            raise BadInput(f"workflow {name}: cannot be read: {error}") from error
    if name not in (known := built_in_workflows()):
        raise unknown("workflow", name, known, otherwise="a .yaml file")
    return (_BUILT_IN / f"{name}.yaml").read_text(encoding="utf-8")

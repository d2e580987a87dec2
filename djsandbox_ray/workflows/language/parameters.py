"""What a hook's ``run`` takes and gives, as its annotations say, and what it is called with.

Plain values of a workflow are read by the annotations; of the arguments that come of it, some make
the identity of the job's output.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Union, get_overloads, get_type_hints

from pydantic import ValidationError, create_model
from pydantic_core import from_json, to_json

from djsandbox_ray.errors import BadInput
from djsandbox_ray.hooks.hook import HOOKS, Hook
from djsandbox_ray.settings.yaml_input import problems
from djsandbox_ray.workflows.language.jobs import FORM, Job
from djsandbox_ray.workflows.language.types import alternatives, describe, fits, is_plain, is_record

_REQUIRED = inspect.Parameter.empty
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_GIVEN = "given"
_NONE = type(None)


@dataclass(frozen=True)
class Parameter:
    """One parameter of ``run``."""

    name: str
    kind: Any
    """Its annotation."""
    default: Any = _REQUIRED
    """As YAML would give it, if YAML can hold it."""

    @property
    def required(self) -> bool:
        """Whether a workflow must give it."""
        return self.default is _REQUIRED

    @property
    def is_plain(self) -> bool:
        """Whether it is a setting: something that YAML can hold, and no record."""
        return is_plain(self.kind)

    def read(self, value: Any, where: str) -> Any:
        """Return a plain value of a workflow as the annotation wants it.

        Args:
            value: as YAML gives it.
            where: begins every line about what is wrong.

        Raises:
            BadInput: with one line per thing that is wrong.
        """
        kinds = [kind for kind in alternatives(self.kind) if kind is Any or is_plain(kind)]
        if Any not in kinds and (_NONE not in kinds if value is None else set(kinds) <= {_NONE}):
            raise BadInput(f"{where}: must be {describe(self.kind)} ({FORM}), not {value!r}")
        if unfit := [f"{where}{path}: {what}" for path, what in _unfit_for_json(value, "")]:
            raise BadInput("\n".join(unfit))
        kind = self.kind if self.is_plain else Union[tuple(kinds)]  # noqa: UP007 - from a list
        return _validated(kind, value, where, strict=True)

    def take(self, value: Any, where: str) -> Any:
        """Return the value of a reference, whose type fits, as the annotation wants it.

        Raises:
            BadInput: it breaks a limit that the annotation sets.
        """
        return (
            _validated(self.kind, as_data(value), where, strict=False) if self.is_plain else value
        )


def parameters(hook: type[Hook]) -> dict[str, Parameter]:
    """Return what the ``run`` of a hook takes, by name.

    Raises:
        BadInput: its annotations cannot be read, or it takes what has no name.
    """
    annotations = _annotations(hook, include_extras=True)
    _, *taken = inspect.signature(hook.run).parameters.values()
    if any(parameter.kind not in _NAMED for parameter in taken):
        raise BadInput(f"run of {hook.__name__} must name each of its parameters: no *, ** or /")
    return {
        parameter.name: _parameter(parameter, annotations.get(parameter.name, Any))
        for parameter in taken
    }


def output_type(hook: type[Hook], given: Mapping[str, Any] | None = None) -> Any:
    """Return the annotation of what a hook's ``run`` returns.

    Args:
        hook: the class.
        given: the types that a job takes, by parameter: of overloads of ``run``, the first that
            takes these says it.

    Raises:
        BadInput: it has none, or not one of records with an ``id`` (dataclasses) and None.
    """
    kind = _annotations(hook, include_extras=False).get("return", Any)
    for wanted in map(get_type_hints, get_overloads(hook.run)):
        if given and all(fits(taken, wanted.get(name, Any)) for name, taken in given.items()):
            kind = wanted["return"]
            break
    if all(map(is_record, alternatives(kind))):
        return kind
    raise BadInput(
        f"run of {hook.__name__} must be annotated to return a dataclass with an id, or None, "
        f"not {describe(kind)}"
    )


def as_data(value: Any) -> Any:
    """Return a value of records as plain data: a dataclass as a mapping of its fields.

    What JSON does not have is kept as text: ``NaN``, ``Infinity``.
    """
    return from_json(to_json(value, inf_nan_mode="strings"))


def _parameter(found: inspect.Parameter, kind: Any) -> Parameter:
    given = found.default is not _REQUIRED and is_plain(kind)
    return Parameter(found.name, kind, as_data(found.default) if given else found.default)


def _annotations(hook: type[Hook], *, include_extras: bool) -> dict[str, Any]:
    try:
        return get_type_hints(hook.run, include_extras=include_extras)
    except (NameError, TypeError) as error:
        raise BadInput(f"the annotations of {hook.__name__}.run cannot be read: {error}") from error


def _validated(kind: Any, value: Any, where: str, *, strict: bool) -> Any:
    # A model of one field, so that errors come with paths, as those of the configuration do.
    model = create_model("Given", given=(kind, ...))
    document = {_GIVEN: value}
    try:
        if strict:  # as JSON, for YAML has no tuples; "3" is no number, and 1 is not true
            read: Any = model.model_validate_json(json.dumps(document), strict=True)
        else:
            read = model.model_validate(document)
    except ValidationError as error:
        found = problems(error, model, document)
        lines = (f"{where}{path.removeprefix(_GIVEN)}: {what}" for path, what in found)
        raise BadInput("\n".join(lines)) from None
    return read.given


def _unfit_for_json(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Find what YAML can say and a parameter cannot be: dates, infinities, numbers as keys."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unfit_for_json(item, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                yield path, f"keys must be text, not {key!r}"
            yield from _unfit_for_json(item, f"{path}.{key}")
    elif isinstance(value, float) and not math.isfinite(value):
        yield path, f"must be finite, not {value!r}"
    elif not isinstance(value, (str, int, float, bool, type(None))):
        yield path, f"must be a number, text, a list or a mapping, not {value!r}"


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
                taken[name] = as_data(read)
            elif name in job.given:
                records[name] = None
            values[name] = read
            continue
        found = reference.look_up(outputs)
        values[name] = parameter.take(found, f"job {job.id!r}, {name} ({reference})")
        if reference.fields:
            taken[name] = as_data(values[name])
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

"""YAML as users write it: read strictly; what a model finds wrong, as lines with YAML paths."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from djsandbox_ray.errors import BadInput, nearest
from djsandbox_ray.settings.described import kind_of, meaning
from djsandbox_ray.settings.sections import NAME, NESTED
from djsandbox_ray.settings.strict_yaml import NotStrict, load

Path = tuple[int | str, ...]

_GIVEN_CHARACTERS = 80
_MOST_PROBLEMS = 50
"""That are said; more are not read by anybody."""


class Problem(NamedTuple):
    """What is wrong in one place of a document."""

    where: str
    """YAML path such as ``evaluation.metrics[0].label``; empty for the whole document."""
    what: str
    """What is wrong and what is allowed."""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" if self.where else self.what


def read_mapping(text: str, name: str) -> dict[str, Any]:
    """Read a YAML document that is a mapping at the top.

    Args:
        text: the document.
        name: what it is called in messages.

    Raises:
        BadInput: not YAML, a key that stands twice, or no mapping.
    """
    document = read_value(text, name)
    if not isinstance(document, dict):
        raise BadInput(f"{name}: a mapping of keys is needed, not {type(document).__name__}")
    return document


def read_value(text: str, name: str) -> Any:
    """Read any YAML document safely.

    Raises:
        BadInput: not YAML, a key that stands twice, or more than a configuration can be.
    """
    try:
        return load(text)
    except NotStrict as error:
        raise BadInput(f"{name}: not valid YAML: {error}") from error


def problems(
    error: ValidationError, model: type[BaseModel], document: dict[str, Any]
) -> list[Problem]:
    """Return all errors of a document, one per place.

    Args:
        error: what ``model`` found.
        model: what the document was read with.
        document: as it was read.
    """
    found: dict[tuple[str, str], list[str]] = {}
    flat = _flatten(error.errors(), model, ())
    for path, item, owner in flat[:_MOST_PROBLEMS]:
        where = _places(path, document, item["type"] == "missing")
        if item["type"] == NAME:
            where = (*where, "type")
        messages = found.setdefault((_text(where), _given(item)), [])
        message = _message(item, owner, str(path[-1]) if path else "")
        if message not in messages:
            messages.append(message)
    # Several messages about one value come from the branches of a union.
    said = [Problem(where, "; or ".join(m) + given) for (where, given), m in found.items()]
    more = len(flat) - _MOST_PROBLEMS
    return [*said, Problem("", f"and {more:,} more")] if more > 0 else said


def _flatten(
    errors: Sequence[Any], model: type[BaseModel], prefix: Path
) -> list[tuple[Path, Any, type[BaseModel]]]:
    """Bring the errors of nested components to one level, each with its whole path."""
    flat: list[tuple[Path, Any, type[BaseModel]]] = []
    for error in errors:
        path = (*prefix, *error["loc"])
        if error["type"] == NESTED:
            flat += _flatten(error["ctx"]["errors"], error["ctx"]["model"], path)
        else:
            flat.append((path, error, _owner(model, error["loc"])))
    return flat


def _places(path: Path, document: Any, missing: bool) -> Path:
    """Leave out of a path what names no place in the document: branches of unions, validators."""
    kept: list[int | str] = []
    for number, key in enumerate(path):
        inside = (
            0 <= key < len(document)
            if isinstance(document, list) and isinstance(key, int)
            else isinstance(document, dict) and key in document
        )
        if inside:
            kept.append(key if isinstance(document, list) else str(key))
            document = document[key]
        elif missing and number == len(path) - 1:
            kept.append(key)
    return tuple(kept)


def _text(path: Path) -> str:
    parts = (f"[{key}]" if isinstance(key, int) else f".{_short(key)}" for key in path)
    return "".join(parts).removeprefix(".")


def _given(error: Any) -> str:
    if error["type"] in ("missing", "extra_forbidden", NAME):
        return ""
    return f" (given: {repr(_begin(error['input']))[:_GIVEN_CHARACTERS]})"


def _begin(value: Any) -> Any:
    """Return so much of a value as is shown of it."""
    if isinstance(value, str):
        return value[:_GIVEN_CHARACTERS]
    if isinstance(value, list):
        return [_begin(item) for item in value[:_GIVEN_CHARACTERS]]
    if isinstance(value, dict):
        first = islice(value.items(), _GIVEN_CHARACTERS)
        return {key: _begin(item) for key, item in first}
    return value


def _short(key: str) -> str:
    return key if len(key) <= _GIVEN_CHARACTERS else f"{key[:_GIVEN_CHARACTERS]}..."


def _message(error: Any, owner: type[BaseModel], key: str) -> str:
    if error["type"] == "missing" and (name := keys_of(owner).get(key)) is not None:
        return f"Field required: {_wanted(owner.model_fields[name])}"
    if error["type"] != "extra_forbidden":
        return str(error["msg"]).removeprefix("Value error, ")
    known = sorted(keys_of(owner))
    return f"unknown key{nearest(key, known)} (known: {', '.join(known)})"


def _wanted(field: FieldInfo) -> str:
    """Return what may stand in a field, and the first sentence of what it is for."""
    first, *_ = meaning(field).split(". ")
    return f"{kind_of(field)} ({first.removesuffix('.')})" if first else kind_of(field)


def _owner(model: type[BaseModel], path: Path) -> type[BaseModel]:
    """Return the model in which the last key of ``path`` was looked up."""
    for key in path[:-1]:
        fields = keys_of(model)
        if isinstance(key, str) and key in fields:
            model = _model_in(model.model_fields[fields[key]].annotation) or model
    return model


def keys_of(model: type[BaseModel]) -> dict[str, str]:
    """Return the names of a section's fields by the keys that stand for them in YAML."""
    return {field.alias or name: name for name, field in model.model_fields.items()}


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)

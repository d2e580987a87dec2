"""What a field of a section may be, in the words of a reader: for messages and for the manual."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from enum import Enum
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types as at
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from djsandbox_ray.settings.sections import Component, ComponentReader

_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    NoneType: "null",
    Any: "anything",
    dict: "mapping",
    list: "list",
}
_BOUNDS: tuple[tuple[Any, str, str], ...] = (
    (at.Ge, "ge", "from {}"),
    (at.Gt, "gt", "above {}"),
    (at.Le, "le", "up to {}"),
    (at.Lt, "lt", "below {}"),
)
"""What bounds a number: the class, its field, and the words."""
_ROLE = re.compile(r":[a-z]+:`~?\.*(?:[\w.]*\.)?([\w]+)`")


def kind_of(field: FieldInfo) -> str:
    """Return what a field may be: ``whole number from 1``, ``list of text``, ``null or number``."""
    return _kind(field.annotation, field.metadata)


def reader_in(annotation: Any, metadata: Sequence[Any] = ()) -> ComponentReader | None:
    """Return what reads the component, or each of the components, that an annotation speaks of."""
    for item in metadata:
        if isinstance(item, ComponentReader):
            return item
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return reader_in(inner, more)
    parts = get_args(annotation)
    return next((found for part in parts if (found := reader_in(part)) is not None), None)


def sections_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the sections that an annotation speaks of; none where that is a component."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [] if annotation is Component else [annotation]
    return list(dict.fromkeys(s for part in get_args(annotation) for s in sections_in(part)))


def meaning(field: FieldInfo) -> str:
    """Return what a field is for, in one line of Markdown."""
    text = " ".join((field.description or "").split())
    return _ROLE.sub(r"`\1`", text).replace("``", "`")


def _kind(annotation: Any, metadata: Sequence[Any] = ()) -> str:
    for item in metadata:
        if isinstance(item, ComponentReader):
            return f"mapping with a key type, {item.allowed}"
    if get_origin(annotation) is Annotated:
        inner, *more = get_args(annotation)
        return _kind(inner, [*metadata, *more])
    return _bounded(_plain(annotation), metadata)


def _plain(annotation: Any) -> str:
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(map(_kind, parts)))
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in parts)
    if origin is tuple and parts[-1:] != (...,):
        return f"list of {len(parts)}: {', '.join(map(_kind, parts))}"
    if origin in (list, tuple, Sequence):
        return f"list of {_several(_kind(parts[0]))}"
    if origin in (dict, Mapping):
        return "mapping" if parts[1] is Any else f"mapping of names to {_several(_kind(parts[1]))}"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " or ".join(f"`{item.value}`" for item in annotation)
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    return _WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _several(kind: str) -> str:
    return {"mapping": "mappings", "text": "texts"}.get(kind, re.sub(r"number\b", "numbers", kind))


def _bounded(kind: str, metadata: Sequence[Any]) -> str:
    said = [
        form.format(f"{getattr(item, name):g}")
        for item in metadata
        for form_kind, name, form in _BOUNDS
        if isinstance(item, form_kind)
    ]
    for item in metadata:
        if isinstance(item, at.MinLen) and kind.startswith(("list", "mapping")):
            said.append(f"({item.min_length} or more)")
        if isinstance(pattern := getattr(item, "pattern", None), str):
            said.append(f"like `{pattern}`")
    return " ".join([kind, *said])

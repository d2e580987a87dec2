"""Types as annotations say them: whether what one gives may stand where another is wanted."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

_NONE = type(None)
_SCALARS = (_NONE, bool, int, float, str)
_SEQUENCES = (list, tuple, Sequence)
_MAPPINGS = (dict, Mapping)


def alternatives(kind: Any) -> tuple[Any, ...]:
    """Return the types that a union allows; of anything else, itself."""
    kind = _bare(kind)
    if get_origin(kind) in (Union, types.UnionType):
        return tuple(member for part in get_args(kind) for member in alternatives(part))
    return (kind,)


def is_record(kind: Any) -> bool:
    """Return whether a job may give it: a dataclass with an ``id``, or None."""
    return kind is _NONE or (
        isinstance(kind, type)
        and is_dataclass(kind)
        and any(field.name == "id" for field in fields(kind))
    )


def is_plain(kind: Any) -> bool:
    """Return whether YAML can hold every value of it: numbers, text, and lists and maps of them."""
    kind = _bare(kind)
    origin = get_origin(kind) or kind
    if origin in (Union, types.UnionType):
        return all(map(is_plain, get_args(kind)))
    if origin in (*_SEQUENCES, *_MAPPINGS):
        return all(part in (..., Any, object) or is_plain(part) for part in get_args(kind))
    return origin is Literal or origin in _SCALARS


def fits(given: Any, wanted: Any) -> bool:
    """Return whether every value of ``given`` may stand where ``wanted`` is asked for.

    As for values from YAML: a whole number may stand for a float, a boolean for no number, and
    kinds of lists and of maps for each other. Of ``Any`` nothing is known: it fits.
    """
    return all(
        any(_fits(part, kind) for kind in alternatives(wanted)) for part in alternatives(given)
    )


def describe(kind: Any) -> str:
    """Return an annotation as a reader would say it: ``None or Number``, ``tuple[int, ...]``."""
    return " or ".join(sorted({_describe(part) for part in alternatives(kind)}))


def _bare(kind: Any) -> Any:
    """Leave out what ``Annotated`` adds."""
    kind = _NONE if kind is None else kind
    return _bare(get_args(kind)[0]) if get_origin(kind) is Annotated else kind


def _fits(given: Any, wanted: Any) -> bool:
    if Any in (given, wanted) or wanted is object or given == wanted:
        return True
    if get_origin(given) is Literal:
        if get_origin(wanted) is Literal:
            return _choices(given) <= _choices(wanted)
        return all(_fits(type(value), wanted) for value in get_args(given))
    origin, target = get_origin(given) or given, get_origin(wanted) or wanted
    for group in (_SEQUENCES, _MAPPINGS):
        if target in group:
            return origin in group and _parts_fit(_parts(given), _parts(wanted))
    if not (isinstance(origin, type) and isinstance(target, type)):
        return False
    if origin is bool:
        return target is bool
    return issubclass(origin, (int, float) if target is float else target)


def _choices(literal: Any) -> set[tuple[type, Any]]:
    return {(type(value), value) for value in get_args(literal)}  # 1 and True are not the same


def _parts(kind: Any) -> tuple[tuple[Any, ...], bool]:
    """Return the types of the items, and whether they are one per item."""
    arguments = get_args(kind)
    if get_origin(kind) is tuple:
        fixed = arguments[-1:] != (...,)
        return (arguments if fixed else arguments[:1]), fixed
    return arguments, False


def _parts_fit(given: tuple[tuple[Any, ...], bool], wanted: tuple[tuple[Any, ...], bool]) -> bool:
    (parts, fixed), (allowed, as_many) = given, wanted
    if not allowed and not as_many:
        return True  # a bare list or dict takes anything
    if as_many:
        return fixed and len(parts) == len(allowed) and all(map(fits, parts, allowed))
    if len(allowed) == 1:
        return all(fits(part, allowed[0]) for part in parts or (Any,))
    return all(map(fits, parts or (Any, Any), allowed))


def _describe(kind: Any) -> str:
    if kind is _NONE:
        return "None"
    if kind is ...:
        return "..."
    arguments = get_args(kind)
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, arguments))
    name = getattr(get_origin(kind) or kind, "__name__", str(kind))
    return f"{name}[{', '.join(map(describe, arguments))}]" if arguments else str(name)

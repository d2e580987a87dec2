"""Unique names of statistics: Data-Juicer's key, with what tells two operators apart."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from djsandbox_ray.stats import inspection
from djsandbox_ray.stats.operators import OperatorSpec


def statistic_names(specs: Sequence[OperatorSpec]) -> tuple[tuple[str, ...], ...]:
    """Return a unique name per operator and key.

    A name is the key; where several operators write one key, it is ``key[parameter=value]`` with
    the parameters in which they differ, or ``key[operator]`` if they are of different classes.
    """
    writers: dict[str, list[OperatorSpec]] = defaultdict(list)
    for spec in specs:
        for key in spec.keys:
            writers[key].append(spec)
    return tuple(tuple(_name(key, spec, writers[key]) for key in spec.keys) for spec in specs)


def _name(key: str, spec: OperatorSpec, writers: list[OperatorSpec]) -> str:
    if len(writers) == 1:
        return key
    same = [other for other in writers if other.name == spec.name]
    parts = [spec.name] if len(same) < len(writers) else []
    if len(same) > 1:
        given = sorted({name for other in same for name in other.influences})
        rows = {name: [_value(other, name) for other in same] for name in given}
        short = {name: [_short(value) for value in values] for name, values in rows.items()}
        mine = same.index(spec)
        for name in given:
            if len(set(rows[name])) > 1:
                # The last part of a path is enough, unless two paths end alike.
                shown = short if len(set(short[name])) == len(set(rows[name])) else rows
                parts.append(f"{name}={shown[name][mine]}")
    return f"{key}[{','.join(parts)}]"


def _value(spec: OperatorSpec, name: str) -> str:
    default: Any = inspection.parameters(spec.filter_class)[name].default
    return str(spec.params.get(name, default))


def _short(value: str) -> str:
    return Path(value).name if "/" in value else value

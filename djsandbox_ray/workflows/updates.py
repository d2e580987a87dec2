"""The configuration of a later round: keys replaced by what the round before has given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from djsandbox_ray.config import RunConfig, checked, replaced
from djsandbox_ray.workflows.references import nearest

_FIXED = ("name", "storage", "workflow", "tracking", "cluster")
"""What makes the run one run."""


def key_problems(config: RunConfig, keys: Iterable[str]) -> list[str]:
    """Return one line per key that no round can replace."""
    return [f"{key}: {what}" for key in keys if (what := _problem(config, key))]


def updated(config: RunConfig, name: str, values: Mapping[str, Any]) -> RunConfig:
    """Return a configuration with another name and some values replaced, checked again.

    Args:
        config: of the run.
        name: of the round.
        values: plain data by key, such as ``pools.within``.

    Raises:
        BadInput: a value does not fit its key.
    """
    document = {**config.model_dump(mode="json", by_alias=True), "name": name}
    for key, value in values.items():
        document = replaced(document, key, value)
    return checked(document, f"{name}, after the update of {', '.join(values)}")


def _problem(config: RunConfig, key: str) -> str | None:
    first, *rest = key.split(".")
    if first in _FIXED:
        return f"{first!r} stays as it is in all rounds"
    place: Any = config
    for name in (first, *rest):
        if isinstance(place, BaseModel):
            fields = type(place).model_fields
            if name not in fields:
                return f"unknown key {name!r}{nearest(name, fields)} (known: {', '.join(fields)})"
            place = getattr(place, name)
        elif isinstance(place, list):
            if not name.isdecimal() or int(name) >= len(place):
                return f"there is no {name!r} in a list of {len(place)}"
            place = place[int(name)]
        elif isinstance(place, dict) or place is None:
            return None  # free, or made by the update: checked with the value
        else:
            return f"there is no {name!r} in {place!r}"
    return None

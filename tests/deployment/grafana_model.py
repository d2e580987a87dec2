"""A dashboard against the models that Grafana publishes for its JSON: keys, types and choices."""

from __future__ import annotations

import copy
import json
import typing
from collections.abc import Iterator
from enum import Enum
from typing import Any

from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.runtime import Runtime
from grafana_foundation_sdk.models import units
from grafana_foundation_sdk.models.dashboard import Dashboard
from pydantic import ConfigDict, TypeAdapter, ValidationError

NOT_MODELLED = ("definition",)
"""What Grafana itself writes into a variable, and its model does not have."""
ANYTHING = ConfigDict(arbitrary_types_allowed=True)

plugins.register_default_plugins()


def errors(document: Any) -> list[str]:
    """Return what the models do not know or would not allow, with its place."""
    given = copy.deepcopy(document)
    for variable in given["templating"]["list"]:
        for key in NOT_MODELLED:
            variable.pop(key, None)
    model = Dashboard.from_json(copy.deepcopy(given))
    back = json.loads(JSONEncoder().encode(model))
    return [*_lost(given, back, "dashboard"), *_wrong(model, "dashboard"), *_unknown(given)]


def _lost(given: Any, back: Any, place: str) -> Iterator[str]:
    """Name what a model did not keep. It adds its defaults: they are no difference."""
    if isinstance(given, dict) and isinstance(back, dict):
        for key, value in given.items():
            if key in back:
                yield from _lost(value, back[key], f"{place}.{key}")
            else:
                yield f"{place}.{key} is unknown"
    elif isinstance(given, list) and isinstance(back, list) and len(given) == len(back):
        for index, (one, other) in enumerate(zip(given, back, strict=True)):
            yield from _lost(one, other, f"{place}[{index}]")
    elif given != back:
        yield f"{place} was {given!r} and becomes {back!r}"


def _wrong(value: Any, place: str) -> Iterator[str]:
    """Name what has another type than its model says: reading does not look at this."""
    if isinstance(value, list):
        for index, one in enumerate(value):
            yield from _wrong(one, f"{place}[{index}]")
    elif _is_model(value):
        for name, hint in typing.get_type_hints(type(value)).items():
            part, where = getattr(value, name), f"{place}.{name}"
            yield from _wrong(part, where)
            if not any(map(_is_model, part if isinstance(part, list) else [part])):
                try:
                    kind = TypeAdapter(hint, config=ANYTHING)
                    kind.validate_json(JSONEncoder().encode(part), strict=True)
                except ValidationError as error:
                    yield f"{where}: {error.errors()[0]['msg']}"


def _is_model(value: Any) -> bool:
    inside = type(value).__module__.startswith("grafana_foundation_sdk.models.")
    return inside and not isinstance(value, Enum)


def _unknown(document: Any) -> Iterator[str]:
    """Name units, and kinds of panels and of data sources, that are in no list of the models."""
    known = Runtime()
    for panel in document["panels"]:
        if panel["type"] not in (*known.panelcfg_variants, "row"):
            yield f"there is no panel {panel['type']}"
        unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit", "short")
        if unit not in vars(units).values():
            yield f"there is no unit {unit}"
        for target in panel.get("targets", ()):
            if target["datasource"]["type"] not in known.dataquery_variants:
                yield f"there is no data source {target['datasource']['type']}"

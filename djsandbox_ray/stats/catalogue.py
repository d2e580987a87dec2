"""Every filter that the installed Data-Juicer offers, as ``djsandbox operators`` lists them.

A list of all, each with its defaults; or one of them, as a configuration gives it, with where its
needs are looked for and how to get what is missing.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from djsandbox_ray.errors import BadInput, unknown
from djsandbox_ray.stats import inspection
from djsandbox_ray.stats.datajuicer import load
from djsandbox_ray.stats.endpoint import EndpointConfig
from djsandbox_ray.stats.needs import Need, needs
from djsandbox_ray.stats.operators import OperatorSpec, unusable, written_out


@dataclass(frozen=True)
class OperatorInfo:
    """One filter, with its default parameters."""

    name: str
    statistics: tuple[str, ...]
    """Keys that it writes; with a list per sample, the statistic is the mean."""
    modality: str
    """text, image, video, audio or multimodal."""
    parameters: tuple[str, ...]
    """``name=default``."""
    thresholds: tuple[str, ...]
    """Parameters that decide what is kept and do not change the statistics."""
    needs: tuple[str, ...]
    """What must be there, or be given as a parameter."""
    missing: tuple[str, ...]
    """What of it is not there."""
    obstacle: str | None
    """Why it cannot be used on a sample table at all, if so."""

    @property
    def available(self) -> bool:
        """Whether it can be used here without further parameters."""
        return not self.missing and self.obstacle is None


@dataclass(frozen=True)
class OperatorParameter:
    """One parameter of a filter."""

    name: str
    value: Any
    """As the configuration gives it, else the default."""
    given: bool
    threshold: bool
    """Whether it decides what is kept only, and changes no statistic."""


@dataclass(frozen=True)
class OperatorPage:
    """One filter with its parameters."""

    name: str
    does: str
    """What Data-Juicer says that it does; one sentence."""
    statistics: tuple[str, ...]
    modality: str
    parameters: tuple[OperatorParameter, ...]
    needs: tuple[Need, ...]
    obstacle: str | None
    """Why it cannot be used at all, if so."""


def describe(
    name: str,
    given: Sequence[OperatorSpec] = (),
    models: str | None = None,
    endpoint: EndpointConfig | None = None,
) -> tuple[OperatorPage, ...]:
    """Look closely at one filter: what it computes and needs, and what of that is here.

    Args:
        name: of the filter.
        given: the operators of a configuration; those of this name are described.
        models: the folder of model files, ``statistics.models``.
        endpoint: where a language model is, ``statistics.endpoint``.

    Returns:
        A page for each operator of the name, or one with the defaults.

    Raises:
        BadInput: there is no such filter; names those that are nearest.
    """
    dj = load()
    if name in dj.others:
        raise BadInput(f"{name!r} is not a filter; only filters compute statistics")
    if name not in dj.filters:
        raise unknown("operator", name, dj.filters, listed="'djsandbox operators' lists all")
    specs = [spec for spec in given if spec.name == name] or [written_out(name, {})]
    return tuple(_page(spec, needs(spec, models, endpoint)) for spec in specs)


def _page(spec: OperatorSpec, found: tuple[Need, ...]) -> OperatorPage:
    cls = spec.filter_class
    decision = inspection.decision_parameters(cls)
    return OperatorPage(
        name=spec.name,
        does=_does(cls),
        statistics=spec.keys,
        modality=_modality(cls),
        parameters=tuple(
            OperatorParameter(name, value, name in spec.params, name in decision)
            for name, value in spec.values.items()
        ),
        needs=found,
        obstacle=unusable(spec.name),
    )


def catalogue() -> tuple[OperatorInfo, ...]:
    """List all filters, sorted by name; loads no model and downloads nothing."""
    return tuple(_describe(name) for name in sorted(load().filters))


def matching(
    found: Sequence[OperatorInfo], modality: str | None = None, search: str | None = None
) -> tuple[OperatorInfo, ...]:
    """Return those filters that somebody looks for.

    Args:
        found: filters.
        modality: what they read; None for all.
        search: words that must all stand in a filter's name, its statistics or what it says that it
            does; None for all.

    Raises:
        BadInput: no filter reads such a thing.
    """
    known = sorted({entry.modality for entry in found})
    if modality is not None and modality not in known:
        raise unknown("modality", modality, known)
    words = (search or "").lower().split()
    return tuple(
        entry
        for entry in found
        if modality in (None, entry.modality) and all(word in _text(entry) for word in words)
    )


def _text(entry: OperatorInfo) -> str:
    """Return what a filter is looked for in."""
    return " ".join([entry.name, *entry.statistics, _does(load().filters[entry.name])]).lower()


def _does(cls: type) -> str:
    """Return the first paragraph of what a filter says of itself, in one line."""
    return " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())


def _describe(name: str) -> OperatorInfo:
    spec = written_out(name, {})
    cls = spec.filter_class
    known = inspection.parameters(cls)
    decision = inspection.decision_parameters(cls)
    found = needs(spec)
    obstacle = unusable(name)
    return OperatorInfo(
        name=name,
        statistics=inspection.statistic_keys(cls),
        modality=_modality(cls),
        parameters=tuple(f"{key}={value!r}" for key, value in spec.values.items()),
        thresholds=tuple(key for key in known if key in decision),
        needs=tuple(need.what for need in found),
        obstacle=obstacle,
        missing=tuple(need.what for need in found if not need.there),
    )


def _modality(cls: type) -> str:
    kinds = inspection.reads(cls)
    return next(iter(kinds)) if len(kinds) == 1 else "multimodal"

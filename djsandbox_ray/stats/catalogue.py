"""Every filter that the installed Data-Juicer offers, as ``djsandbox operators`` lists them."""

from __future__ import annotations

from dataclasses import dataclass

from djsandbox_ray.stats import inspection
from djsandbox_ray.stats.datajuicer import load
from djsandbox_ray.stats.needs import needs
from djsandbox_ray.stats.operators import unusable, written_out


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


def catalogue() -> tuple[OperatorInfo, ...]:
    """List all filters, sorted by name; loads no model and downloads nothing."""
    return tuple(_describe(name) for name in sorted(load().filters))


def _describe(name: str) -> OperatorInfo:
    spec = written_out(name, {})
    cls = spec.filter_class
    known = inspection.parameters(cls)
    decision = inspection.decision_parameters(cls)
    kinds = inspection.reads(cls)
    found = needs(spec)
    obstacle = unusable(name)
    return OperatorInfo(
        name=name,
        statistics=inspection.statistic_keys(cls),
        modality=next(iter(kinds)) if len(kinds) == 1 else "multimodal",
        parameters=tuple(f"{key}={value!r}" for key, value in spec.values.items()),
        thresholds=tuple(key for key in known if key in decision),
        needs=tuple(need.what for need in found),
        obstacle=obstacle,
        missing=tuple(need.what for need in found if not need.there),
    )

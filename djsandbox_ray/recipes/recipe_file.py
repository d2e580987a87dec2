"""A recipe as Data-Juicer reads it: its operators, what each of them reads, and its promise.

It promises to keep the rows whose statistics lie within its thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from djsandbox_ray.dataset.media import Kind
from djsandbox_ray.errors import BadInput
from djsandbox_ray.pools.eligible import inside
from djsandbox_ray.recipes.ranges import UNBOUNDED, kept, thresholds
from djsandbox_ray.records import Range
from djsandbox_ray.settings.yaml_input import read_mapping
from djsandbox_ray.stats import inspection
from djsandbox_ray.stats.datajuicer import load
from djsandbox_ray.stats.models import is_url, on_this_node
from djsandbox_ray.stats.operators import OperatorSpec, parse_process, statistic_names


@dataclass(frozen=True)
class RecipeFile:
    """A recipe whose operators are filters of samples: texts with their images and videos."""

    path: Path
    settings: dict[str, Any]
    """All keys of the YAML."""
    process: tuple[OperatorSpec, ...]
    """The operators with all of their parameters, in order."""

    @property
    def operators(self) -> tuple[OperatorSpec, ...]:
        """The operators without thresholds and keys: what determines their statistics.

        One that stands there again, with another threshold, is there once.

        Raises:
            BadInput: an operator or a parameter is not known, or two give the same statistics.
        """
        process = []
        for spec in map(bare, self.process):
            if {spec.name: spec.params} not in process:
                process.append({spec.name: spec.params})
        return parse_process(process, where=f"{self.path}: process")

    @property
    def text_columns(self) -> dict[str, bool]:
        """The text columns that the recipe reads, and whether the text holds an image token.

        Raises:
            BadInput: one column is read by an operator that needs the token and by one that would
                take it for text.
        """
        readers: dict[str, dict[bool, str]] = {key: {} for key in self._text_keys}
        for spec in self.process:
            if "text" in inspection.reads(spec.filter_class):
                key = spec.params.get("text_key") or self._text_keys[0]
                with_token = inspection.needs_tokens(spec.filter_class)
                readers.setdefault(key, {})[with_token] = spec.name
        for key, found in readers.items():
            if len(found) > 1:
                raise BadInput(
                    f"{self.path}: {found[True]} looks for {load().image_token} in the column "
                    f"{key!r}, where {found[False]} would count it as text: give one of them a "
                    "column of its own with text_key"
                )
        return {key: True in found for key, found in readers.items()}

    def media_columns(self, kind: Kind) -> tuple[str, ...]:
        """Return the columns of paths of images, or of videos, that the recipe reads."""
        key = f"{kind}_key"
        default = self.settings.get(key, f"{kind}s")
        keys = [
            spec.params.get(key) or default
            for spec in self.process
            if kind in inspection.reads(spec.filter_class)
        ]
        return tuple(dict.fromkeys(keys))

    @property
    def second_columns(self) -> tuple[str, ...]:
        """The columns of further texts that texts are compared with, which are of meta data."""
        found = (spec.second for spec in self.process)
        return tuple(dict.fromkeys(column for column in found if column is not None))

    @property
    def _text_keys(self) -> list[str]:
        keys = self.settings.get("text_keys") or "text"
        return [keys] if isinstance(keys, str) else list(keys)


def without_keys(spec: OperatorSpec) -> OperatorSpec:
    """Return an operator without what says how Data-Juicer runs it and which columns it reads."""
    return _without(spec, inspection.runner_parameters())


def bare(spec: OperatorSpec) -> OperatorSpec:
    """Return an operator without thresholds, too: what computes its statistics."""
    decide = inspection.decision_parameters(spec.filter_class)
    return _without(spec, decide | inspection.runner_parameters())


def _without(spec: OperatorSpec, names: Collection[str]) -> OperatorSpec:
    params = {name: value for name, value in spec.params.items() if name not in names}
    return OperatorSpec(spec.name, params)


def read_recipe(path: Path) -> RecipeFile:
    """Read a recipe.

    Raises:
        BadInput: it cannot be read, or its ``process`` is not a list of filters with parameters.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"recipe {path}: cannot be read: {error}") from error
    settings = read_mapping(text, str(path))
    process = settings.get("process")
    if not isinstance(process, list) or not process:
        raise BadInput(f"{path}: process: a list of at least one Data-Juicer filter is needed")
    specs: list[OperatorSpec] = []
    said: dict[str, dict[str, Any]] = {}
    for index, item in enumerate(process):
        spec = _operator(item, f"{path}: process[{index}]")
        # As Data-Juicer does: what an operator that stands there again leaves out, it takes over.
        params = said[spec.name] = {**said.get(spec.name, {}), **spec.params}
        specs.append(OperatorSpec(spec.name, params))
    return RecipeFile(path, settings, tuple(specs))


@contextmanager
def runnable(recipe: RecipeFile, folder: Path) -> Iterator[Path]:
    """Give the recipe as Data-Juicer can run it on this node, which knows no URLs of models.

    Args:
        recipe: the recipe; without such URLs it is given as it is.
        folder: an existing folder for the changed one.
    """
    if not any(is_url(*item) for spec in recipe.process for item in spec.params.items()):
        yield recipe.path
        return
    with ExitStack() as held:
        process = [
            {spec.name: held.enter_context(on_this_node(spec.params))} for spec in recipe.process
        ]
        path = folder / recipe.path.name
        path.write_text(yaml.safe_dump({**recipe.settings, "process": process}, sort_keys=False))
        yield path


def _operator(item: Any, where: str) -> OperatorSpec:
    if not isinstance(item, dict) or len(item) != 1:
        raise BadInput(f"{where}: one 'name: {{parameter: value}}' is needed, not {item!r:.80}")
    name, params = next(iter(item.items()))
    if name not in load().filters:
        raise BadInput(f"{where}: {name!r} is not a filter of Data-Juicer {load().version}")
    if params is not None and not isinstance(params, dict):
        raise BadInput(f"{where}.{name}: parameters must be a mapping, not {params!r:.80}")
    return OperatorSpec(name, params or {})


@dataclass(frozen=True)
class Promise:
    """Ranges, and the statistics that they are about."""

    ranges: tuple[Range, ...]
    columns: Mapping[str, NDArray[np.float64]]
    """By name, each (rows,); read when asked for."""

    def mask(self) -> NDArray[np.bool_]:
        """Return which rows are inside every range, shape (rows,)."""
        return kept(self.columns, self.ranges)

    def explain(self, rows: NDArray[np.int64]) -> list[list[dict[str, Any]]]:
        """Return, per row, what stands against it, or all that is known where nothing does.

        Returns:
            Per range ``statistic``, ``value`` (None for no value), ``low``, ``high``, ``inside``.
        """
        found: list[list[dict[str, Any]]] = [[] for _ in rows]
        for r in self.ranges:
            values = self.columns[r.statistic][rows]
            within = inside(values, r.low, r.high)
            for row, value, good in zip(found, values.tolist(), within.tolist(), strict=True):
                shown = value if math.isfinite(value) else None
                row.append({"statistic": r.statistic, "value": shown, "low": r.low, "high": r.high})
                row[-1]["inside"] = good
        return [[item for item in row if not item["inside"]] or row for row in found]


def promised_ranges(recipe: RecipeFile) -> tuple[Range, ...]:
    """Read the thresholds of a recipe back as ranges; those left out are Data-Juicer's defaults.

    Returns:
        One range per statistic of :attr:`~.recipe_file.RecipeFile.operators`, by its name there; of
        an operator that stands there again, what all of its thresholds keep.

    Raises:
        BadInput: an operator keeps something else than one range of each of its statistics.
    """
    operators = recipe.operators
    ranges: dict[str, Range] = {}
    named = list(zip(operators, statistic_names(operators), strict=True))
    for spec in recipe.process:
        names = next(some for operator, some in named if operator == bare(spec))
        for key, name in zip(spec.keys, names, strict=True):
            try:
                low, high = bounds(spec, key)
            except BadInput as error:
                raise BadInput(f"{recipe.path}: {error}") from error
            known = ranges.get(name, Range(name, None, None))
            lows = [bound for bound in (known.low, low) if bound is not None]
            highs = [bound for bound in (known.high, high) if bound is not None]
            ranges[name] = Range(name, max(lows, default=None), min(highs, default=None))
    return tuple(ranges.values())


def bounds(spec: OperatorSpec, key: str) -> tuple[float | None, float | None]:
    """Return between which values of a statistic an operator keeps rows, these included.

    Raises:
        BadInput: it keeps something else than one range.
    """
    names = thresholds(spec, key)
    low, high = _bound(spec, names.low), _bound(spec, names.high)
    low_counts = spec.params.get("min_closed_interval", True)
    high_counts = spec.params.get("max_closed_interval", True)
    if spec.params.get("reversed_range", False):
        # What lay within the bounds is dropped; a bound that was included is kept all the same.
        if names.low and names.high:
            raise BadInput(f"{spec.name} with reversed_range keeps two ranges of {key}, not one")
        low, high, low_counts, high_counts = high, low, high_counts, low_counts
    if low is not None and not low_counts:
        low = math.nextafter(low, math.inf)
    if high is not None and not high_counts:
        high = math.nextafter(high, -math.inf)
    return low, high


def _bound(spec: OperatorSpec, name: str | None) -> float | None:
    """Return the number that a parameter stands for; None where it keeps nothing out."""
    if name is None:
        return None
    value: Any = spec.params.get(name, inspection.parameters(spec.filter_class)[name].default)
    if isinstance(value, str):
        from data_juicer.utils.mm_utils import size_to_bytes

        value = size_to_bytes(value)
    return None if value is None or abs(value) >= UNBOUNDED else float(value)

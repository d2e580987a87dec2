"""What a recipe decides of some rows: by Data-Juicer's own rules, and by the statistics.

Of a sample with several images, a filter compares each with its thresholds, and one without it
keeps; the statistic is a mean, or has no value. So too of a sample without the second text that
its own is to be compared with. Here both decisions are made of the same values, so that a row can
be told on which they must differ from one where something else is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.dataset.media import Kind
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.dataset.writers.formats import Row
from djsandbox_ray.dataset.writers.materialise import stored_rows
from djsandbox_ray.pools.eligible import inside
from djsandbox_ray.recipes.recipe_file import RecipeFile, bare, bounds, without_keys
from djsandbox_ray.records import Range
from djsandbox_ray.stats.datajuicer import use_models
from djsandbox_ray.stats.fused import Computed, FusedOperators
from djsandbox_ray.stats.operators import OperatorSpec, meta_text, statistic_names

_ROWS = 8
"""Rows that are computed together: each may hold videos."""


@dataclass(frozen=True)
class Decisions:
    """Which rows are kept, of shape (n,)."""

    data_juicer: NDArray[np.bool_]
    """By what every operator says of its values: those of each image, of each video."""
    statistics: NDArray[np.bool_]
    """By the means of these values; a row without a value is not kept."""


def decisions(
    recipe: RecipeFile,
    table: SampleTable,
    rows: NDArray[np.int64],
    *,
    pairs: bool,
    promised: Iterable[Range] = (),
    models: str | None = None,
) -> Decisions:
    """Compute the operators of a recipe on some rows, in this process, and decide twice.

    Operators that ask an API are left out: of their one value both ways say the same.

    Args:
        recipe: with models that are here.
        table: the sample table.
        rows: (n,), row ids.
        pairs: whether the table is one of pairs.
        promised: between which values the statistics keep rows, where a recipe cannot say it to the
            letter: a filter of whole numbers keeps heights up to 80, and a mean may be 80.5.
        models: the folder of model files; None for what the environment says.

    Raises:
        BadInput: an operator cannot be used, or keeps something else than one range.
    """
    use_models(models)
    specs = [without_keys(spec) for spec in recipe.process if not spec.asks]
    limits = {r.statistic: (r.low, r.high) for r in promised}
    named = list(zip(recipe.operators, statistic_names(recipe.operators), strict=True))
    names = [next(some for one, some in named if one == bare(spec)) for spec in specs]
    fused = FusedOperators(specs, pairs=pairs, decide=True)
    by_rule, by_mean = np.ones((2, len(rows)), dtype=np.bool_)
    for start in range(0, len(rows), _ROWS):
        part = slice(start, start + _ROWS)
        found = _computed(fused, specs, [*stored_rows(table, rows[part])])
        for spec, its, computed in zip(specs, names, found, strict=True):
            by_rule[part] &= computed.kept
            for key, name in zip(spec.keys, its, strict=True):
                low, high = limits.get(name) or bounds(spec, key)
                by_mean[part] &= inside(computed.columns[key], low, high)
    return Decisions(by_rule, by_mean)


def _computed(
    fused: FusedOperators, specs: Sequence[OperatorSpec], rows: Sequence[Row]
) -> list[Computed]:
    every = range(len(specs))

    def files(kind: Kind) -> list[list[bytes]]:
        return [[medium.data for medium in row.media if medium.kind == kind] for row in rows]

    fields = {
        name: [meta_text(row.meta, name) for row in rows] for name in fused.reads_fields(every)
    }
    return fused(
        [row.text for row in rows],
        files("image") if fused.reads_images(every) else None,
        every,
        files("video") if fused.reads_videos(every) else None,
        fields,
    )

"""What the run looked at, for people to look at: samples of pools, and of every statistic.

Of a statistic: how its values are spread, where it was cut, and the samples at both ends and at the
cuts. A cut that makes no sense to the eye makes none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.analysis.together.clusters import ward
from djsandbox_ray.analysis.together.correlation import correlate
from djsandbox_ray.pools.cuts import EXCLUDED
from djsandbox_ray.pools.order import hash_key, least
from djsandbox_ray.records import Pool, PoolKind, Pools, RankingRow
from djsandbox_ray.reporting.blocks import Block, Card, Chapter, Gallery, Picture
from djsandbox_ray.reporting.figures import VERDICT_COLOURS, caption, escaped, svg
from djsandbox_ray.reporting.heatmap import heat_map
from djsandbox_ray.reporting.ranking import NOTHING, Unit
from djsandbox_ray.reporting.sample_cards import Rows, SampleCards, at_the_end
from djsandbox_ray.storage.store import Storage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_AT_RANDOM = 12
"""Samples of a pool."""
_AT_ENDS = 4
"""Samples at either end of a statistic, and at every cut, half of them on each side."""
_OPEN = 2
"""Statistics whose samples are seen without unfolding them."""
_BINS = 40
_TAIL = 0.002
"""Share of the values at either end that the first and the last bar gather."""
_LIKE = "#B8B8B8"
_LINE = 0.12
"""Height of a line of small writing, as a share of a histogram."""
_GROUP_COLOURS = ("#000000", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
# Of Okabe and Ito's, those that no verdict has.
_OTHERS = "others"
_CORRELATED = 20_000
"""Rows of which correlations are computed."""
_LEAST_CORRELATED = 2
_CORRELATION = "Correlation of the statistics"

Columns = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Groups:
    """Which group every sample belongs to, by a label of its metadata."""

    names: tuple[str, ...]
    """Those with most samples first; what is left is one group, the last."""
    codes: NDArray[np.int8]
    """(rows of the dataset,): places in ``names``."""

    @classmethod
    def of(cls, labels: Iterable[Sequence[str]]) -> Groups:
        """Return the groups that labels make.

        Args:
            labels: of every row, in chunks.
        """
        numbers: dict[str, int] = {}
        chunks = [
            np.array([numbers.setdefault(name, len(numbers)) for name in chunk], dtype=np.int64)
            for chunk in labels
        ]
        rows = np.concatenate([np.empty(0, dtype=np.int64), *chunks])
        counts = Counter(dict(zip(numbers, np.bincount(rows).tolist(), strict=True)))
        most = len(_GROUP_COLOURS)
        named = [name for name, _ in counts.most_common(most - (len(counts) > most))]
        places = {name: place for place, name in enumerate(named)}
        lookup = np.array([places.get(name, len(named)) for name in numbers], dtype=np.int8)
        names = (*named, _OTHERS) if len(counts) > len(named) else tuple(named)
        return cls(names, lookup[rows])


@dataclass(frozen=True)
class Shown:
    """What samples are chosen by."""

    storage: Storage
    pools: Pools
    """Of single operators."""
    rows: Sequence[RankingRow]
    columns: Columns
    """Statistics by name, each (rows of the dataset,); read one at a time."""
    unit: Unit
    cards: SampleCards | None = None
    """None: no sample is shown."""
    groups: Groups | None = None
    """None: none are known."""
    verdicts: Mapping[str, RankingRow] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "verdicts", {row.pool: row for row in self.rows})

    def codes(self, column: str) -> NDArray[np.int8]:
        """Return the codes of a column of the assignments, (rows of the dataset,)."""
        table = self.storage.read_table(self.pools.assignments, ["row_id", column])
        codes = np.full(table.num_rows, EXCLUDED, dtype=np.int8)
        codes[table["row_id"].to_numpy()] = table[column].to_numpy()
        return codes

    def extremes(self) -> dict[str, str]:
        """Return the best pool, the worst and a control, as far as there are any, with titles."""
        known = {pool.id for pool in self.pools.pools}
        judged = [
            row
            for row in sorted(self.rows, key=lambda row: row.rank)
            if row.kind is PoolKind.BUCKET and row.pool in known and np.isfinite(row.change)
        ]
        found = {row.pool: f"{row.pool}: {_said(row, self.unit)}" for row in judged[:1]}
        found |= {row.pool: f"{row.pool}: {_said(row, self.unit)}" for row in judged[1:][-1:]}
        controls = [pool.id for pool in self.pools.pools if pool.kind is PoolKind.CONTROL]
        random = {name: f"{name}: random, what pools are compared with" for name in controls[:1]}
        return {**found, **random}


def pools_chapter(shown: Shown) -> Chapter | None:
    """Return samples at random of the best pool, of the worst and of a control; None for none."""
    wanted = shown.extremes()
    if shown.cards is None or not wanted:
        return None
    known = {pool.id: pool for pool in shown.pools.pools}
    groups = [(title, _at_random(shown, known[name])) for name, title in wanted.items()]
    line = f"{_AT_RANDOM} at random from the best pool, from the worst and from a control."
    return Chapter("Samples", [line], [Gallery("", groups)])


def statistics_chapter(shown: Shown) -> Chapter | None:
    """Return every statistic with its values and samples, those with the greatest change first.

    None where no statistic has pools.
    """
    members: dict[str, list[Pool]] = {}
    for pool in shown.pools.pools:
        if pool.kind is PoolKind.BUCKET and pool.statistic is not None:
            members.setdefault(pool.statistic, []).append(pool)
    names = sorted(members, key=lambda name: _rank(shown, members[name]))
    known = {*shown.columns}  # to ask the columns themselves would read them
    blocks: list[Block] = []
    for place, name in enumerate(names):
        if name in known:
            buckets = sorted(members[name], key=lambda pool: pool.code)
            blocks.append(_statistic(shown, name, buckets, is_open=place < _OPEN))
    if not blocks:
        return None
    lines = ["How the values are spread, where they were cut, and what lies there."]
    return Chapter("Every statistic", lines, blocks)


def correlation_picture(shown: Shown) -> Picture | None:
    """Return how the statistics correlate, like beside like; None for fewer than two.

    Of a large dataset, some rows by chance: of 20,000, r is right to 0.01.
    """
    known = {*shown.columns}
    names = [name for name in shown.pools.contrast if name in known]
    if len(names) < _LEAST_CORRELATED:
        return None
    chosen: Rows | None = None
    columns = []
    for name in names:
        values = shown.columns[name]
        if chosen is None:
            key = hash_key(shown.pools.seed, "report", "correlation")
            chosen = least(np.arange(len(values)), _CORRELATED, key)
        columns.append(np.where(np.isfinite(values[chosen]), values[chosen], np.nan))
    found = correlate(names, [np.stack(columns, axis=1)])
    alive = [name for name in names if name not in found.constant]
    if len(alive) < _LEAST_CORRELATED:
        return None
    tree = ward(found.of(alive), 1, absolute=True)
    note = f"of {len(columns[0]):,} rows; the tree: Ward linkage on sqrt(2 (1 - |r|))"
    return svg_picture(_CORRELATION, heat_map(found, tree, title=_CORRELATION, note=note))


def _statistic(shown: Shown, name: str, buckets: Sequence[Pool], *, is_open: bool) -> Gallery:
    values, codes = shown.columns[name], shown.codes(buckets[0].column)
    inside = codes != EXCLUDED
    groups = shown.groups and Groups(shown.groups.names, shown.groups.codes[inside])
    figure = histogram(values[inside], buckets, shown.verdicts, title=name, groups=groups)
    samples = [*_at_places(shown, name, buckets, values, codes)] if shown.cards else []
    said = ", ".join(
        f"{pool.bucket} {row.verdict}"
        for pool in buckets
        if (row := shown.verdicts.get(pool.id)) is not None
    )
    return Gallery(f"{name}: {said}" if said else name, samples, svg_picture(name, figure), is_open)


def svg_picture(title: str, figure: Figure) -> Picture:
    """Return a figure as a picture of the page that stays sharp however it is scaled."""
    return Picture(title, svg(figure), "image/svg+xml")


def _at_places(
    shown: Shown,
    name: str,
    buckets: Sequence[Pool],
    values: NDArray[np.float64],
    codes: NDArray[np.int8],
) -> Iterator[tuple[str, list[Card]]]:
    """Yield the samples of the lowest values, those at every cut, those of the highest."""
    key, half = hash_key(shown.pools.seed, "report", name), _AT_ENDS // 2
    inside = [np.flatnonzero(codes == pool.code) for pool in buckets]

    def cards(rows: Rows) -> list[Card]:
        assert shown.cards is not None
        return shown.cards.of(rows, [f"{values[row]:.4g}" for row in rows])

    yield "lowest", cards(at_the_end(values, inside[0], _AT_ENDS, key, highest=False))
    for place, (below, above) in enumerate(pairwise(inside)):
        rows = [
            at_the_end(values, below, half, key, highest=True),
            at_the_end(values, above, half, key, highest=False),
        ]
        names = f"{buckets[place].bucket} and {buckets[place + 1].bucket}"
        yield f"at the cut between {names}", cards(np.concatenate(rows))
    yield "highest", cards(at_the_end(values, inside[-1], _AT_ENDS, key, highest=True))


def _at_random(shown: Shown, pool: Pool) -> list[Card]:
    assert shown.cards is not None
    rows = np.flatnonzero(shown.codes(pool.column) == pool.code)
    chosen = rows[least(rows, _AT_RANDOM, hash_key(shown.pools.seed, "report", pool.id))]
    return shown.cards.of(chosen)


def histogram(
    values: NDArray[np.float64],
    buckets: Sequence[Pool],
    verdicts: Mapping[str, RankingRow],
    *,
    title: str,
    groups: Groups | None = None,
) -> Figure:
    """Draw how many samples have which value, in the colours of the buckets' verdicts.

    A line for each group says how many of these are its own.

    Args:
        values: of the rows that pools are made of; NaN for no value.
        buckets: of the statistic, lowest first.
        verdicts: by pool.
        title: shown above, as plain text.
        groups: of the same rows.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 2.1), layout="constrained")
    axes = figure.add_subplot()
    finite = np.isfinite(values)
    there = values[finite]
    axes.set_title(escaped(title), loc="left", fontsize=10)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.set_yticks([])
    if not len(there):
        caption(figure, "no finite value")
        return figure
    low, high = np.quantile(there, [_TAIL, 1 - _TAIL])
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts, edges = np.histogram(np.clip(there, low, high), bins=_BINS, range=(low, high))
    cuts = [pool.low for pool in buckets[1:] if pool.low is not None]
    middles = (edges[:-1] + edges[1:]) / 2
    found = (verdicts.get(pool.id) for pool in buckets)
    names = [NOTHING if row is None else row.verdict for row in found]
    colours = [
        VERDICT_COLOURS.get(names[min(bucket, len(names) - 1)], _LIKE)
        for bucket in np.searchsorted(cuts, middles, side="right")
    ]
    axes.bar(middles, counts, width=np.diff(edges), color=colours, linewidth=0)
    if groups is not None:
        clipped, found_codes = np.clip(there, low, high), groups.codes[finite]
        for place, name in enumerate(groups.names):
            own, _ = np.histogram(clipped[found_codes == place], bins=edges)
            axes.stairs(own, edges, color=_GROUP_COLOURS[place], label=escaped(name))
        figure.legend(loc="outside right upper", frameon=False, fontsize=7)
    for place, cut in enumerate(cuts):
        axes.axvline(cut, color="black", linewidth=1, linestyle="--")
        _name_cut(axes, cut, place, len(cuts))
    axes.tick_params(labelsize=8)
    lacking = len(values) - len(there)
    told = f"{len(there):,} samples" + (f", {lacking:,} without a value" if lacking else "")
    caption(figure, told)
    return figure


def _name_cut(axes: Axes, cut: float, place: int, count: int) -> None:
    """Write the value of a cut beside it, away from the others: they may be close together."""
    is_left = place < count / 2
    below = place if is_left else count - 1 - place
    axes.annotate(
        f"{cut:.4g} " if is_left else f" {cut:.4g}",
        (cut, 1 - _LINE * below),
        xycoords=("data", "axes fraction"),
        ha="right" if is_left else "left",
        va="top",
        fontsize=8,
    )


def _rank(shown: Shown, buckets: Sequence[Pool]) -> int:
    found = [shown.verdicts[pool.id].rank for pool in buckets if pool.id in shown.verdicts]
    return min(found, default=len(shown.rows) + 1)


def _said(row: RankingRow, unit: Unit) -> str:
    return f"{unit.text(row.change)} {unit}, {row.verdict}"

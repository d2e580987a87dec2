"""Pearson correlations of many columns with gaps, in one pass over chunks of rows."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from djsandbox_ray.errors import BadInput

Floats = NDArray[np.float64]

MIN_ROWS = 3
"""Two rows always correlate by -1 or 1: nothing is learnt from fewer than three."""
_NO_SPREAD = 1e-12
"""Share of a column's variance below which its variance beside another column is rounding."""


@dataclass(frozen=True, eq=False)
class Correlation:
    """Pairwise complete correlations: each of the rows in which both columns have a value."""

    names: tuple[str, ...]
    matrix: Floats
    """(columns, columns), symmetric, 1 on the diagonal; NaN where there is no correlation."""
    rows: NDArray[np.int64]
    """(columns, columns): rows in which both columns have a value."""

    @property
    def constant(self) -> tuple[str, ...]:
        """Columns that correlate with nothing: without spread, or with fewer than three values."""
        lost = np.isnan(np.diagonal(self.matrix))
        return tuple(name for name, bad in zip(self.names, lost, strict=True) if bad)

    @property
    def undefined(self) -> tuple[tuple[str, str], ...]:
        """Pairs of other columns without a correlation: too few common rows, or no spread there."""
        alive = ~np.isnan(np.diagonal(self.matrix))
        bad = np.isnan(self.matrix) & alive[:, None] & alive
        return tuple((self.names[i], self.names[j]) for i, j in np.argwhere(np.triu(bad)))

    def of(self, names: Sequence[str]) -> Correlation:
        """Return the correlations of some of the columns, in the order given."""
        places = np.array([self.names.index(name) for name in names], dtype=np.intp)
        cells = np.ix_(places, places)
        return Correlation(tuple(names), self.matrix[cells], self.rows[cells])


class CoMoments:
    """Counts, means and co-moments of every pair of columns, over the rows that have both.

    Chunks are centred on their own means, then joined by the pairwise update of Chan, Golub and
    LeVeque (1983, "Algorithms for computing the sample variance"): no sum of raw squares, which
    would lose the digits of columns far from zero. Memory: the chunk and a few matrices of
    (columns, columns).

    Args:
        names: of the columns, each once.
    """

    def __init__(self, names: Sequence[str]) -> None:
        if len(set(names)) != len(names) or not names:
            raise BadInput(f"columns are {list(names)}; at least one is needed, each once")
        self.names = tuple(names)
        shape = (len(names), len(names))
        self._n = np.zeros(shape)
        self._mean = np.zeros(shape)  # [i, j]: of column i, over the rows that have i and j
        self._square = np.zeros(shape)  # [i, j]: squared deviations of column i over these rows
        self._product = np.zeros(shape)

    def add(self, chunk: ArrayLike) -> None:
        """Take in rows, shape (rows, columns); NaN is no value.

        Raises:
            BadInput: another number of columns, or a value that is infinite.
        """
        values = np.asarray(chunk, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.names):
            raise BadInput(f"a chunk of shape {values.shape}; needed is (rows, {len(self.names)})")
        if (infinite := np.isinf(values).any(axis=0)).any():
            name = self.names[int(np.argmax(infinite))]
            raise BadInput(f"column {name!r} holds an infinite value; only NaN may be missing")
        has = (~np.isnan(values)).astype(np.float64)
        centre = np.where(has > 0, values, 0).sum(axis=0) / np.maximum(has.sum(axis=0), 1)
        deviation = np.where(has > 0, values - centre, 0)
        n = has.T @ has
        total = deviation.T @ has
        shift = total / np.maximum(n, 1)
        square = np.maximum((deviation**2).T @ has - total * shift, 0)
        product = deviation.T @ deviation - total * shift.T
        self._join(n, centre[:, None] + shift, square, product)

    def _join(self, n: Floats, mean: Floats, square: Floats, product: Floats) -> None:
        both = self._n + n
        share = n / np.maximum(both, 1)
        apart = np.where(n > 0, mean - self._mean, 0)
        weight = self._n * share
        self._square += square + apart**2 * weight
        self._product += product + apart * apart.T * weight
        self._mean += apart * share
        self._n = both

    def correlation(self) -> Correlation:
        """Return the correlations of what was taken in."""
        variance = self._square / np.maximum(self._n, 1)
        own = np.diagonal(variance)
        scale = np.maximum(np.abs(np.diagonal(self._mean)), np.sqrt(own))
        rounding = np.maximum(_NO_SPREAD * own, (8 * np.finfo(np.float64).eps * scale) ** 2)
        spread = (variance > rounding[:, None]) & (self._n >= MIN_ROWS)
        usable = spread & spread.T
        # Root by root: the product of two small sums of squares would underflow.
        divisor = np.where(usable, np.sqrt(self._square) * np.sqrt(self._square.T), 1)
        matrix = np.where(usable, np.clip(self._product / divisor, -1, 1), np.nan)
        matrix = (matrix + matrix.T) / 2  # equal but for the last digit
        np.fill_diagonal(matrix, np.where(np.diagonal(usable), 1.0, np.nan))
        return Correlation(self.names, matrix, self._n.astype(np.int64))


def correlate(names: Sequence[str], chunks: Iterable[ArrayLike]) -> Correlation:
    """Return the Pearson correlations of columns, each pair over the rows that have both.

    Args:
        names: of the columns.
        chunks: arrays of shape (rows, columns), of any number of rows; NaN is no value. A small
            table is one chunk.

    Raises:
        BadInput: no column or one twice; see :meth:`CoMoments.add`.
    """
    moments = CoMoments(names)
    for chunk in chunks:
        moments.add(chunk)
    return moments.correlation()

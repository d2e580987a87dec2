"""Rows that are walked where they lie give the very pools that rows in memory give."""

from __future__ import annotations

from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from djsandbox_ray.errors import BadInput, Damaged
from djsandbox_ray.pools.build import construct, lay_out
from djsandbox_ray.pools.config import PoolConfig
from djsandbox_ray.pools.filling import filled
from djsandbox_ray.records import Pool, Statistic
from djsandbox_ray.stats import stored_rows
from djsandbox_ray.stats.stored_rows import StoredRows
from djsandbox_ray.storage.store import Storage

NONE = np.empty(0, np.int64)
VALUES = st.sampled_from([-np.inf, -0.0, 0.0, 1.0, 2.0, np.inf, np.nan]) | st.floats(-9, 9)
FEW = st.sampled_from([0.0, 1.0])


def written(storage: Storage, columns: dict[str, np.ndarray], parts: int) -> list[Statistic]:
    """Write the parts of one operator; return its statistics."""
    rows = len(next(iter(columns.values())))
    for ids in np.array_split(np.arange(rows), parts):
        table = {"row_id": ids, **{name: column[ids] for name, column in columns.items()}}
        start = int(ids[0]) if len(ids) else rows
        storage.write_table(f"op.parquet/part-{start:012d}.parquet", pa.table(table))
    return [Statistic(name, name, "op", "op-id", "op.parquet") for name in columns]


@settings(max_examples=15, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(
    st.data(),
    st.integers(12, 90),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.integers(2, 4),
    st.booleans(),
)
def test_pools_are_those_of_rows_in_memory(data, rows, at_a_time, buckets, exclude) -> None:  # type: ignore[no-untyped-def]
    columns = {
        "any": data.draw(arrays(np.float64, rows, elements=VALUES)),
        "few": data.draw(arrays(np.float64, rows, elements=FEW)),
        "plain": np.random.default_rng(rows).permutation(rows).astype(float),
    }
    excluded = np.arange(0, rows, 5) if exclude else NONE
    config = PoolConfig(buckets=buckets, min_contrast=0.0, min_coverage=0.01, self_tests=False)
    assume(np.count_nonzero(~np.isnan(columns["any"])) > 3 * len(excluded) / 2 + 2 * buckets)
    whole = construct(np.arange(rows), columns, config, excluded)
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(stored_rows, "PART_ROWS", at_a_time[0])
        patch.setattr(stored_rows, "_SLICE_ROWS", at_a_time[1])
        storage = Storage(folder)
        stored = StoredRows(storage, written(storage, columns, 3), rows, excluded)
        layout = lay_out(stored, tuple(columns), config, map, {}, ())
        assert (layout.size, layout.draw_size) == (whole.size, whole.draw_size)
        assert (layout.contrast, layout.missing) == (whole.contrast, whole.missing)
        assert (layout.eligible, layout.not_testable) == (whole.eligible, whole.not_testable)
        pools: list[Pool] = []
        for column in (*layout.buckets, *layout.random):
            *parts, last = filled(column, stored)
            pools += last
            codes = np.concatenate(list(stored.expand(iter(parts))))
            np.testing.assert_array_equal(codes, whole.assignments[column.name])
        assert tuple(pools) == whole.pools


def test_a_single_row_is_a_part(tmp_path) -> None:
    storage = Storage(str(tmp_path))
    stored = StoredRows(storage, written(storage, {"x": np.array([7.5])}, 1), 1, NONE)
    ((row_ids, values),) = stored.reader("x")()
    assert (len(stored), row_ids.tolist(), values.tolist()) == (1, [0], [7.5])


def test_two_walks_do_not_disturb_each_other(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(stored_rows, "_SLICE_ROWS", 10)
    storage, column = Storage(str(tmp_path)), np.arange(35.0)
    read = StoredRows(storage, written(storage, {"x": column}, 2), 35, NONE).reader("x")
    for (_, one), (_, other) in zip(read(), read(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_excluded_rows_are_rows(tmp_path) -> None:
    with pytest.raises(BadInput, match="2 excluded rows are not in the dataset, such as -1"):
        StoredRows(Storage(str(tmp_path)), [], 5, np.array([4, 5, -1]))


def test_a_statistic_cannot_have_the_name_of_another_column(tmp_path) -> None:
    named = [Statistic("control/0", "x", "op", "op-id", "op.parquet")]
    with pytest.raises(BadInput, match="cannot be named 'control/0'"):
        StoredRows(Storage(str(tmp_path)), named, 5, NONE)


def test_rows_that_are_lacking_are_an_error(tmp_path) -> None:
    storage = Storage(str(tmp_path))
    stored = StoredRows(storage, written(storage, {"x": np.arange(9.0)}, 2), 10, NONE)
    with pytest.raises(Damaged):
        stored.reader("x")

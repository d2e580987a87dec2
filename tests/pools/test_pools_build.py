from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from factories import pools
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from djsandbox_ray.errors import BadInput
from djsandbox_ray.identity import rows_hash
from djsandbox_ray.pools.build import Construction, construct
from djsandbox_ray.pools.config import PoolConfig
from djsandbox_ray.pools.cuts import EXCLUDED, LEFT_OUT, NO_VALUE
from djsandbox_ray.pools.serialise import to_json
from djsandbox_ray.records import PoolKind, Pools

CONFIG = PoolConfig()


def columns_of(rng: np.random.Generator, n: int) -> dict[str, np.ndarray]:
    sparse = np.where(rng.random(n) < 0.9, 0.0, rng.random(n))
    gappy = rng.normal(size=n)
    gappy[rng.random(n) < 0.2] = np.nan
    return {
        "normal": rng.normal(size=n),
        "counts": rng.poisson(4, n).astype(float),
        "sparse": sparse,
        "gappy": gappy,
    }


def build(n: int = 900, seed: int = 0, **options: object) -> Construction:
    columns = columns_of(np.random.default_rng(seed), n)
    return construct(np.arange(n), columns, PoolConfig.model_validate(options))


@settings(deadline=None, max_examples=40)
@given(st.integers(90, 400), st.integers(0, 1_000), st.integers(2, 6), st.booleans())
def test_pools_are_disjoint_equal_and_complete(
    n: int, seed: int, buckets: int, exclude: bool
) -> None:
    columns = columns_of(np.random.default_rng(seed), n)
    excluded = np.arange(0, n, 17) if exclude else np.empty(0, dtype=np.int64)
    config = PoolConfig(buckets=buckets, min_contrast=0.0)
    built = construct(np.arange(n), columns, config, excluded)
    kept = ~np.isin(np.arange(n), excluded)
    for name, codes in built.assignments.items():
        pools = [pool for pool in built.pools if pool.column == name]
        assert [np.count_nonzero(codes == pool.code) for pool in pools] == [built.size] * len(pools)
        np.testing.assert_array_equal(codes == EXCLUDED, ~kept)
        if name in columns:
            assert len(pools) == buckets
            np.testing.assert_array_equal(codes == NO_VALUE, np.isnan(columns[name]) & kept)
            parts = [columns[name][codes == code] for code in range(buckets)]
            for lower, upper in pairwise(parts):
                assert lower.max() <= upper.min()
            assert [(pool.low, pool.high) for pool in pools] == [(p.min(), p.max()) for p in parts]
            values = int(np.count_nonzero(~np.isnan(columns[name][kept])))
            assert np.count_nonzero(codes == LEFT_OUT) == values - buckets * built.size
        else:
            assert len(pools) == 1


@settings(deadline=None, max_examples=25)
@given(st.integers(60, 300), st.integers(0, 1_000))
def test_pools_do_not_depend_on_row_order(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    columns, rows = columns_of(rng, n), rng.permutation(10 * n)[:n]
    order = rng.permutation(n)
    one = construct(rows, columns, CONFIG, rows[:5])
    two = construct(rows[order], {k: v[order] for k, v in columns.items()}, CONFIG, rows[:5])
    assert one.pools == two.pools
    for name, codes in one.assignments.items():
        np.testing.assert_array_equal(codes[order], two.assignments[name])


@settings(deadline=None, max_examples=25)
@given(st.integers(120, 300), st.integers(0, 1_000), st.sets(st.sampled_from("bcd")))
def test_with_a_fixed_size_a_statistic_does_not_depend_on_the_others(
    n: int, seed: int, others: set[str]
) -> None:
    rng = np.random.default_rng(seed)
    values = rng.poisson(2, n).astype(float)
    config = PoolConfig(size=20, controls=5)
    alone = construct(np.arange(n), {"a": values}, config)
    beside = {name: rng.normal(size=n) for name in sorted(others)} | {"a": values}
    together = construct(np.arange(n), beside, config)
    assert set(alone.pools) <= set(together.pools)
    np.testing.assert_array_equal(alone.assignments["a"], together.assignments["a"])


def test_the_same_input_gives_the_same_pools_and_another_seed_others() -> None:
    one, two, other = build(), build(), construct_with_seed(1)
    assert one.pools == two.pools
    changed = {a.id for a, b in zip(one.pools, other.pools, strict=True) if a.hash != b.hash}
    assert {"sparse/low", "counts/middle", "control/0"} <= changed


def construct_with_seed(seed: int) -> Construction:
    return construct(
        np.arange(900), columns_of(np.random.default_rng(0), 900), PoolConfig(seed=seed)
    )


def test_ties_do_not_carry_over_from_another_statistic() -> None:
    """The fault of a sort in place: tied rows keep the order of the previous statistic."""
    rng, n = np.random.default_rng(5), 30_000
    previous = np.sort(rng.normal(size=n))  # rows come in the order of the other statistic
    sparse = np.where(rng.random(n) < 0.9, 0.0, 1.0)
    codes = construct(np.arange(n), {"a": previous, "z": sparse}, CONFIG).assignments["z"]
    means = [previous[codes == code].mean() for code in range(3)]
    standard_error = previous.std() / (n / 3) ** 0.5
    assert np.ptp(means) < 5 * standard_error


@pytest.mark.parametrize("ties", [True, False])
def test_ties_and_trims_of_two_statistics_are_independent(ties: bool) -> None:
    """Equal columns under two names: the hash alone decides, by ties or by a fixed size."""
    n, size = 9_000, 1_500
    values = np.where(np.arange(n) % 10 == 0, 1.0, 0.0) if ties else np.arange(n, dtype=float)
    config = PoolConfig(size=3_000 if ties else size)
    codes = construct(np.arange(n), {"a": values, "b": values}, config).assignments
    one, two = (np.flatnonzero(codes[name] == 0) for name in "ab")
    among = np.count_nonzero(values == 0.0) if ties else n // 3
    share = len(one) / among
    spread = (len(one) * share * (1 - share)) ** 0.5
    assert abs(len(np.intersect1d(one, two)) - len(one) * share) < 5 * spread


def test_auto_size_is_the_smallest_bucket_of_the_testable_statistics() -> None:
    n = 300
    gappy, hopeless = np.arange(n, dtype=float), np.full(n, np.nan)
    gappy[:100] = np.nan
    hopeless[:12] = np.arange(12)
    columns = {"full": np.arange(n, dtype=float), "gappy": gappy, "hopeless": hopeless}
    built = construct(np.arange(n), columns, CONFIG)
    assert (built.size, built.draw_size) == (66, 33)
    assert [item.statistic for item in built.not_testable] == ["hopeless"]
    assert built.missing == {"full": 0, "gappy": 100, "hopeless": 288}
    assert built.contrast == {"full": 1.0, "gappy": 1.0}
    assert "hopeless" not in built.assignments


def test_an_untestable_statistic_costs_no_pool() -> None:
    columns = {"good": np.arange(90.0), "constant": np.full(90, 3.0)}
    built = construct(np.arange(90), columns, CONFIG)
    assert not [pool for pool in built.pools if pool.statistic == "constant"]
    assert built.contrast == {"good": 1.0, "constant": 0.0}


def test_every_field_of_a_pool_is_filled() -> None:
    built = build(900)
    middle = next(pool for pool in built.pools if pool.id == "counts/middle")
    assert (middle.kind, middle.column, middle.code) == (PoolKind.BUCKET, "counts", 1)
    assert (middle.statistic, middle.bucket) == ("counts", "middle")
    rows = np.flatnonzero(built.assignments["counts"] == 1)
    assert middle.hash == rows_hash(rows)
    assert middle.size == len(rows) == built.size
    assert middle.ties > 0
    assert [pool.ties for pool in built.pools if pool.statistic == "normal"] == [0, 0, 0]


def test_infinite_values_have_their_place_in_the_order() -> None:
    values = np.concatenate([np.full(30, -np.inf), np.arange(30.0), np.full(30, np.inf)])
    built = construct(np.arange(90), {"x": values}, CONFIG)
    ranges = [(p.low, p.high) for p in built.pools if p.statistic]
    assert ranges == [(-np.inf, -np.inf), (0.0, 29.0), (np.inf, np.inf)]


class OneAtATime(Mapping[str, np.ndarray]):
    """Columns that are made when they are read."""

    def __init__(self, n: int, names: list[str]) -> None:
        self.n, self.names, self.reads = n, names, list[str]()

    def __getitem__(self, name: str) -> np.ndarray:
        self.reads.append(name)
        return np.random.default_rng(self.names.index(name)).normal(size=self.n)

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def test_columns_may_load_lazily() -> None:
    lazy = OneAtATime(300, ["a", "b", "c"])
    built = construct(np.arange(300), lazy, CONFIG)
    assert lazy.reads == ["a", "b", "c", "a", "b", "c"]
    assert built.pools == construct(np.arange(300), dict(lazy), CONFIG).pools


def test_excluded_rows_are_in_no_pool() -> None:
    n = 300
    excluded = np.arange(0, n, 3)
    columns = columns_of(np.random.default_rng(0), n)
    built = construct(np.arange(n), columns, CONFIG, excluded)
    for codes in built.assignments.values():
        assert np.all(codes[excluded] == EXCLUDED)
    without = {name: np.delete(values, excluded) for name, values in columns.items()}
    assert built.pools == construct(np.delete(np.arange(n), excluded), without, CONFIG).pools
    assert built.missing["gappy"] == np.count_nonzero(np.isnan(without["gappy"]))


@pytest.mark.parametrize(
    ("rows", "columns", "options", "message"),
    [
        ([0, 1, 1, 2], {"a": [1, 2, 3, 4]}, {}, "1 row ids occur more than once, such as 1"),
        ([0, 1, 2, 3], {"a": [1, 2, 3]}, {}, r"'a' has shape \(3,\), but there are 4 row ids"),
        ([0, 1, 2, 3], {"a": [[1], [2], [3], [4]]}, {}, r"'a' has shape \(4, 1\)"),
        ([0, 1, 2], {"a": ["x", "y", "z"]}, {}, "'a' does not hold numbers"),
        ([0, 1], {"a": [1, 2]}, {}, r"2 rows \(0 more are excluded\) are too few for 3 buckets"),
        ([], {"a": []}, {}, "0 rows"),
        ([0, 1, 2, 3], {}, {}, "no statistic is testable: there is none"),
        ([0, 1, 2, 3], {"a": [1, 1, 1, 1]}, {}, "no statistic is testable: a: constant"),
        ([0, 1, 2, 3], {"a": [1, 2, 3, 4]}, {"size": 2}, "smallest bucket of 'a' has 1 rows"),
        ([0, 1, 2, 3], {"a": [1, 2, 3, 4]}, {}, "draws would have 0 rows"),
        (
            [0, 1, 2, 3],
            {"a": [1, 2, 3, 4]},
            {"draw_share": 1.0},
            r"draws would have 1 rows .* \(shuffled captions need two rows\)",
        ),
        ([0, 1, 2, 3], {"control/0": [1, 2, 3, 4]}, {}, "cannot be named 'control/0'"),
        ([0, 1, 2, 3], {"row_id": [1, 2, 3, 4]}, {}, "cannot be named 'row_id'"),
        ([0, 1, 2, 3], {"": [1, 2, 3, 4]}, {}, "cannot be named ''"),
    ],
)
def test_bad_input_says_what_is_wrong(
    rows: list[int], columns: dict[str, list[object]], options: dict[str, object], message: str
) -> None:
    arrays = {name: np.array(values) for name, values in columns.items()}
    with pytest.raises(BadInput, match=message):
        construct(np.array(rows, dtype=np.int64), arrays, PoolConfig.model_validate(options))


def test_the_limiting_statistic_is_named() -> None:
    gappy = np.arange(90.0)
    gappy[:30] = np.nan
    columns = {"full": np.arange(90.0), "gappy": gappy}
    with pytest.raises(BadInput, match="'gappy' has 20 rows"):
        construct(np.arange(90), columns, PoolConfig(size=21))


def test_unknown_excluded_rows_are_an_error() -> None:
    with pytest.raises(BadInput, match="1 excluded rows are not in the dataset, such as 99"):
        construct(np.arange(9), {"a": np.arange(9.0)}, CONFIG, np.array([3, 99]))


def test_one_row_draws_are_possible_without_self_tests() -> None:
    built = construct(
        np.arange(6), {"a": np.arange(6.0)}, PoolConfig(self_tests=False, draw_share=0.5)
    )
    assert (built.size, built.draw_size) == (2, 1)


@pytest.mark.parametrize(
    "bad",
    [
        {"buckets": 1},
        {"buckets": 128},
        {"size": 0},
        {"size": "all"},
        {"size": True},
        {"draw_share": 0},
        {"draw_share": 1.01},
        {"controls": 4},
        {"min_contrast": -0.1},
        {"min_coverage": 0},
        {"bucket": 3},
    ],
)
def test_what_cannot_be_used_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(bad))):
        PoolConfig.model_validate(bad)


def test_buckets_are_named() -> None:
    assert PoolConfig().bucket_names == ("low", "middle", "high")
    assert PoolConfig(buckets=2).bucket_names == ("low", "high")


@pytest.mark.parametrize(("pools", "controls"), [(3, 5), (6, 5), (18, 8), (93, 19)])
def test_controls_grow_with_the_root_of_the_pools(pools: int, controls: int) -> None:
    assert PoolConfig().control_count(pools) == controls
    assert PoolConfig(controls=7).control_count(pools) == 7


def test_every_field_is_documented() -> None:
    assert all(field.description for field in PoolConfig.model_fields.values())


def constructed() -> Pools:
    n = 300
    infinite, gappy = np.arange(n, dtype=float), np.arange(n, dtype=float)
    infinite[:100], infinite[200:] = -np.inf, np.inf
    gappy[::4] = np.nan
    columns = {
        "infinite": infinite,
        "gappy": gappy,
        "constant": np.ones(n),
        "empty": np.full(n, np.nan),
    }
    built = construct(np.arange(n), columns, PoolConfig())
    return pools(
        built.pools,
        size=built.size,
        draw_size=built.draw_size,
        not_testable=built.not_testable,
        contrast=built.contrast,
        missing=built.missing,
    )


def test_the_reader_finds_what_makes_pools_comparable() -> None:
    value = json.loads(json.dumps(to_json(constructed()), allow_nan=False))
    assert (value["size"], value["draw_size"]) == (75, 38)
    by_id = {item["id"]: item for item in value["pools"]}
    low = by_id["gappy/low"]
    assert (low["contrast"], low["missing"], low["kind"]) == (1.0, 75, "bucket")
    assert low["provenance"]["statistic"] == "gappy"
    assert by_id["infinite/high"]["high"] == "inf"
    assert by_id["control/0"]["contrast"] is None
    assert [item["statistic"] for item in value["not_testable"]] == ["constant", "empty"]
    assert value["statistics"]["empty"] == {"contrast": None, "missing": 300}

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from djsandbox_ray.errors import BadInput
from djsandbox_ray.pools.build import construct
from djsandbox_ray.pools.config import PoolConfig
from djsandbox_ray.pools.serialise import from_json, to_json
from djsandbox_ray.records import Pools


def pools() -> Pools:
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
    return Pools(
        id="pools-0",
        assignments="runs/x/assignments.parquet",
        pools=built.pools,
        size=built.size,
        draw_size=built.draw_size,
        eligible=built.eligible,
        seed=0,
        not_testable=built.not_testable,
        contrast=built.contrast,
        missing=built.missing,
    )


def test_a_round_trip_through_strict_json_keeps_everything() -> None:
    record = pools()
    text = json.dumps(to_json(record), allow_nan=False)
    assert from_json(json.loads(text)) == record


def test_the_reader_finds_what_makes_pools_comparable() -> None:
    value = to_json(pools())
    assert (value["size"], value["draw_size"]) == (75, 38)
    by_id = {item["id"]: item for item in value["pools"]}
    low = by_id["gappy/low"]
    assert (low["contrast"], low["missing"], low["kind"]) == (1.0, 75, "bucket")
    assert low["provenance"]["statistic"] == "gappy"
    assert by_id["infinite/high"]["high"] == "inf"
    assert by_id["control/0"]["contrast"] is None
    assert [item["statistic"] for item in value["not_testable"]] == ["constant", "empty"]
    assert value["statistics"]["empty"] == {"contrast": None, "missing": 300}


@pytest.mark.parametrize("key", ["id", "size", "draw_size", "pools", "statistics", "not_testable"])
def test_a_missing_key_is_named(key: str) -> None:
    value = to_json(pools())
    del value[key]
    with pytest.raises(BadInput, match=f"the key '{key}' is missing"):
        from_json(value)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"pools": 3}, "cannot be read"), ({"statistics": []}, "cannot be read")],
)
def test_what_is_not_pools_json_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        from_json({**to_json(pools()), **change})


def test_an_unknown_kind_is_refused() -> None:
    value = to_json(pools())
    value["pools"][0]["kind"] = "basket"
    with pytest.raises(BadInput, match="basket"):
        from_json(value)

from __future__ import annotations

import json

import numpy as np
from factories import pools

from djsandbox_ray.pools.build import construct
from djsandbox_ray.pools.config import PoolConfig
from djsandbox_ray.pools.serialise import to_json
from djsandbox_ray.records import Pools


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

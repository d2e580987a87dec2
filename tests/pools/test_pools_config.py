from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from djsandbox_ray.pools.config import PoolConfig


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

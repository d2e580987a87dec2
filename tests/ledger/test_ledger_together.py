from __future__ import annotations

import pytest

from djsandbox_ray.ledger.cost import together
from djsandbox_ray.records import Cost


def cost(stage: str, flops: float | None) -> Cost:
    return Cost(stage, 10, flops, 1.5, 0.5, 2.0)


def test_studies_are_added_up():
    assert together([cost("a", 1e3), cost("b", 2e3)]) == Cost("a", 20, 3e3, 3.0, 1.0, 4.0)
    assert together([cost("a", 1e3)]) == cost("a", 1e3)


@pytest.mark.parametrize("flops", [(1e3, None), (None, 1e3), (None, None)])
def test_a_part_is_never_the_whole(flops):
    assert together([cost("a", flops[0]), cost("b", flops[1])]).flops is None

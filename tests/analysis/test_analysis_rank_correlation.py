from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from djsandbox_ray.analysis.rank_correlation import rank_correlation


def test_rho_is_scipys() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 12))
    found = rank_correlation(x.tolist(), y.tolist())
    assert found is not None
    assert found.rho == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found.low < found.rho < found.high


def test_the_interval_holds_the_truth() -> None:
    rng = np.random.default_rng(1)
    r = 0.6
    truth = 6 / np.pi * np.arcsin(r / 2)  # Spearman's rho of a bivariate normal
    hits = []
    for _ in range(1000):
        x = rng.normal(size=15)
        y = r * x + np.sqrt(1 - r**2) * rng.normal(size=15)
        found = rank_correlation(x.tolist(), y.tolist())
        assert found is not None
        hits.append(found.low <= truth <= found.high)
    assert 0.92 <= np.mean(hits) <= 0.98


@pytest.mark.parametrize("sign", [1, -1])
def test_a_perfect_order_of_few_points_is_not_certain(sign: int) -> None:
    found = rank_correlation([1, 2, 3, 4, 5], [sign * v for v in (1, 2, 3, 4, 5)])
    assert found is not None
    assert found.rho == pytest.approx(sign)
    assert found.high - found.low > 0.3


def test_too_few_points_or_none_that_vary_say_nothing() -> None:
    assert rank_correlation([1, 2, 3, 4], [1, 2, 3, 4]) is None
    assert rank_correlation([1, 1, 1, 1, 1], [1, 2, 3, 4, 5]) is None
    with pytest.raises(ValueError, match="pairs"):
        rank_correlation([1, 2], [1])

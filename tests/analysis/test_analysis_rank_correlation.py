from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats
from simulations import mostly_slow

from djsandbox_ray.analysis.scale.diversity import rank_correlation

GROUPS, STUDIES = 6, 300


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
    for _ in range(300):
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
    with pytest.raises(ValueError, match="2 and 1 numbers"):
        rank_correlation([1, 2], [1])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_has_no_rank_is_refused(bad: float) -> None:
    for x, y in (([1, 2, 3, 4, bad], [1, 2, 3, 4, 5]), ([1, 2, 3, 4, 5], [1, bad, 3, 4, 5])):
        with pytest.raises(ValueError, match="not finite"):
            rank_correlation(x, y)


def halves(rng: np.random.Generator) -> Any:
    high = rng.normal(size=(GROUPS, 1))
    return np.concatenate([-high, high], axis=1) + 0.02 * rng.normal(size=(GROUPS, 2))


def thirds(rng: np.random.Generator) -> Any:
    values = rng.normal(size=(GROUPS, 3))
    return values - values.mean(axis=1, keepdims=True)


def slopes(rng: np.random.Generator) -> Any:
    high = rng.normal(size=(GROUPS, 1))
    return np.concatenate([-high, 0 * high, high], axis=1) + 0.02 * rng.normal(size=(GROUPS, 3))


@pytest.mark.parametrize("parts", mostly_slow([halves, thirds, slopes], slopes))
def test_parts_of_statistics_that_have_nothing_to_do_with_the_effect(parts: Any) -> None:
    rng = np.random.default_rng(2)
    false = {"dependent": 0, "as if independent": 0}
    for _ in range(STUDIES):
        x, y = parts(rng), parts(rng)
        groups = np.repeat(np.arange(GROUPS).astype(str), x.shape[1]).tolist()
        for name, given in (("dependent", groups), ("as if independent", None)):
            found = rank_correlation(x.ravel().tolist(), y.ravel().tolist(), given)
            assert found is not None
            false[name] += found.low > 0 or found.high < 0
    most = stats.binom.isf(0.001, STUDIES, 0.05)
    assert false["dependent"] <= most
    if parts is not thirds:
        assert false["as if independent"] > most, "the simulation must be able to fail"


def test_groups_count_once() -> None:
    x, groups = list(range(8)), list("aabbccdd")
    assert rank_correlation(x, x, groups) is None
    assert rank_correlation(x, x, [*groups[:-1], "e"]) is not None

"""Shapley values: a fair share of what several pools do together for each of them.

With v(S) the effect of the combination S and v of nothing 0, a factor's value is what it adds,
averaged over all orders in which k factors can join (Shapley 1953, Contributions to the Theory of
Games 2:307):

    phi_i = sum over S without i of |S|! (k - |S| - 1)! / k! (v(S + i) - v(S)).

The values add up to v of all factors; equal factors have equal ones; one that never adds anything
has 0. Exact, from all 2^k - 1 combinations.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from itertools import combinations as choose

from djsandbox_ray.analysis.contrasts import Combination


def subsets(factors: Sequence[str]) -> Iterator[Combination]:
    """Yield all subsets, the empty one first, smaller ones before larger ones."""
    sizes = range(len(factors) + 1)
    return map(frozenset, chain.from_iterable(choose(factors, size) for size in sizes))


def shapley_weights(factor: str, factors: Sequence[str]) -> dict[Combination, float]:
    """Return a factor's Shapley value as weights of the non-empty combinations.

    Args:
        factor: one of ``factors``.
        factors: all of them.

    Raises:
        ValueError: ``factor`` is not one of them, or one is given twice.
    """
    if factor not in factors or len(set(factors)) != len(factors):
        raise ValueError(f"{factor!r} must be one of the factors {list(factors)}, each given once")
    weights: dict[Combination, float] = {}
    for others in subsets([name for name in factors if name != factor]):
        orders = math.factorial(len(others)) * math.factorial(len(factors) - len(others) - 1)
        share = orders / math.factorial(len(factors))
        weights[others | {factor}] = share
        if others:
            weights[others] = -share
    return weights


def shapley_values(
    effects: Mapping[Combination, float], factors: Sequence[str]
) -> dict[str, float]:
    """Return the Shapley value of every factor.

    Args:
        effects: v of every non-empty combination of the factors.
        factors: whose values are wanted.

    Raises:
        ValueError: a combination is missing.
    """
    for combination in subsets(factors):
        if combination and combination not in effects:
            raise ValueError(f"no effect of {sorted(combination)}; all combinations are needed")
    return {
        factor: math.fsum(
            weight * effects[combination]
            for combination, weight in shapley_weights(factor, factors).items()
        )
        for factor in factors
    }

"""What pools do together beyond what they do apart: the factorial model of a pyramid.

k chosen pools are factors, in or not; y(S) is the mean of the arm whose rows are in all of S, y of
nothing that of the controls. Effects are in reference coding (0 or 1, not -1 or 1), so that they
are in the unit of the changes (Box, Hunter & Hunter 2005, Statistics for Experimenters, chapter 5):

- main effect of A: y(T + A) - y(T), averaged over the contexts T, the subsets of the other factors;
- interaction of A and B: y(T + AB) - y(T + A) - y(T + B) + y(T), averaged likewise: two that have
  a positive one help each other;
- interaction of more factors: the difference of such differences, that is, what they do beyond
  what the effects of fewer of them add up to. Its sign does not say whether they help each other:
  three of which any two help each other much, and all three a little more, have a negative one;
- Shapley value of A (Shapley 1953, Contributions to the Theory of Games 2:307): what A adds,
  averaged over all orders in which the k factors can join,

      sum over S without A of |S|! (k - |S| - 1)! / k! (v(S + A) - v(S)),    v(S) = y(S) - y().

  A fair share for each: the values add up to v of all factors; equal factors have equal ones; one
  that never adds anything has 0.

A combination may not have been trained. An effect is then averaged over the contexts in which all
that it needs is there, and named as partial; without any it is left out, and named. A Shapley value
needs all combinations.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from itertools import combinations as choose

from djsandbox_ray.analysis.together.contrasts import Arms, Combination, label
from djsandbox_ray.errors import BadInput
from djsandbox_ray.records import InteractionRow, Pool, PoolKind

MAIN, INTERACTION, SHAPLEY = "main", "interaction", "shapley"
"""Kinds of rows."""
MOST_FACTORS = 8
"""More have 2^k - 1 combinations that nobody trains."""


@dataclass(frozen=True)
class Factorial:
    """The effects of a pyramid, and what could not be said."""

    rows: tuple[InteractionRow, ...]
    """Main effects, interactions, the smaller ones first, and Shapley values."""
    untrained: tuple[str, ...] = ()
    """Combinations without a score."""
    left_out: tuple[str, ...] = ()
    """Effects that cannot be estimated without those."""
    partial: tuple[str, ...] = ()
    """Effects that are averaged over fewer contexts for want of those."""

    @property
    def notes(self) -> list[str]:
        """What is missing, in sentences; nothing where all combinations were trained."""
        said = (
            ("Combinations without a result", self.untrained),
            ("Left out, as they need one of these", self.left_out),
            ("Averaged only over the contexts that were trained", self.partial),
        )
        return [f"{what}: {', '.join(names)}." for what, names in said if names]


def combinations_of(pools: Sequence[Pool]) -> tuple[list[str], dict[str, Combination]]:
    """Return the factors, and by pool the combination of them that it stands for.

    Args:
        pools: of a pyramid; controls and self-tests are left out.

    Returns:
        The factors in the order of the single pools, and a set of them per pool.

    Raises:
        BadInput: a pool without parts; two pools with the same ones; too many factors.
    """
    found: dict[str, Combination] = {}
    arms = [pool for pool in pools if pool.kind is PoolKind.BUCKET]
    for pool in arms:
        if not pool.parts:
            raise BadInput(f"pool {pool.id!r} is no combination: it has no parts")
        parts = frozenset(pool.parts)
        if twin := [name for name, other in found.items() if other == parts]:
            raise BadInput(f"pools {twin[0]!r} and {pool.id!r} have the same parts")
        found[pool.id] = parts
    by_size = sorted(arms, key=lambda pool: len(pool.parts))
    factors = list(dict.fromkeys(part for pool in by_size for part in pool.parts))
    if len(factors) > MOST_FACTORS:
        raise BadInput(f"{len(factors)} pools are combined; at most {MOST_FACTORS} can be analysed")
    return factors, found


def factorial(arms: Arms, factors: Sequence[str], alpha: float = 0.05) -> Factorial:
    """Estimate main effects, interactions and Shapley values.

    Args:
        arms: the combinations that have scores.
        factors: what they are combinations of, in the order of the rows.
        alpha: error rate over the family of all rows, in (0, 1).

    Raises:
        ValueError: alpha out of range; a combination with a part that is no factor.
    """
    trained = set(arms.combinations)
    if strange := set().union(*trained) - set(factors):
        raise ValueError(f"{min(strange)!r} is not one of the factors {list(factors)}")
    wanted = [group for group in subsets(factors) if group]
    untrained = tuple(label(group, factors) for group in wanted if group not in trained)
    contrasts: dict[tuple[str, str], Mapping[Combination, float]] = {}
    orders = {label(group, factors): len(group) for group in wanted}
    contexts: dict[tuple[str, str], int] = {}
    left_out: list[str] = []
    partial: list[str] = []
    for group in wanted:
        key = (MAIN if len(group) == 1 else INTERACTION, label(group, factors))
        weights, contexts[key] = effect_weights(group, factors, trained)
        if weights:
            contrasts[key] = weights
        if contexts[key] < 2 ** (len(factors) - len(group)):
            (partial if weights else left_out).append(" ".join(key))
    for factor in factors:
        if untrained:
            left_out.append(f"{SHAPLEY} {factor}")
        else:
            contrasts[SHAPLEY, factor] = shapley_weights(factor, factors)
            contexts[SHAPLEY, factor] = 2 ** (len(factors) - 1)
    table = arms.matrix(list(contrasts.values()))
    numbers = zip(arms.effects(table), arms.half_widths(table, alpha), strict=True)
    rows = tuple(
        InteractionRow(
            kind=key[0],
            parts=key[1],
            order=orders[key[1]],
            effect=float(effect),
            low=float(effect - half),
            high=float(effect + half),
            verdict=_verdict(orders[key[1]], effect - half, effect + half),
            contexts=contexts[key],
            all_contexts=2 ** (len(factors) - orders[key[1]]),
        )
        for key, (effect, half) in zip(contrasts, numbers, strict=True)
    )
    return Factorial(rows, untrained, tuple(left_out), tuple(partial))


def effect_weights(
    group: Combination, factors: Sequence[str], trained: Collection[Combination]
) -> tuple[dict[Combination, float], int]:
    """Return an effect as weights of the non-empty combinations.

    Args:
        group: the factors concerned: one for a main effect, more for an interaction.
        factors: all of them.
        trained: the non-empty combinations that may be used.

    Returns:
        The weights, empty where there is no context to estimate the effect in; and over how many
        contexts they average, of the 2^k of the k other factors.
    """
    contexts = subsets([name for name in factors if name not in group])
    parts = list(subsets(sorted(group)))
    usable = [
        context
        for context in contexts
        if all(context | part in trained for part in parts if context | part)
    ]
    weights = {
        context | part: (-1.0) ** (len(group) - len(part)) / len(usable)
        for context in usable
        for part in parts
        if context | part
    }
    return weights, len(usable)


def strongest(rows: Sequence[InteractionRow]) -> InteractionRow | None:
    """Return the interaction of two beyond noise with the greatest effect, if there is one.

    Those of more are on another scale: one of three is a difference between those of two.
    """
    pairs = [row for row in rows if row.kind == INTERACTION and row.order == 2]
    found = [row for row in pairs if row.verdict != "undecided"]
    return max(found, key=lambda row: abs(row.effect), default=None)


def _verdict(order: int, low: float, high: float) -> str:
    """Return the word for an interval; see :attr:`InteractionRow.verdict`."""
    above, below = ("helps", "hurts") if order <= 2 else ("more", "less")
    return above if low > 0 else below if high < 0 else "undecided"


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

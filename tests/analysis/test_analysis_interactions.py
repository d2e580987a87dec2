"""The factorial of a pyramid: exact without noise, and simulated with it.

The intervals depend on the noise alone, so that the rate at which some interval misses a planted
truth is also the family-wise error on null data.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import permutations

import numpy as np
import pytest
from factories import pool
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from simulations import (
    ALPHA,
    FACTORS,
    arms_of,
    combination,
    exact,
    groups,
    mostly_slow,
    simulate,
    simulate_rows,
)

from djsandbox_ray.analysis.together.interactions import (
    combinations_of,
    effect_weights,
    factorial,
    shapley_weights,
    strongest,
    subsets,
)
from djsandbox_ray.analysis.verdicts.dunnett import critical_value
from djsandbox_ray.errors import BadInput

STUDIES = 160
# More misses than this would, at a true rate of 5 %, be seen once in a thousand.
MOST_ERRORS = stats.binom.isf(0.001, STUDIES, ALPHA)
# a helps by 2; b helps by 6, but only where a is in; c does nothing.
MASKED = {group: 2.0 * ("a" in group) + 6.0 * ({"a", "b"} <= group) for group in groups()}
TRUTH = [2 + 3, 3, 0, 6, 0, 0, 0, 2 + 3, 3, 0]


def by_name(found):
    return {f"{row.kind} {row.parts}": row for row in found.rows}


def effects(found):
    return {name: row.effect for name, row in by_name(found).items()}


@lru_cache
def studies(data, controls):
    """Estimates and half-widths, shape (studies, rows), of a planted masking."""
    rng = np.random.default_rng([round(10 * data), controls])
    arms, control_scores = simulate(
        rng, STUDIES, list(MASKED.values()), data=data, controls=controls
    )
    return estimates(arms, control_scores)


def estimates(arms, control_scores, **shares):
    found = [
        factorial(arms_of(*scores, **shares), FACTORS, ALPHA).rows
        for scores in zip(arms, control_scores, strict=True)
    ]
    effect = np.array([[row.effect for row in rows] for rows in found])
    return effect, np.array([[row.high - row.effect for row in rows] for rows in found])


@pytest.mark.parametrize(("data", "controls"), mostly_slow([(0.2, 8), (0.9, 5)], (0.2, 8)))
def test_all_intervals_hold_the_truth_in_95_percent_of_studies(data, controls):
    effect, half = studies(data, controls)
    misses = np.abs(effect - TRUTH) > half
    assert misses.any(axis=1).sum() <= MOST_ERRORS
    assert misses[:, 3:7].any(axis=1).sum() <= MOST_ERRORS, "interactions"
    assert effect.mean(axis=0) == pytest.approx(TRUTH, abs=0.35)


def test_a_masked_effect_is_found_as_interaction():
    effect, half = studies(0.2, 8)
    found = np.abs(effect) > half
    # The rows: three main effects, ab, ac, bc, abc, three Shapley values.
    assert found[:, 3].mean() > 0.9
    assert (effect[:, 3] > 0).all()
    assert found[:, [4, 5, 6]].any(axis=1).mean() < 0.05


def test_pools_that_share_rows_do_not_break_the_error():
    arms, control_scores, share = simulate_rows(np.random.default_rng(3), STUDIES // 2)
    effect, half = estimates(arms, control_scores, bucket_share=share)
    limit = stats.binom.isf(0.001, STUDIES // 2, ALPHA)
    assert (np.abs(effect) > half).any(axis=1).sum() <= limit


def test_the_error_is_greater_where_noise_between_arms_is_left_out():
    rng = np.random.default_rng(4)
    arms, control_scores = simulate(rng, STUDIES // 2, np.zeros(7), data=1.0, m_b=0.9)
    effect, half = estimates(arms, control_scores, bucket_share=1 - 1e-9)
    assert (np.abs(effect) > half).any(axis=1).mean() > 0.15


def test_without_noise_effects_are_exact():
    found = factorial(exact(MASKED), FACTORS)
    assert list(effects(found)) == [
        *("main a", "main b", "main c", "interaction a & b", "interaction a & c"),
        *("interaction b & c", "interaction a & b & c", "shapley a", "shapley b", "shapley c"),
    ]
    assert list(effects(found).values()) == pytest.approx(TRUTH, abs=1e-12)
    verdicts = {name: row.verdict for name, row in by_name(found).items()}
    assert verdicts["main a"] == verdicts["interaction a & b"] == "helps"
    assert verdicts["main c"] == verdicts["interaction a & b & c"] == "undecided"
    assert found.notes == []


def test_an_interaction_that_hurts():
    truth = {group: 3.0 - 5.0 * ({"b", "c"} <= group) for group in groups()}
    rows = factorial(exact(truth), FACTORS).rows
    best = strongest(rows)
    # Any pool adds 3, once: so do further ones hurt, and the three together make up for that.
    assert best is not None
    assert (best.parts, best.verdict) == ("b & c", "hurts")
    assert best.effect == pytest.approx(((-3 - 5) + (0 - 5)) / 2)
    assert strongest([row for row in rows if row.kind == "main"]) is None


def test_pools_that_help_each_other_less_and_less_are_not_said_to_hurt_each_other():
    by_order = {1: 1.0, 2: 4.0, 3: 6.0}
    rows = factorial(exact({group: by_order[len(group)] for group in groups()}), FACTORS).rows
    (all_three,) = [row for row in rows if row.order == 3]
    assert all_three.effect == pytest.approx(6 - 3 * 4 + 3 * 1)
    assert all_three.verdict == "less"
    best = strongest(rows)
    assert best is not None
    assert (best.order, best.verdict, best.effect) == (2, "helps", pytest.approx(0.5))
    assert strongest([all_three]) is None


def test_rows_say_how_many_pools_they_are_about_and_over_what_they_average():
    rows = by_name(factorial(exact(MASKED), FACTORS))
    assert {(r.order, r.contexts, r.all_contexts) for r in rows.values() if r.kind == "main"} == {
        (1, 4, 4)
    }
    pair, all_three = rows["interaction a & b"], rows["interaction a & b & c"]
    assert (pair.order, pair.contexts, pair.all_contexts) == (2, 2, 2)
    assert (all_three.order, all_three.contexts, all_three.all_contexts) == (3, 1, 1)
    rest = {group: value for group, value in MASKED.items() if len(group) < 3}
    pair = by_name(factorial(exact(rest), FACTORS))["interaction a & b"]
    assert (pair.contexts, pair.all_contexts) == (1, 2)
    # A pool may have the separator in its name.
    odd = factorial(exact({frozenset(["a & b"]): 1.0}), ["a & b"])
    assert [row.order for row in odd.rows] == [1, 1]


def test_two_pools():
    truth = {combination("a"): 1.0, combination("b"): 2.0, combination("ab"): 7.0}
    found = factorial(exact(truth), "ab")
    assert effects(found) == pytest.approx(
        {"main a": 3, "main b": 4, "interaction a & b": 4, "shapley a": 3, "shapley b": 4}
    )


def test_equal_contrasts_count_once_in_the_family():
    rng = np.random.default_rng(5)
    arms, controls = simulate(rng, 1, np.zeros(7))
    scores = dict(zip(groups(), arms[0], strict=True))
    two = arms_of({group: scores[group] for group in groups("ab")}, controls[0])
    weights = two.matrix(
        [effect_weights(group, "ab", two.combinations)[0] for group in groups("ab")]
    )
    alone = two.half_widths(weights, ALPHA)
    again = two.half_widths(np.concatenate([weights, -weights[:2]]), ALPHA)
    assert again == pytest.approx([*alone, *alone[:2]])


def test_combinations_that_are_missing_are_named():
    rest = {group: value for group, value in MASKED.items() if len(group) < 3}
    found = factorial(exact(rest), FACTORS)
    assert found.untrained == ("a & b & c",)
    assert found.left_out == (*("interaction a & b & c", "shapley a", "shapley b", "shapley c"),)
    assert found.partial[:4] == ("main a", "main b", "main c", "interaction a & b")
    assert effects(found)["interaction a & b"] == pytest.approx(6.0)
    # Over the contexts nothing, b and c: 2, 8 and 2.
    assert effects(found)["main a"] == pytest.approx(4.0)
    assert len(found.notes) == 3
    assert found.notes[0].endswith("result: a & b & c.")


def test_without_a_single_pool_its_effect_comes_from_the_other_contexts():
    found = factorial(exact({g: v for g, v in MASKED.items() if g != combination("a")}), FACTORS)
    assert effects(found)["main a"] == pytest.approx((8 + 2 + 8) / 3)
    assert "interaction a & b" in found.partial
    only = factorial(exact({combination("ab"): 1.0}), "ab")
    assert only.rows == ()
    assert only.left_out == (*("main a", "main b", "interaction a & b", "shapley a", "shapley b"),)


def test_missing_seeds_make_intervals_wider_and_keep_seed_effects_out():
    rng = np.random.default_rng(6)
    arms, controls = simulate(rng, 1, np.zeros(7))
    complete = factorial(arms_of(arms[0], controls[0]), FACTORS)
    arms[0, -1, 0] = math.nan
    cut = factorial(arms_of(arms[0], controls[0]), FACTORS)
    name = "interaction a & b & c"
    widths = [by_name(found)[name].high - by_name(found)[name].low for found in (complete, cut)]
    assert widths[1] > widths[0]
    shifted = factorial(
        arms_of(arms[0] + [50.0, 0.0, 0.0], controls[0] + [50.0, 0.0, 0.0]), FACTORS
    )
    assert [row.effect for row in shifted.rows] == pytest.approx([r.effect for r in cut.rows])
    assert [row.low for row in shifted.rows] == pytest.approx([row.low for row in cut.rows])


def test_with_one_seed_pools_are_judged_by_the_controls_alone():
    rng = np.random.default_rng(7)
    arms, controls = simulate(rng, 1, np.zeros(7), seeds=1)
    found = by_name(factorial(arms_of(arms[0], controls[0], draw_share=1.0), FACTORS))
    spread = controls[0].mean(axis=1).std(ddof=1)
    row = found["interaction a & b & c"]
    # 7 arms and the controls' mean; 10 contrasts and 7 degrees of freedom.
    half = critical_value(ALPHA, 10, math.inf, 7) * spread * math.sqrt(7 + 1 / 8)
    assert row.high - row.effect == pytest.approx(half, rel=0.02)


def test_controls_without_spread_leave_it_to_the_arms():
    flat = np.zeros((5, 3))
    noisy = {group: np.array([0.0, 1.0, 2.0]) + value for group, value in MASKED.items()}
    assert all(row.high > row.low for row in factorial(arms_of(noisy, flat), FACTORS).rows)


def test_bad_arms_are_refused():
    flat, one = np.zeros((5, 3)), {combination("a"): np.zeros(3)}
    for scores, controls, message in (
        ({}, flat, "0 arms are given"),
        ({**one, combination("b"): np.zeros(2)}, flat, "all with the same seeds"),
        ({combination("a"): np.zeros(2)}, flat, r"\(1, 2\) and controls \(5, 3\)"),
        (one, flat[:2], "at least 3 control arms"),
        (one, np.full((5, 3), math.nan), "with finite scores"),
        ({combination("a"): [0.0, math.inf, 0.0]}, flat, "all finite"),
        ({combination("a"): [math.nan] * 3}, flat, "every arm needs a score"),
        ({combination(""): np.zeros(3)}, flat, "empty combination"),
    ):
        with pytest.raises(ValueError, match=message):
            arms_of(scores, controls)
    with pytest.raises(ValueError, match="draw_share"):
        arms_of(one, flat, draw_share=0.0)
    with pytest.raises(ValueError, match="'a' is not one of the factors"):
        factorial(arms_of(one, flat), "bc")
    with pytest.raises(ValueError, match="alpha is 0"):
        factorial(arms_of(one, flat), "a", alpha=0)
    with pytest.raises(ValueError, match=r"no arm \['b'\]"):
        arms_of(one, flat).matrix([{combination("b"): 1.0}])


def test_combinations_of_pools():
    pools = [
        pool("z/low&a/low", parts=("z/low", "a/low")),
        pool("z/low", parts=("z/low",)),
        pool("a/low", parts=("a/low",)),
        pool("control/0"),
    ]
    factors, found = combinations_of(pools)
    assert factors == ["z/low", "a/low"]
    assert found == {
        "z/low&a/low": frozenset(factors),
        "z/low": frozenset(["z/low"]),
        "a/low": frozenset(["a/low"]),
    }
    with pytest.raises(BadInput, match="'b' is no combination"):
        combinations_of([pool("b")])
    with pytest.raises(BadInput, match="'z/low' and 'b' have the same parts"):
        combinations_of([*pools, pool("b", parts=("z/low",))])
    with pytest.raises(BadInput, match="9 pools are combined; at most 8"):
        combinations_of([pool("all", parts=tuple("abcdefghi"))])


PLAYERS = "abcd"
NUMBERS = st.floats(-100, 100, allow_nan=False, width=32)


@st.composite
def games(draw):
    """Players, and the effect of every non-empty combination of them."""
    players = PLAYERS[: draw(st.integers(1, len(PLAYERS)))]
    return players, {group: draw(NUMBERS) for group in subsets(players) if group}


def worth(game, group):
    return game[group] if group else 0.0


def values_of(game, players):
    weights = {player: shapley_weights(player, players) for player in players}
    return {p: math.fsum(w * game[g] for g, w in own.items()) for p, own in weights.items()}


def test_subsets_come_by_size():
    assert ["".join(sorted(group)) for group in subsets("abc")] == [
        *("", "a", "b", "c", "ab", "ac", "bc", "abc"),
    ]


@given(games())
def test_values_are_the_mean_gain_over_all_orders(game):
    players, effects = game
    gains = dict.fromkeys(players, 0.0)
    for order in permutations(players):
        for place, player in enumerate(order):
            before = frozenset(order[:place])
            gains[player] += worth(effects, before | {player}) - worth(effects, before)
    orders = math.factorial(len(players))
    values = values_of(effects, players)
    assert values == pytest.approx({p: gain / orders for p, gain in gains.items()}, abs=1e-9)


@given(games())
def test_values_add_up_to_the_effect_of_all(game):
    players, effects = game
    total = sum(values_of(effects, players).values())
    assert total == pytest.approx(effects[frozenset(players)], abs=1e-9)


@given(games())
def test_players_that_do_the_same_have_the_same_value(game):
    players, effects = game
    swap = str.maketrans("ab", "ba")
    alike = {
        group: effects[group] + effects.get(frozenset("".join(group).translate(swap)), 0.0)
        for group in effects
    }
    values = values_of(alike, players)
    if len(players) > 1:
        assert values["a"] == pytest.approx(values["b"], abs=1e-9)


@given(games(), NUMBERS)
def test_a_player_that_adds_the_same_everywhere_has_just_that_value(game, own):
    players, effects = game
    effects = {group: worth(effects, group - {"a"}) + own * ("a" in group) for group in effects}
    assert values_of(effects, players)["a"] == pytest.approx(own, abs=1e-9)


def test_what_cannot_be_valued_is_refused():
    with pytest.raises(ValueError, match="'x' must be one of the factors"):
        shapley_weights("x", "ab")
    with pytest.raises(ValueError, match="each given once"):
        shapley_weights("a", "aab")

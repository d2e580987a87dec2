from __future__ import annotations

import math
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from djsandbox_ray.analysis.together.interactions import shapley_values, shapley_weights, subsets

NAMES = "abcd"
NUMBERS = st.floats(-100, 100, allow_nan=False, width=32)


@st.composite
def games(draw):
    """Players, and the effect of every non-empty combination of them."""
    players = NAMES[: draw(st.integers(1, len(NAMES)))]
    return players, {group: draw(NUMBERS) for group in subsets(players) if group}


def effect(game, group):
    return game[group] if group else 0.0


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
            gains[player] += effect(effects, before | {player}) - effect(effects, before)
    orders = math.factorial(len(players))
    values = shapley_values(effects, players)
    assert values == pytest.approx({p: gain / orders for p, gain in gains.items()}, abs=1e-9)


@given(games())
def test_values_add_up_to_the_effect_of_all(game):
    players, effects = game
    total = sum(shapley_values(effects, players).values())
    assert total == pytest.approx(effects[frozenset(players)], abs=1e-9)


@given(games())
def test_players_that_do_the_same_have_the_same_value(game):
    players, effects = game
    swap = str.maketrans("ab", "ba")
    alike = {
        group: effects[group] + effects.get(frozenset("".join(group).translate(swap)), 0.0)
        for group in effects
    }
    values = shapley_values(alike, players)
    if len(players) > 1:
        assert values["a"] == pytest.approx(values["b"], abs=1e-9)


@given(games(), NUMBERS)
def test_a_player_that_adds_the_same_everywhere_has_just_that_value(game, own):
    players, effects = game
    effects = {group: effect(effects, group - {"a"}) + own * ("a" in group) for group in effects}
    assert shapley_values(effects, players)["a"] == pytest.approx(own, abs=1e-9)


def test_what_cannot_be_valued_is_refused():
    with pytest.raises(ValueError, match="'x' must be one of the factors"):
        shapley_weights("x", "ab")
    with pytest.raises(ValueError, match="each given once"):
        shapley_weights("a", "aab")
    with pytest.raises(ValueError, match=r"no effect of \['a', 'b'\]"):
        shapley_values({frozenset("a"): 1.0, frozenset("b"): 1.0}, "ab")

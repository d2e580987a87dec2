from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from djsandbox_ray.analysis.scale.effective_data import DataLaw, effective_rows, fit_data_law
from djsandbox_ray.analysis.scale.fitting import NoLaw

UNIT = 1000
FACTORS = (1, 2, 4, 6, 8, 10)
CELLS = {
    "repeat": [(UNIT, factor * UNIT) for factor in FACTORS],
    "expand": [(factor * UNIT, factor * UNIT) for factor in FACTORS],
}


def planted(half_life, sd=0.003, seeds=3, seed=0, cells=CELLS, floor=0.15, beta=0.6):
    rng = np.random.default_rng(seed)
    errors = {}
    for name, own in cells.items():
        rows, samples = np.array(own, dtype=float).T
        mean = floor + 0.5 * (effective_rows(rows, samples, half_life) / UNIT) ** -beta
        errors[name] = mean[:, None] + rng.normal(0, sd, (len(own), seeds))
    return errors


@given(st.integers(1, 10**6), st.floats(1, 50), st.floats(0.1, 100))
def test_repeated_rows_are_worth_more_than_none_and_less_than_new_ones(rows, epochs, half_life):
    worth = effective_rows(np.array([rows]), np.array([rows * epochs]), half_life)[0]
    assert rows * (1 - 1e-9) <= worth <= rows * epochs * (1 + 1e-9)
    assert worth <= rows * (1 + half_life) * (1 + 1e-9)
    more = effective_rows(np.array([rows]), np.array([rows * (epochs + 1)]), half_life)[0]
    assert more >= worth


def test_the_formula_of_the_paper():
    # Four epochs with R* = 15: R = 3.
    expected = 100 * (1 + 15 * (1 - math.exp(-3 / 15)))
    assert effective_rows(np.array([100.0]), np.array([400.0]), 15.0)[0] == pytest.approx(expected)
    assert effective_rows(np.array([100.0]), np.array([40.0]), 15.0)[0] == 40


def test_a_planted_law_without_noise_is_found():
    found = fit_data_law(CELLS, planted(3.0, sd=1e-9))
    assert isinstance(found, DataLaw)
    assert found.half_life.value == pytest.approx(3, rel=0.02)
    assert found.exponent.value == pytest.approx(0.6, rel=0.03)
    assert found.floor.value == pytest.approx(0.15, abs=0.01)
    assert found.height.value == pytest.approx(0.5, abs=0.01)
    assert [worth.factor for worth in found.worth] == list(FACTORS)
    assert found.worth[0].share.value == pytest.approx(1)
    shares = [worth.share.value for worth in found.worth]
    assert shares == sorted(shares, reverse=True)


def test_intervals_cover_what_was_planted():
    hits = shares = 0
    for study in range(12):
        found = fit_data_law(CELLS, planted(3.0, seed=study))
        assert isinstance(found, DataLaw)
        hits += found.half_life.low <= 3 <= (found.half_life.high or math.inf)
        true = effective_rows(np.ones(1), np.array([10.0]), 3.0)[0] / 10
        shares += found.worth[-1].share.low <= true <= found.worth[-1].share.high
    assert hits >= 10
    assert shares >= 10


def test_rows_that_ran_out_are_counted_as_repeated():
    cells = {**CELLS, "expand": [(min(f, 6) * UNIT, f * UNIT) for f in FACTORS]}
    found = fit_data_law(cells, planted(3.0, sd=1e-9, cells=cells))
    assert isinstance(found, DataLaw)
    assert found.half_life.value == pytest.approx(3, rel=0.03)


def some(names, keep):
    return {name: [CELLS[name][index] for index in keep] for name in names}


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        (some(CELLS, [0, 1]), "too few points: 3 different"),
        ({**CELLS, "repeat": CELLS["expand"]}, "no training repeats"),
        ({"repeat": CELLS["repeat"], "expand": some(CELLS, [0, 1])["expand"]}, "3 budgets of new"),
    ],
)
def test_too_few_points(cells, reason):
    found = fit_data_law(cells, planted(3.0, cells=cells))
    assert isinstance(found, NoLaw)
    assert reason in found.reason


@pytest.mark.parametrize(
    ("half_life", "reason"), [(1e9, "R* is unbounded"), (1e-3, "R* is next to 0")]
)
def test_a_worth_that_has_no_half_life(half_life, reason):
    found = fit_data_law(CELLS, planted(half_life, sd=1e-6))
    assert isinstance(found, NoLaw)
    assert reason in found.reason


def test_errors_that_do_not_fall():
    rising = {name: 1 - errors for name, errors in planted(3.0).items()}
    assert "does not fall" in fit_data_law(CELLS, rising).reason
    flat = {name: errors * 0 + 0.4 for name, errors in planted(3.0).items()}
    rng = np.random.default_rng(3)
    noise = {name: errors + rng.normal(0, 0.05, errors.shape) for name, errors in flat.items()}
    assert isinstance(fit_data_law(CELLS, noise), NoLaw)
    assert isinstance(fit_data_law(CELLS, flat), NoLaw)


def test_the_misfit_tells_another_shape():
    errors = planted(3.0, sd=1e-3, seeds=4)
    assert fit_data_law(CELLS, errors).misfit > 0.01
    # Repetition that hurts in the end: no law of diminishing worth has that.
    errors["repeat"][-2:] += 0.1
    found = fit_data_law(CELLS, errors)
    assert isinstance(found, NoLaw) or found.misfit < 1e-3


def test_failed_trials_and_one_seed():
    errors = planted(3.0, sd=1e-4)
    errors["repeat"][2] = np.nan
    errors["expand"][3, 0] = np.nan
    assert fit_data_law(CELLS, errors).half_life.value == pytest.approx(3, rel=0.1)
    alone = fit_data_law(CELLS, planted(3.0, sd=1e-9, seeds=1))
    assert alone.half_life.low is None
    assert alone.misfit is None

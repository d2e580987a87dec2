from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulations import mostly_slow

from djsandbox_ray.analysis.scale.compute_scaling import (
    CONTROLS,
    Draws,
    compute_scaling,
    scaling_sentences,
)
from djsandbox_ray.analysis.scale.fitting import NoLaw, SeedMeans, estimate
from djsandbox_ray.analysis.scale.power_law import PowerLaw, crossings, fit_power_law, predict

FIVE = 1e12 * np.geomspace(1, 16, 5)
THREE = 1e12 * np.array([0.25, 0.5, 1.0])


def curve(compute, floor=0.2, height=0.4, exponent=0.5):
    return floor + height * (compute / compute[0]) ** -exponent


def noisy(means, sd, seeds=3, seed=0):
    rng = np.random.default_rng(seed)
    common = rng.normal(0, sd / 2, seeds)
    return means[:, None] + common + rng.normal(0, sd, (len(means), seeds))


def fitted(compute, cells, **options):
    law = fit_power_law(compute, SeedMeans.of(cells, **options))
    assert isinstance(law, PowerLaw), law
    return law


@pytest.mark.parametrize("compute", [FIVE, THREE])
def test_a_planted_law_without_noise_is_found(compute):
    floor = 0.2 if len(compute) > 3 else 0.0
    law = fitted(compute, np.repeat(curve(compute, floor)[:, None], 3, axis=1))
    found = [law.floor.value, law.height.value, law.exponent.value]
    assert found == pytest.approx([floor, 0.4, 0.5], abs=2e-3)
    assert law.fixed_floor == (len(compute) == 3)


@pytest.mark.parametrize(
    ("compute", "floor"),
    [(FIVE, 0.2), pytest.param(THREE, 0.0, marks=pytest.mark.slow)],
)
def test_intervals_cover_what_was_planted(compute, floor):
    target = compute[-1:] * 8
    truth = np.append(compute, target)
    true = curve(truth, floor)[-1]
    hits, exponents, studies = 0, 0, 60
    for study in range(studies):
        cells = noisy(curve(compute, floor), 0.004, seed=study)
        law = fitted(compute, cells, replicates=200, seed=study)
        found = estimate(law.errors(target)[0], law.replicated(target)[:, 0])
        hits += found.low <= true <= found.high
        exponents += law.exponent.low <= 0.5 <= law.exponent.high
    # Three standard deviations below 95 %.
    assert hits >= 0.866 * studies
    assert exponents >= 0.866 * studies


@pytest.mark.parametrize(
    ("compute", "errors", "reason"),
    [
        (FIVE[:2], [0.5, 0.4], "too few points: 2 budgets"),
        (THREE, [0.3, 0.4, 0.5], "does not fall"),
        (FIVE, [0.3, 0.3, 0.31, 0.32, 0.33], "does not fall"),
        (FIVE, [0.5, 0.3, 0.3, 0.3, 0.3], "falls at once"),
        (THREE, [0.5, 0.3, 0.0], "an error is 0"),
    ],
)
def test_what_is_no_law_gets_a_reason(compute, errors, reason):
    cells = np.array(errors)[:, None] + np.array([-1e-6, 0, 1e-6]) * (np.array(errors)[:, None] > 0)
    found = fit_power_law(compute, SeedMeans.of(cells))
    assert isinstance(found, NoLaw)
    assert reason in found.reason


def test_a_fall_within_the_noise_is_no_law():
    cells = noisy(curve(FIVE, 0.4, 0.01), 0.05, seed=4)
    found = fit_power_law(FIVE, SeedMeans.of(cells))
    assert isinstance(found, NoLaw)
    assert "not told from the noise" in found.reason or "does not fall" in found.reason


def test_one_seed_gives_a_law_without_intervals():
    law = fitted(FIVE, curve(FIVE)[:, None])
    assert law.exponent.low is None
    found = compute_scaling("a", FIVE, curve(FIVE)[:, None], curve(FIVE, 0.3)[:, None], FIVE[-1])
    assert any("one seed" in caveat for caveat in found.caveats)
    assert found.prediction.difference.value == pytest.approx(0.1, abs=2e-3)
    assert found.prediction.difference.low is None
    assert "no interval: one seed" in found.sentences()[0]


@pytest.mark.parametrize("compute", [FIVE[::-1], FIVE * 0, FIVE[:3]])
def test_compute_must_rise(compute):
    with pytest.raises(ValueError, match="positive, rising"):
        fit_power_law(compute, SeedMeans.of(np.ones((5, 2))))


@settings(max_examples=25, deadline=None)
@given(
    st.floats(0, 0.3),
    st.floats(0.1, 0.6),
    st.floats(0.1, 1.5),
    st.integers(0, 1000),
)
def test_a_law_never_rises_and_never_falls_below_its_floor(floor, height, exponent, seed):
    found = fit_power_law(
        FIVE, SeedMeans.of(noisy(curve(FIVE, floor, height, exponent), 0.002, seed=seed), 50)
    )
    if isinstance(found, NoLaw):
        return
    errors = found.errors(np.geomspace(FIVE[0], FIVE[-1] * 1e6, 50))
    assert (np.diff(errors) <= 0).all()
    assert (errors >= found.floor.value).all()
    assert found.floor.value >= 0


def test_what_seeds_do_to_both_arms_is_not_in_the_difference():
    rng = np.random.default_rng(1)
    common = rng.normal(0, 0.01, 4)
    top = curve(FIVE)[:, None] + common + rng.normal(0, 1e-4, (5, 4))
    controls = curve(FIVE, 0.25)[:, None] + common + rng.normal(0, 1e-4, (5, 4))
    found = compute_scaling("a/high", FIVE, top, controls, 4 * FIVE[-1]).prediction
    assert found.extrapolation == pytest.approx(4)
    width = found.difference.high - found.difference.low
    assert width < (found.top.high - found.top.low) / 3
    assert found.difference.value == pytest.approx(0.05, abs=1e-3)
    gain = found.controls.value - found.top.value
    assert found.relative.value == pytest.approx(gain / (1 - found.controls.value))


def test_laws_that_cross():
    # Better data with a higher floor: ahead at first, behind in the end.
    first = fitted(FIVE, curve(FIVE, 0.3, 0.2)[:, None])
    second = fitted(FIVE, curve(FIVE, 0.2, 0.5)[:, None])
    (found,) = crossings(first, second, FIVE[-1] * 100)
    assert found.compute == pytest.approx(FIVE[0] * 9, rel=0.05)
    assert found.measured
    assert not found.better
    assert crossings(second, first, FIVE[-1] * 100)[0].better
    assert not crossings(first, second, FIVE[0] * 2)
    assert not crossings(first, first, FIVE[-1])
    assert predict(first, second, FIVE[0] * 9).difference.value == pytest.approx(0, abs=5e-3)


def test_caveats_and_json():
    cells = noisy(curve(THREE, 0), 1e-4), noisy(curve(THREE, 0, 0.5), 1e-4)
    draws = Draws(rows=742, full=160_000)
    found = compute_scaling("a", THREE, *cells, 50 * THREE[-1], draws)
    text = " ".join(found.caveats)
    assert "the same 742 rows of a draw, which the longest sees 4.31 times" in text
    assert "the full run 216 times" in text
    assert "none of which chose the pool" in text
    assert "taken for 0" in text
    assert "50 times the largest training" in text
    plain = found.to_json()
    assert plain["laws"]["a"]["law"]["floor_fixed_at_0"]
    assert plain["laws"]["a"]["law"]["floor"] == {"value": 0.0, "low": None, "high": None}
    assert plain["extrapolation"] == pytest.approx(50)
    fresh = compute_scaling("a", THREE, *cells, 50 * THREE[-1], Draws(200_000, 160_000))
    assert "rows of a draw" not in " ".join(fresh.caveats)
    assert "50 times" in found.sentences()[0]


def test_three_budgets_predict_without_an_interval():
    """With the floor taken for 0, intervals over seeds held the truth in 1 of 120 such studies."""
    cells = noisy(curve(THREE, 0.30, 0.35, 0.7), 0.001), noisy(curve(THREE, 0.35, 0.4, 0.5), 0.001)
    found = compute_scaling("a/high", THREE, *cells, 10 * THREE[-1])
    for known in (found.prediction.top, found.prediction.difference, found.prediction.relative):
        assert known.value > 0
        assert (known.low, known.high) == (None, None)
    (said,) = found.sentences()
    assert said.startswith("a/high: at the full run, 10 times the largest training, its error is")
    assert "smaller than that of the controls (no interval: three budgets" in said


@pytest.mark.parametrize("sd", mostly_slow([0.001, 0.004], 0.004))
def test_four_budgets_hold_the_difference_of_laws_with_floors(sd):
    four = 1e12 * np.array([0.125, 0.25, 0.5, 1.0])
    target, studies, hits = 10 * four[-1], 40, 0
    laws = [(0.30, 0.35, 0.7), (0.35, 0.4, 0.5)]
    at = np.append(four, target)
    truth = curve(at, *laws[1])[-1] - curve(at, *laws[0])[-1]
    for study in range(studies):
        rng = np.random.default_rng(study)
        cells = [curve(four, *law)[:, None] + rng.normal(0, sd, (4, 3)) for law in laws]
        found = compute_scaling("a", four, *cells, target).prediction.difference
        hits += found.low <= truth <= found.high
    # Three standard deviations below 95 %.
    assert hits >= 0.846 * studies


def test_a_loss_and_a_crossing_are_said_in_words():
    rng = np.random.default_rng(0)
    top = curve(FIVE, 0.3, 0.2)[:, None] + rng.normal(0, 1e-4, (5, 3))
    controls = curve(FIVE, 0.2, 0.5)[:, None] + rng.normal(0, 1e-4, (5, 3))
    found = compute_scaling("a/high", FIVE, top, controls, 4 * FIVE[-1])
    predicted, crossing = found.sentences()
    assert "larger than that of the controls (95 % interval from 0.0" in predicted
    assert "smaller" not in predicted
    assert crossing.startswith("a/high: the laws cross at 0.5")
    assert "(among the trainings): beyond it, its error is the larger one" in crossing
    # Seen from the other side, and where it is extrapolated to.
    other = compute_scaling("b", FIVE[:4] / 4, controls[:4], top[:4], 40 * FIVE[-1])
    assert other.crossings[0].measured == ("among" in other.sentences()[1])
    assert "the smaller one" in other.sentences()[1]
    same = compute_scaling("a", FIVE, top, top + rng.normal(0, 1e-4, (5, 3)), 4 * FIVE[-1])
    assert ": undecided)" in same.sentences()[0]


def test_caveats_are_among_the_sentences_and_shared_ones_once():
    cells = noisy(curve(THREE, 0), 1e-4), noisy(curve(THREE, 0, 0.5), 1e-4)
    far = compute_scaling("a", THREE, *cells, 50 * THREE[-1])
    near = compute_scaling("a", THREE, *cells, 2 * THREE[-1])
    told = scaling_sentences({"small": far, "large": near})
    assert sum("taken for 0" in line for line in told) == 1
    assert any(line.startswith("caveat: three budgets") for line in told)
    assert any(line.startswith("small: caveat: the full run is 50 times") for line in told)
    assert not any(line.startswith("large: caveat") for line in told)
    assert [line.split(":")[0] for line in told[:2]] == ["small", "large"]


def test_a_lost_budget_is_said_and_two_are_too_few():
    lost = noisy(curve(THREE, 0), 1e-4)
    lost[1] = np.nan
    found = compute_scaling("a", THREE, lost, noisy(curve(THREE, 0), 1e-4), THREE[-1])
    assert found.prediction is None
    assert "1 budgets are left out" in found.caveats[0]
    reasons = [law["reason"] for law in found.to_json()["laws"].values()]
    assert all("too few points" in reason for reason in reasons)
    assert set(found.laws) == {"a", CONTROLS}
    nothing = compute_scaling("a", THREE, lost * np.nan, lost, THREE[-1])
    assert "outside [0, 1]" in nothing.sentences()[0]

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simulations import mostly_slow

from djsandbox_ray.analysis.verdicts.shrinkage import shrink, spread, standard_error
from djsandbox_ray.analysis.verdicts.variances import within_variance

numbers = st.floats(-100, 100).map(lambda x: round(x, 3))
positive = st.floats(0.01, 50)


@given(st.lists(st.tuples(numbers, positive), max_size=12))
def test_shrunken_changes_are_nearer_to_zero_and_of_the_same_sign(pools):
    changes, errors = np.array(pools).reshape(-1, 2).T
    shrunken = shrink(changes, errors)
    assert shrunken.shape == changes.shape
    assert (np.abs(shrunken) <= np.abs(changes)).all()
    assert (np.sign(shrunken) == np.sign(changes)).all()


@given(st.lists(numbers, min_size=3, max_size=12), positive, st.floats(0.1, 10))
def test_equal_errors_keep_the_order_and_the_unit_does_not_matter(changes, error, unit):
    shrunken = shrink(changes, [error] * len(changes))
    order = np.argsort(changes, kind="stable")
    assert (np.diff(shrunken[order]) >= 0).all()
    scaled = shrink(np.multiply(unit, changes), [unit * error] * len(changes))
    np.testing.assert_allclose(scaled, unit * shrunken, rtol=1e-6, atol=1e-9)


@given(st.lists(numbers, min_size=3, max_size=12), positive)
def test_with_equal_errors_it_is_james_and_stein(changes, error):
    squares = np.sum(np.square(changes))
    if squares <= len(changes) * error**2:
        factor = 2 / len(changes)  # the noise alone explains the spread
    else:
        factor = 1 - (len(changes) - 2) * error**2 / squares
    np.testing.assert_allclose(
        shrink(changes, [error] * len(changes)), np.multiply(changes, factor), rtol=1e-9
    )


@given(st.lists(st.tuples(numbers, positive), min_size=3, max_size=12))
def test_the_spread_solves_its_equation(pools):
    changes, errors = np.array(pools).T
    found = spread(changes, errors)
    mean = (changes**2 / (errors**2 + found)).mean()
    assert found >= 0
    assert mean == pytest.approx(1) if found > 0 else mean <= 1 + 1e-9


def test_the_noisier_of_two_equal_changes_is_pulled_further():
    shrunken = shrink([1.0, 1.0, -2.0, 3.0], [0.5, 2.0, 0.5, 0.5])
    assert shrunken[1] < shrunken[0]


def test_the_spread_of_many_true_effects_is_found_and_the_error_is_less():
    rng = np.random.default_rng(0)
    truth = rng.normal(0, 1.5, (400, 30))
    errors = rng.uniform(0.5, 2.0, (400, 30))
    measured = truth + rng.normal(0, 1, (400, 30)) * errors
    found = np.array([spread(*study) for study in zip(measured, errors, strict=True)])
    assert found.mean() == pytest.approx(1.5**2, rel=0.05)
    shrunken = np.array([shrink(*study) for study in zip(measured, errors, strict=True)])
    loss = ((shrunken - truth) ** 2).mean()
    # The best that could be done, had the true spread been known.
    best = (1.5**2 * errors**2 / (1.5**2 + errors**2)).mean()
    assert loss < 1.05 * best
    assert loss < 0.75 * ((measured - truth) ** 2).mean()


def test_few_changes_or_no_noise_are_left_alone():
    np.testing.assert_array_equal(shrink([1.0, -2.0], [1.0, 1.0]), [1.0, -2.0])
    np.testing.assert_array_equal(shrink([1.0, -2.0, 0.0], [0.0] * 3), [1.0, -2.0, 0.0])
    np.testing.assert_array_equal(shrink([0.0] * 3, [1.0] * 3), [0.0] * 3)
    assert shrink([], []).shape == (0,)
    assert spread([3.0], [0.0]) == 9.0


@pytest.mark.parametrize(
    ("changes", "errors", "message"),
    [
        ([1.0], [1.0, 2.0], r"shapes \(1,\) and \(2,\)"),
        ([[1.0]], [[1.0]], r"shapes \(1, 1\)"),
        ([np.nan], [1.0], "finite"),
        ([1.0], [np.inf], "finite"),
        ([1.0, 1.0], [1.0, 0.0], r"an error is 0\.0"),
        ([1.0], [-1.0], r"an error is -1\.0"),
    ],
)
def test_bad_input(changes, errors, message):
    for function in (shrink, spread):
        with pytest.raises(ValueError, match=message):
            function(changes, errors)


def test_no_changes_have_no_spread():
    with pytest.raises(ValueError, match="no changes"):
        spread([], [])


def simulate(data, share, bucket_share, studies=4000, arms=6, seeds=3):
    """Control scores (studies, arms, seeds): noise of bucket, draw and training; seed effects."""
    rng = np.random.default_rng(1)
    bucket = np.sqrt(data * share * (1 - bucket_share)) * rng.normal(size=(studies, arms, 1))
    trial = np.sqrt(data * (1 - share) + 1 - data) * rng.normal(size=(studies, arms, seeds))
    return bucket + trial + rng.normal(0, 5, size=(studies, 1, seeds))


@pytest.mark.parametrize("data", mostly_slow([0.0, 0.25, 0.5, 0.75, 1.0], 0.0, 1.0))
@pytest.mark.parametrize("share", [0.33, 0.67])
@pytest.mark.parametrize("bucket_share", [1 / 3, 1 / 60])
@pytest.mark.parametrize("arms", mostly_slow([5, 8], 5))
def test_the_standard_error_is_that_of_a_change(data, share, bucket_share, arms):
    scores = simulate(data, share, bucket_share, arms=arms + 1)
    truth = data * share * (1 - bucket_share) + (1 - data * share) / 3
    known = np.array([standard_error(study[1:], share, bucket_share) for study in scores])
    variances = known**2 / (1 + 1 / arms) / truth
    open_ = 3 * variances.std() / np.sqrt(len(variances))
    assert abs(variances.mean() - 1) < 0.1 + open_
    # It is steadier than the variance between controls alone.
    alone = scores[:, 1:].mean(axis=2).var(axis=1, ddof=1) / truth
    assert ((variances - 1) ** 2).mean() < 0.9 * ((alone - 1) ** 2).mean()
    changes = scores[:, 0].mean(axis=1) - scores[:, 1:].mean(axis=(1, 2))
    assert 0.93 < np.sqrt((known**2).mean()) / changes.std() < 1.07


def test_the_standard_error_by_hand():
    arms = np.array([[0.0, 1.0], [10.0, 11.5], [20.0, 20.5], [30.0, 31.0]])
    between, within = arms.mean(axis=1).var(ddof=1), float(within_variance(arms))

    def variance(*shares):
        return standard_error(arms, *shares) ** 2 / (1 + 1 / 4)

    # V / w from 1/2 to 1/2 + 2/3: weight 0.1 * (5/3) / (2/3), centre 2 (1/2) (7/6) / (5/3).
    assert variance(0.5, 1 / 3) == pytest.approx(0.75 * between + 0.25 * 0.7 * within)
    # Draws of nearly nothing: nothing is left to be known from the controls' means.
    assert variance(0.001, 1 / 3) == pytest.approx(within / 2, rel=1e-3)
    assert variance() == pytest.approx(between)
    assert standard_error(arms[:, :1], 0.5) ** 2 == pytest.approx(5 / 4 * arms[:, 0].var(ddof=1))
    assert standard_error(np.ones((4, 2)), 1.0) == 0
    assert standard_error(np.ones((4, 2)), 0.5) == 0

from __future__ import annotations

import numpy as np
import pytest

from djsandbox_ray.analysis.verdicts.collapse import collapsed

NAN = np.nan


def study(seed=0, pools=6, controls=8, seeds=3):
    rng = np.random.default_rng(seed)
    common = 5 * rng.standard_normal(seeds)
    return (
        common + rng.standard_normal((pools, seeds)),
        common + rng.standard_normal((controls, seeds)),
    )


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_a_trial_far_below_the_rest_of_its_arm_is_found(seeds):
    pools, controls = study(seeds=seeds)
    assert not collapsed(pools, controls).any()
    pools[2, 1] -= 30
    controls[3, 0] -= 30
    found = collapsed(pools, controls)
    assert np.argwhere(found).tolist() == [[2, 1], [9, 0]]


def test_a_whole_arm_that_is_bad_and_a_trial_that_is_far_above_have_not_collapsed():
    pools, controls = study()
    pools[0] -= 100
    pools[1, 1] += 3
    assert not collapsed(pools, controls).any()


def test_a_noisy_arm_has_not_collapsed():
    pools, controls = study()
    pools[0] = controls.mean(axis=0) + np.array([-25.0, 0.0, 25.0])
    assert not collapsed(pools, controls)[0].any()


def test_equal_noise_seldom_seems_a_collapse():
    named = sum(collapsed(*study(seed)).any() for seed in range(300))
    assert named <= 5


def test_missing_scores_one_seed_and_no_noise():
    pools, controls = study()
    pools[0] = [NAN, 3.0, NAN]
    pools[1] = [NAN, controls[0, 1], controls[0, 2] - 40]
    assert np.argwhere(collapsed(pools, controls)).tolist() == [[1, 2]]
    assert not collapsed(pools[:, :1], controls[:, :1]).any()
    steady = np.tile([0.1, 0.7, 0.3], (5, 1))
    assert not collapsed(steady[:2] - [[0.0, 0.0, 1.0]], steady).any()

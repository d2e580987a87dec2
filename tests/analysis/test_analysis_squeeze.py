from __future__ import annotations

import numpy as np
import pytest

from djsandbox_ray.analysis.verdicts.moderated import within_variance
from djsandbox_ray.analysis.verdicts.squeeze import squeeze


def scores(studies, pool_sd, controls=8, seeds=3, seed=0):
    rng = np.random.default_rng(seed)
    common = 5 * rng.standard_normal((studies, 1, seeds))
    pools = rng.standard_normal((studies, len(pool_sd), seeds)) * np.asarray(pool_sd)[:, None]
    return common + pools, common + rng.standard_normal((studies, controls, seeds))


def test_arms_that_vary_alike_share_one_variance_nearly_always():
    pools, controls = scores(4000, np.ones(18))
    found = squeeze(pools, controls)
    pooled = within_variance(np.concatenate([pools, controls], axis=1))
    shared = np.isclose(found.controls, pooled) & (found.pools == pooled[:, None]).all(axis=1)
    assert shared.mean() > 0.985
    assert (found.df[shared] == 25 * 2).all()


def test_ruined_pools_do_not_narrow_the_intervals_of_others():
    pools, controls = scores(2000, np.full(18, 0.05))
    found = squeeze(pools, controls)
    assert within_variance(np.concatenate([pools, controls], axis=1)).mean() < 0.4
    assert found.controls.mean() == pytest.approx(1, rel=0.05)
    assert (found.df == 7 * 2).all()
    assert (found.pools >= found.controls[:, None]).all()


def test_where_arms_differ_much_a_noisy_pool_gets_a_variance_of_its_own():
    pools, controls = scores(2000, [0.1] * 9 + [6.0] * 9)
    found = squeeze(pools, controls)
    ratio = np.median(found.pools / found.controls[:, None], axis=0)
    assert (ratio[9:] > 5).all()
    assert (ratio[:9] < 1.5).all()


def test_seed_effects_and_units_do_not_matter():
    pools, controls = scores(200, [0.1] * 6 + [1.0] * 6 + [3.0] * 6)
    shift, unit = np.array([1.0, -7.0, 3.0]), 0.01
    before, after = (
        squeeze(pools, controls),
        squeeze(unit * (pools + shift), unit * (controls + shift)),
    )
    assert after.pools == pytest.approx(before.pools * unit**2)
    assert after.df.tolist() == before.df.tolist()


def test_the_vectorised_result_is_that_of_single_studies():
    pools, controls = scores(30, [0.1] * 6 + [1.0] * 6 + [3.0] * 6)
    together = squeeze(pools, controls)
    for i in range(30):
        alone = squeeze(pools[i], controls[i])
        assert alone.pools == pytest.approx(together.pools[i])
        assert int(alone.df) == together.df[i]


def test_no_pools_and_constant_scores():
    controls = np.random.default_rng(0).normal(size=(5, 3))
    found = squeeze(np.empty((0, 3)), controls)
    assert found.pools.shape == (0,)
    assert found.controls == pytest.approx(within_variance(controls))
    with np.errstate(all="raise"):
        constant = squeeze(np.ones((4, 3)), np.ones((5, 3)))
    assert constant.controls == 0
    assert constant.pools.tolist() == [0.0] * 4
    one = squeeze(np.ones((4, 3)), controls)  # constant pools beside noisy controls
    assert one.controls > 0

"""Whether a study sees what is of interest; where not, the likely reasons and what would."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from djsandbox_ray.analysis.planning.noise import NoiseFloor
from djsandbox_ray.analysis.planning.power import power
from djsandbox_ray.analysis.planning.sight import Cause, NoiseConfig, blind
from djsandbox_ray.analysis.verdicts.design import Design

DESIGN = Design(pools=18, controls=8, seeds=2, draw_share=0.5)


def floor(training: float, bucket: float) -> NoiseFloor:
    """Return the noise of controls with these standard deviations, of trials and of arms."""
    rng = np.random.default_rng(3)
    trials = training * rng.standard_normal((8, 2))
    arms = bucket * rng.standard_normal((8, 1))
    return NoiseFloor.from_controls(trials + arms, DESIGN)


def trials(**metrics: tuple[float, float]) -> Sequence[Mapping[str, float]]:
    """Return metrics of 16 trials with these means and standard deviations."""
    rng = np.random.default_rng(4)
    return [
        {name: float(rng.normal(mean, deviation)) for name, (mean, deviation) in metrics.items()}
        for _ in range(16)
    ]


CALM = trials(a=(0.5, 0.01), b=(0.6, 0.01), c=(0.7, 0.01))
NOISY = floor(0.2, 0.0)


def test_a_study_that_finds_it_is_not_blind() -> None:
    assert blind(NOISY, NOISY.detectable.value, CALM, {}) is None


def test_the_cheapest_design_finds_what_is_of_interest() -> None:
    wanted = 0.7 * NOISY.detectable.value
    found = blind(NOISY, wanted, CALM, {})
    assert found is not None
    assert found.interest == wanted
    assert found.design is not None
    assert found.design.detectable <= wanted
    if found.design.design.draw_share == DESIGN.draw_share:
        assert power(wanted, NOISY.within, NOISY.bucket, found.design.design) >= 0.8
    hopeless = blind(NOISY, NOISY.detectable.value / 1000, CALM, {})
    assert hopeless is not None
    assert hopeless.design is None


@pytest.mark.parametrize(
    ("noise", "scores", "chance", "causes"),
    [
        (NOISY, CALM, {"a": 0.1}, [(Cause.TRAINING, ())]),
        (NOISY, CALM, {"a": 0.505, "b": 0.1}, [(Cause.BUDGET, ("a",))]),
        (floor(0.1, 0.5), CALM, {}, [(Cause.POOL_SIZE, ())]),
        (NOISY, trials(a=(0.5, 0.01), b=(0.6, 0.01), c=(0.2, 0.1)), {}, [(Cause.METRIC, ("c",))]),
        (NOISY, trials(a=(0.5, 0.1)), {}, [(Cause.TRAINING, ())]),
        (
            floor(0.1, 0.5),
            trials(a=(0.5, 0.01), b=(0.6, 0.01), c=(0.1, 0.05)),
            {"c": 0.1},
            [(Cause.BUDGET, ("c",)), (Cause.POOL_SIZE, ()), (Cause.METRIC, ("c",))],
        ),
    ],
    ids=["training", "at chance", "buckets", "one metric", "an only metric", "all of them"],
)
def test_likely_reasons(
    noise: NoiseFloor,
    scores: Sequence[Mapping[str, float]],
    chance: Mapping[str, float],
    causes: list[tuple[Cause, tuple[str, ...]]],
) -> None:
    found = blind(noise, noise.detectable.value / 1000, scores, chance)
    assert found is not None
    assert [(reason.cause, reason.metrics) for reason in found.reasons] == causes


def test_what_is_of_interest_unless_it_is_said() -> None:
    assert NoiseConfig().of_interest(standardized=False) == 0.5
    assert NoiseConfig().of_interest(standardized=True) == 5.0
    assert NoiseConfig(stop_above=0.2).of_interest(standardized=True) == 0.2
    assert NoiseConfig(stop_above=0.2, interest=0.1).of_interest(standardized=False) == 0.1

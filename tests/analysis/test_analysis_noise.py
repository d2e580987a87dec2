from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from factories import ranking_row
from hypothesis import given, settings
from hypothesis import strategies as st
from simulations import mostly_slow

from djsandbox_ray.analysis.planning.noise import NoiseFloor, realised
from djsandbox_ray.analysis.planning.posterior import CredibleRange
from djsandbox_ray.analysis.planning.power import detectable_effect, half_width_rule
from djsandbox_ray.analysis.verdicts.design import Design
from djsandbox_ray.errors import BadInput

DESIGN = Design(pools=18, controls=8, seeds=3, draw_share=0.5)
WITHIN, BUCKET = 0.75, 1 / 6
"""Half of the variance of a draw of half a bucket from its samples, half from training."""


def controls(design=DESIGN, within=WITHIN, bucket=BUCKET, seed=0):
    rng = np.random.default_rng([seed, design.controls, design.seeds])
    return (
        0.3
        + 3.0 * rng.standard_normal((1, design.seeds))
        + math.sqrt(bucket) * rng.standard_normal((design.controls, 1))
        + math.sqrt(within) * rng.standard_normal((design.controls, design.seeds))
    )


FLOOR = NoiseFloor.from_controls(controls(seed=8), DESIGN)


def test_the_estimates_are_unbiased():
    many = replace(DESIGN, controls=40)
    floors = [NoiseFloor.from_controls(controls(many, seed=i), many) for i in range(30)]

    def mean(name):
        values = np.array([getattr(floor, name) for floor in floors])
        return values.mean(), 4 * values.std(ddof=1) / math.sqrt(len(values))

    for name, truth in [("within", WITHIN), ("between", BUCKET + WITHIN / 3), ("bucket", BUCKET)]:
        value, error = mean(name)
        assert error < truth / 2
        assert value == pytest.approx(truth, abs=error)


@pytest.mark.parametrize(
    ("data", "draw_share"), mostly_slow([(0.2, 0.5), (0.8, 0.5), (0.5, 1.0)], (0.2, 0.5))
)
def test_the_ranges_hold_the_truth_nine_times_in_ten(data, draw_share):
    design = replace(DESIGN, draw_share=draw_share)
    noise = data * (1 - draw_share) + 1 - data, data * draw_share * 2 / 3
    truth = detectable_effect(*noise, design)
    half, weights = half_width_rule(*noise, design, 0.05)
    found, foretold = [], []
    for seed in range(80):
        floor = NoiseFloor.from_controls(controls(design, *noise, seed=seed), design)
        found.append(floor.detectable.low <= truth <= floor.detectable.high)
        # Of another study with this noise, without simulating it.
        inside = (floor.half_width.low <= half) & (half <= floor.half_width.high)
        foretold.append(weights @ inside)
    assert 0.78 <= np.mean(found) <= 0.99
    assert 0.85 <= np.mean(foretold) <= 0.95


@pytest.mark.parametrize("arms", mostly_slow([5, 8], 5))
@pytest.mark.parametrize("data", mostly_slow([0.0, 0.5, 1.0], 1.0))
def test_what_is_predicted_is_on_average_the_truth(arms, data):
    design = replace(DESIGN, controls=arms)
    noise = 1 - data * 0.5, data * 0.5 * 2 / 3
    half, weights = half_width_rule(*noise, design, 0.05)
    order = np.argsort(half)
    median = half[order][np.searchsorted(np.cumsum(weights[order]), 0.5)]
    truth = np.array([detectable_effect(*noise, design), median])
    floors = [
        NoiseFloor.from_controls(controls(design, *noise, seed=seed), design) for seed in range(60)
    ]
    found = np.array([(floor.detectable.value, floor.half_width.value) for floor in floors])
    ratio = found.mean(axis=0) / truth
    error = found.std(axis=0) / truth / math.sqrt(len(found))
    # A tenth to either side at most, and what 60 studies leave open.
    assert (np.abs(ratio - 1) < 0.1 + 2 * error).all()
    if data == 1:
        plain = [detectable_effect(f.within, f.bucket, design) for f in floors]
        assert np.mean(plain) < 0.96 * found.mean(axis=0)[0]


def test_what_is_predicted_follows_from_the_estimates():
    floor = FLOOR
    assert floor.measured == floor.design == DESIGN
    assert floor.bucket == pytest.approx(floor.between - floor.within / 3)
    noise = floor.within, floor.bucket
    assert floor.detectable.value == pytest.approx(detectable_effect(*noise, DESIGN), rel=0.15)
    half, weights = half_width_rule(*noise, DESIGN, 0.05)
    assert weights @ (half <= floor.half_width.value) == pytest.approx(0.5, abs=0.2)
    for prediction in (floor.half_width, floor.detectable):
        assert 0 < prediction.low < prediction.value < prediction.high
    strict = NoiseFloor.from_controls(controls(seed=8), DESIGN, alpha=0.01)
    assert strict.detectable.value > floor.detectable.value


def test_the_bucket_is_kept_within_its_bounds():
    residuals = np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    alike = NoiseFloor.from_controls(residuals, DESIGN)
    assert alike.between == pytest.approx(0.0, abs=1e-30)
    assert alike.bucket == 0.0
    assert alike.within == pytest.approx(4 / 6)
    apart = NoiseFloor.from_controls(residuals + np.arange(4.0)[:, None], DESIGN)
    assert apart.bucket == pytest.approx(apart.within * DESIGN.bucket_bound)
    # Arms further apart than draws of one dataset can be: the prediction is not forced into bounds.
    forced = detectable_effect(apart.within, apart.bucket, DESIGN)
    assert apart.detectable.value > 1.2 * forced
    whole = NoiseFloor.from_controls(
        residuals + np.arange(4.0)[:, None], replace(DESIGN, draw_share=1.0)
    )
    assert whole.bucket == pytest.approx(5 / 3 - (4 / 6) / 3)


def test_one_seed_leaves_the_bucket_its_greatest_share():
    scores = controls()[:, :1]
    floor = NoiseFloor.from_controls(scores, replace(DESIGN, seeds=1))
    assert floor.between == pytest.approx(scores.var(ddof=1))
    assert floor.within + floor.bucket == pytest.approx(floor.between)
    assert floor.bucket == pytest.approx(floor.within * DESIGN.bucket_bound)
    whole = NoiseFloor.from_controls(scores, replace(DESIGN, seeds=1, draw_share=1.0))
    assert (whole.within, whole.bucket) == (0.0, whole.between)
    assert whole.seeds_for(0.9 * whole.detectable.value) is None


def test_scores_without_any_noise():
    floor = NoiseFloor.from_controls(np.full((5, 3), 0.25), DESIGN)
    assert floor.half_width == floor.detectable == CredibleRange(0.0, 0.0, 0.0)
    assert floor.seeds_for(0.001) == 2
    assert floor.under(replace(DESIGN, draw_share=1.0)).seeds_for(0.001) == 1
    assert realised(floor, [row(0.1)]) is None


def test_seeds_for_is_the_least_number_and_shrinks_with_the_effect():
    effects = [3.6, 6.0]
    seeds = [FLOOR.seeds_for(effect) for effect in effects]
    assert None not in seeds
    assert seeds == sorted(seeds, reverse=True)
    assert seeds[0] > seeds[-1]
    for effect, least in zip(effects, seeds, strict=True):
        assert FLOOR.under(replace(DESIGN, seeds=least)).detectable.value <= effect
        assert FLOOR.under(replace(DESIGN, seeds=least - 1)).detectable.value > effect or least == 2
    # One draw per arm would be a whole bucket with more noise.
    assert FLOOR.seeds_for(1e6) == 2
    assert FLOOR.under(replace(DESIGN, draw_share=1.0)).seeds_for(1e6) == 1
    assert FLOOR.seeds_for(FLOOR.detectable.value * 1.0001) == DESIGN.seeds
    assert FLOOR.seeds_for(0.5) is None


@pytest.mark.parametrize("effect", [0.0, -1.0, math.nan, math.inf])
def test_seeds_for_needs_a_positive_effect(effect):
    with pytest.raises(BadInput, match="the effect is"):
        FLOOR.seeds_for(effect)


def test_the_same_noise_under_another_design():
    assert FLOOR.under(DESIGN) == FLOOR
    planned = Design(pools=93, controls=19, seeds=4, draw_share=0.25)
    floor = FLOOR.under(planned)
    assert (floor.design, floor.measured) == (planned, DESIGN)
    assert floor.detectable.low < floor.detectable.value < floor.detectable.high
    assert floor.under(DESIGN) == FLOOR
    trimmed = FLOOR.under(replace(DESIGN, bucket_share=1 / 6))
    assert trimmed.detectable.value > FLOOR.detectable.value


def test_the_same_noise_at_another_error_rate():
    strict = FLOOR.under(DESIGN, 0.01)
    assert strict == NoiseFloor.from_controls(controls(seed=8), DESIGN, alpha=0.01)
    assert strict.under(DESIGN, 0.05) == FLOOR
    assert strict.under(DESIGN).alpha == 0.01
    with pytest.raises(BadInput, match="alpha is 0"):
        FLOOR.under(DESIGN, 0.0)


def test_fewer_arms_and_seeds_may_be_measured_than_are_planned():
    floor = NoiseFloor.from_controls(controls()[:5, :2], DESIGN)
    assert (floor.measured.controls, floor.measured.seeds) == (5, 2)
    assert floor.design == DESIGN
    full = NoiseFloor.from_controls(controls(), DESIGN)
    assert floor.detectable.high / floor.detectable.low > full.detectable.high / full.detectable.low


designs = st.builds(
    Design,
    pools=st.integers(1, 500),
    controls=st.integers(3, 100),
    seeds=st.integers(1, 50),
    draw_share=st.floats(0.01, 1),
    bucket_share=st.floats(0.001, 0.999),
)
numbers = st.floats(0, 1e9)
ranges = st.builds(CredibleRange, numbers, numbers, numbers)


@settings(max_examples=60)
@given(
    st.builds(
        NoiseFloor,
        measured=designs,
        design=designs,
        alpha=st.floats(0.001, 0.5),
        between=numbers,
        within=numbers,
        bucket=numbers,
        half_width=ranges,
        detectable=ranges,
    )
)
def test_json_round_trip(floor):
    text = json.dumps(floor.to_json(), allow_nan=False)
    assert NoiseFloor.from_json(json.loads(text)) == floor


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"within": None}, "within: Input should be a valid number"),
        ({"within": math.nan}, "within: "),
        ({"alpha": 1.0}, "alpha: Input should be less than 1"),
        ({"bucket": -1.0}, "bucket: Input should be greater than or equal to 0"),
        ({"half_width": {"value": 1.0, "low": 0.5}}, r"half_width\.high: Field required"),
        ({"design": {**FLOOR.to_json()["design"], "seeds": 0}}, "design: .*seeds is 0"),
        ({"colour": "red"}, "colour: Unexpected"),
    ],
)
def test_json_that_cannot_be_read(change, message):
    with pytest.raises(BadInput, match=f"noise floor: {message}"):
        NoiseFloor.from_json({**FLOOR.to_json(), **change})


def test_json_that_is_something_else():
    with pytest.raises(BadInput, match="noise floor: the whole"):
        NoiseFloor.from_json([1, 2])
    with pytest.raises(BadInput, match="measured: Field required"):
        NoiseFloor.from_json({})


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        (np.zeros((2, 3)), "2 control arms; at least 3"),
        (np.zeros(8), r"have the shape \(8,\)"),
        (np.zeros((5, 0)), r"have the shape \(5, 0\)"),
        ([[1.0], [2.0, 3.0]], "one number per arm and seed"),
        ([["a"], ["b"], ["c"]], "one number per arm and seed"),
        ([[0.0, 1.0]] * 3 + [[2.0, math.nan]], "control arm 3, seed 1 is nan"),
        ([[0.0, 1.0], [math.inf, 2.0], [1.0, 2.0]], "control arm 1, seed 0 is inf"),
    ],
)
def test_bad_scores(scores, message):
    with pytest.raises(BadInput, match=message):
        NoiseFloor.from_controls(scores, DESIGN)


def test_bad_alpha_and_too_few_planned_controls():
    with pytest.raises(BadInput, match="alpha is 1"):
        NoiseFloor.from_controls(controls(), DESIGN, alpha=1)
    with pytest.raises(BadInput, match="2 control arms"):
        NoiseFloor.from_controls(controls(), replace(DESIGN, controls=2))


def row(half, seeds=3):
    verdict = "failed" if math.isnan(half) else "undecided"
    return ranking_row("size/low", 0.1, verdict, low=0.1 - half, high=0.1 + half, seeds=seeds)


def test_realised_half_widths_as_predicted():
    expected = FLOOR.half_width.value
    # A pool that lost a trial, and one that lost all, do not count.
    rows = [row(1.1 * expected), row(1.1 * expected), row(9.0 * expected, seeds=2), row(math.nan)]
    result = realised(FLOOR, rows)
    assert result is not None
    assert result.half_width == pytest.approx(1.1 * expected)
    assert result.ratio == pytest.approx(1.1)
    assert result.warning is None


@pytest.mark.parametrize(("factor", "word"), [(3.0, "wider"), (0.2, "narrower")])
def test_realised_half_widths_that_are_a_surprise(factor, word):
    result = realised(FLOOR, [row(factor * FLOOR.half_width.value)])
    assert result is not None
    assert result.ratio == pytest.approx(factor)
    assert result.warning is not None
    assert f"intervals are {word} than" in result.warning
    assert f"{factor:.2f} times" in result.warning


def test_nothing_to_compare_with():
    assert realised(FLOOR, []) is None
    assert realised(FLOOR, [row(math.nan), row(1.0, seeds=1)]) is None

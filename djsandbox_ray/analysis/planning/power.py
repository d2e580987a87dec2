"""Power: how likely an effect is to be called better, and the cheapest design that finds it.

A trial's score varies by ``within`` around its arm, and the arm by ``bucket``, the part that more
seeds do not average away. With S seeds the mean of an arm has variance V = bucket + within / S, the
effect of one pool against the mean of C control arms is normal with variance V (1 + 1/C), and the
half-width of its interval (:mod:`~djsandbox_ray.analysis.verdicts.arm_noise`) is a function of
independent estimates, of the variance between control arms and of that within each arm:

    between ~ V chi2(C - 1) / (C - 1),    within ~ within chi2(df) / df,  df = (arms - 1) (S - 1).

The power is the probability that the effect exceeds the half-width. Given the estimates it is a
normal probability; the expectation over them is taken by a fixed quadrature, without random
numbers. Arms are taken to be equally noisy. That their estimated variances differ all the same
widens intervals, and is in it: a study is looked at in which they are the quantiles of their
distribution, and two in which they are that much further apart, and less, as chance makes them.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import scipy
from numpy.typing import NDArray

from djsandbox_ray.analysis.verdicts.arm_noise import ArmNoise, against_controls
from djsandbox_ray.analysis.verdicts.design import Design
from djsandbox_ray.analysis.verdicts.dunnett import critical_value
from djsandbox_ray.analysis.verdicts.verdicts import MIN_CONTROL_ARMS
from djsandbox_ray.errors import BadInput

Floats = NDArray[np.float64]

POWER = 0.8
"""The customary chance to find an effect that is there."""
DRAW_SHARES = (0.25, 0.5, 2 / 3, 1.0)
"""Draw sizes that the planner tries; a model of far less data would be another model."""
MAX_SEEDS = 50
"""More seeds for a given number of controls are not considered."""
MOST_CONTROLS, MOST_SEEDS = 40, 16
"""What the planner tries at most."""
_LEAST_CONTROLS = 5
_LEAST_CONTROLS_WHOLE = 8
"""With whole buckets, the control arms alone measure the noise."""
_KNOWN = 1e6
"""Degrees of freedom of a variance that is as good as known."""
_BETWEEN_NODES, _WITHIN_NODES = 48, 16
_RATIO_KNOTS = 7
"""Ratios of the two variances at which half-widths are computed; others lie between."""
_ORDERS = 4
"""In which arms of 2 seeds are taken to be noisy; of more seeds, arms are told apart less."""
_APART = ((-math.sqrt(3), 1 / 6), (0.0, 2 / 3), (math.sqrt(3), 1 / 6))
"""How far log variances of arms are apart, in standard errors of their variance, and how likely
that is: the nodes of Gauss and Hermite."""


@dataclass(frozen=True)
class PlannedDesign:
    """A design, what it costs and what it finds."""

    design: Design
    power: float
    """Probability that a pool with the effect asked for is called better."""
    detectable: float
    """The effect that is called better with the power asked for."""

    @property
    def trials(self) -> int:
        """What it costs: trials of all arms, self-tests among the pools."""
        return _trials(self.design)


def power(
    effect: float, within: float, bucket: float, design: Design, alpha: float = 0.05
) -> float:
    """Return the probability that a pool with this true effect gets the verdict better.

    Args:
        effect: true change of the pool against the controls, in units of the score.
        within: variance of the trials of one arm.
        bucket: variance between arms beside what their trials cause.
        design: the study; all its trials are completed.
        alpha: family-wise error rate of its verdicts, in (0, 1).

    Raises:
        BadInput: an effect or variance that is not finite, a negative variance, alpha outside
            (0, 1), or fewer than 3 control arms.
    """
    _check(within, bucket, design, alpha)
    if not math.isfinite(effect):
        raise BadInput(f"the effect is {effect}; a finite number is needed")
    return _chance(effect, within, bucket, design, alpha)


def detectable_effect(
    within: float, bucket: float, design: Design, alpha: float = 0.05, power: float = POWER
) -> float:
    """Return the effect that is called better with probability ``power``: its inverse.

    Args:
        within: see :func:`power`, and so the others.
        bucket: see there.
        design: see there.
        alpha: see there.
        power: above alpha and below 1.

    Raises:
        BadInput: as :func:`power`, or a power outside its range.
    """
    _check(within, bucket, design, alpha)
    _check_power(power, alpha)
    deviation = _deviation(within, bucket, design)
    if deviation == 0:
        return 0.0
    half, weights = half_width_rule(within, bucket, design, alpha)

    def excess(effect: float) -> float:
        return float(weights @ scipy.special.ndtr((effect - half) / deviation)) - power

    highest = float(half.max()) + deviation * max(float(scipy.special.ndtri(power)), 1.0)
    return float(scipy.optimize.brentq(excess, 0.0, highest, xtol=1e-12 * highest))


def half_width_rule(
    within: float, bucket: float, design: Design, alpha: float
) -> tuple[Floats, Floats]:
    """Return the half-widths that a study may come out with and their probabilities, (nodes,)."""
    between, between_weights = _chi_square_rule(design.controls - 1, _BETWEEN_NODES)
    between = (bucket + within / design.seeds) * between
    df = (design.pools + design.controls - 1) * (design.seeds - 1)
    if not df or not within:  # nothing is seen within arms
        return np.sqrt(between) * _unit_half_width(design, alpha), between_weights
    pooled, pooled_weights = _chi_square_rule(df, _WITHIN_NODES)
    log_ratio = np.log(between[:, None] / (within * pooled)).ravel()
    knots, heights, chances = _heights(design, alpha)
    root = np.tile(np.sqrt(within * pooled), len(between))
    # Beyond the knots as at the last: the larger of both variances counts alone.
    beyond = np.exp(0.5 * np.maximum(log_ratio - knots[-1], 0.0))
    halves = [root * beyond * np.exp(np.interp(log_ratio, knots, row)) for row in heights]
    weights = np.outer(between_weights, pooled_weights).ravel()
    return np.concatenate(halves), np.outer(chances, weights).ravel()


@lru_cache(maxsize=256)
def _heights(design: Design, alpha: float) -> tuple[Floats, Floats, Floats]:
    """The half-width over the root of the variance within arms, by the ratio of both variances.

    Returns:
        Logarithms of ratios, (knots,); logarithms of half-widths, (apart, knots); and how likely
        arms are so far apart, (apart,).
    """
    least, d = 1 / design.seeds, design.seeds - 1
    most = least + design.bucket_bound if design.draw_share < 1 else 20 * least
    knots = np.linspace(math.log(least) - 2.5, math.log(most) + 1.5, _RATIO_KNOTS)
    count = design.pools + design.controls
    quantiles = np.log(scipy.stats.chi2.ppf((np.arange(count) + 0.5) / count, d))
    spread = scipy.special.polygamma(1, d / 2)
    error = math.sqrt(scipy.special.polygamma(3, d / 2) / count + 2 * spread**2 / (count - 1))
    means = scipy.special.ndtri((np.arange(design.controls) + 0.5) / design.controls)
    means = means / means.std(ddof=1)
    squares = against_controls(np.full(design.pools, design.seeds), design.controls, design.seeds)
    heights = []
    for apart, _ in _APART:
        stretch = math.sqrt(max(1 + apart * error / spread, 0.0))
        within = np.exp(stretch * (quantiles - quantiles.mean()))
        within, df = within / within.mean(), np.full(count, d)
        halves = [
            [
                np.median(
                    ArmNoise.infer(
                        within[order], df, means * math.exp(knot / 2), design
                    ).half_widths(squares, alpha)
                )
                for knot in knots
            ]
            for order in _orders(count, max(1, _ORDERS // d))
        ]
        heights.append(np.log(halves).mean(axis=0))
    return knots, np.array(heights), np.array([chance for _, chance in _APART])


@lru_cache(maxsize=256)
def _unit_half_width(design: Design, alpha: float) -> float:
    """The half-width over the root of the variance between controls, where nothing else is seen."""
    count = design.pools + design.controls
    means = scipy.special.ndtri((np.arange(design.controls) + 0.5) / design.controls)
    means = means / means.std(ddof=1)
    noise = ArmNoise.infer(np.zeros(count), np.zeros(count, np.int64), means, design)
    squares = against_controls(np.full(design.pools, design.seeds), design.controls, design.seeds)
    return float(noise.half_widths(squares, alpha)[0])


def _orders(count: int, orders: int) -> Iterator[NDArray[np.int64]]:
    """Yield orders of quantiles: which arms are noisy is to tell nothing of the controls' means.

    Multiples of a number near the golden section of ``count`` that shares no divisor with it;
    turned, and every second one the other way round.
    """
    step = max(1, round(count * (math.sqrt(5) - 1) / 2))
    while math.gcd(step, count) > 1:
        step += 1
    first = (np.arange(count) * step) % count
    for turn in range(orders):
        order = (first + turn // 2 * 2 * count // orders) % count
        yield count - 1 - order if turn % 2 else order


def rescale(within: float, bucket: float, measured: Design, planned: Design) -> tuple[float, float]:
    """Return the variances that draws of another size, or from other buckets, would have.

    With v the variance that the samples of a draw of m rows cause, and t that of training,

        bucket = v draw_share (1 - bucket_share),    within = v (1 - draw_share) + t,

    by sampling without replacement (Cochran, Sampling Techniques, section 2.6); v is proportional
    to 1/m, m to draw_share bucket_share, t is taken as constant. Only ``bucket`` tells v from t,
    and a few control arms estimate it roughly: so is what follows for draws of quite another size.

    Args:
        within: variance of the trials of one arm under ``measured``.
        bucket: variance between arms beside that, at most ``measured.bucket_bound * within``.
        measured: the shares of draw and bucket that the variances belong to.
        planned: the shares that they are wanted for, on the same dataset.

    Returns:
        ``within`` and ``bucket`` under ``planned``.
    """
    samples = bucket / (measured.draw_share * (1 - measured.bucket_share))
    # Beyond the bound, rounding errors among them, training is left no variance.
    training = max(within - samples * (1 - measured.draw_share), 0.0)
    samples *= measured.draw_share * measured.bucket_share
    samples /= planned.draw_share * planned.bucket_share
    return (
        samples * (1 - planned.draw_share) + training,
        samples * planned.draw_share * (1 - planned.bucket_share),
    )


def cheapest_designs(
    effect: float,
    within: float,
    bucket: float,
    measured: Design,
    *,
    alpha: float = 0.05,
    power: float = POWER,
    draw_shares: Iterable[float] = DRAW_SHARES,
    max_trials: int | None = None,
) -> list[PlannedDesign]:
    """Return for every draw size the cheapest design that finds an effect, the cheapest first.

    The cost is the number of trials: every trial sees the same number of samples, whatever the
    size of its draw. The noise of other draw sizes is that of :func:`rescale`. Whole buckets are
    tried with one seed or more and at least 8 control arms; smaller draws with two seeds or more
    (with one they are whole buckets with more noise) and at least 5 control arms.

    Args:
        effect: true change that a pool must have, positive, in units of the score.
        within: variance of the trials of one arm under ``measured``.
        bucket: variance between arms beside that, under ``measured``.
        measured: what the variances were measured with; its pools (self-tests among them) and
            share of the bucket are kept.
        alpha: family-wise error rate, in (0, 1).
        power: least probability of the verdict better, above 0.5 and below 1.
        draw_shares: draw sizes over the bucket's, in (0, 1].
        max_trials: dearer designs are left out.

    Returns:
        Empty where no design of up to 40 control arms and 16 seeds finds the effect: the bucket's
        part of the noise does not shrink with seeds.

    Raises:
        BadInput: as :func:`detectable_effect`, an effect that is not positive, or a draw share
            outside (0, 1].
    """
    _check(within, bucket, measured, alpha)
    _check_power(power, max(alpha, 0.5))
    if not 0 < effect < math.inf:
        raise BadInput(f"the effect is {effect}; a positive number is needed")
    found = []
    for share in draw_shares:
        if not 0 < share <= 1:
            raise BadInput(f"a draw share is {share}; a share in (0, 1] is needed")
        template = replace(measured, draw_share=share)
        noise = rescale(within, bucket, measured, template)
        design = _cheapest(effect, *noise, template, alpha, power, max_trials)
        if design is not None:
            chance = _chance(effect, *noise, design, alpha)
            least = detectable_effect(*noise, design, alpha, power)
            found.append(PlannedDesign(design, chance, least))
    return sorted(found, key=lambda plan: (plan.trials, plan.detectable))


def _cheapest(
    effect: float,
    within: float,
    bucket: float,
    template: Design,
    alpha: float,
    power: float,
    max_trials: int | None,
) -> Design | None:
    """Return the controls and seeds of least cost; more of either never lower the power."""

    def finds(controls: int, seeds: int) -> bool:
        design = replace(template, controls=controls, seeds=seeds)
        # Cheap to know beforehand: no interval is on average narrower than with a known variance.
        deviation = _deviation(within, bucket, design)
        known = critical_value(alpha, design.pools, controls, _KNOWN) * deviation
        possible = effect >= known + float(scipy.special.ndtri(power)) * deviation
        return possible and _chance(effect, within, bucket, design, alpha) >= power

    if not finds(MOST_CONTROLS, MOST_SEEDS):
        return None
    whole = template.draw_share == 1
    fewest = _LEAST_CONTROLS_WHOLE if whole else _LEAST_CONTROLS
    limit = (template.pools + MOST_CONTROLS) * MOST_SEEDS if max_trials is None else max_trials
    best = None
    for seeds in range(1 if whole else 2, MOST_SEEDS + 1):
        most = min(MOST_CONTROLS, limit // seeds - template.pools)
        if most < fewest:
            break
        if finds(most, seeds):
            tried = range(fewest, most)
            controls = fewest + bisect_left(tried, True, key=lambda c: finds(c, seeds))
            best = replace(template, controls=controls, seeds=seeds)
            limit = _trials(best) - 1
    return best


def _trials(design: Design) -> int:
    return (design.pools + design.controls) * design.seeds


def _chance(effect: float, within: float, bucket: float, design: Design, alpha: float) -> float:
    deviation = _deviation(within, bucket, design)
    if deviation == 0:
        return float(effect > 0)
    half, weights = half_width_rule(within, bucket, design, alpha)
    return float(weights @ scipy.special.ndtr((effect - half) / deviation))


def _deviation(within: float, bucket: float, design: Design) -> float:
    """Standard deviation of a pool's estimated effect."""
    return math.sqrt((bucket + within / design.seeds) * (1 + 1 / design.controls))


@lru_cache(maxsize=64)
def _chi_square_rule(df: int, nodes: int) -> tuple[Floats, Floats]:
    """Nodes and weights for the expectation over chi2(df) / df: Gauss-Legendre in its quantiles."""
    x, weights = scipy.special.roots_legendre(nodes)
    return scipy.stats.chi2.ppf((x + 1) / 2, df) / df, weights / 2


def _check(within: float, bucket: float, design: Design, alpha: float) -> None:
    for name, value in (("within", within), ("bucket", bucket)):
        if not 0 <= value < math.inf:
            raise BadInput(f"the variance {name!r} is {value}; a finite number >= 0 is needed")
    if design.controls < MIN_CONTROL_ARMS:
        raise BadInput(f"{design.controls} control arms; at least {MIN_CONTROL_ARMS} are needed")
    if not 0 < alpha < 1:
        raise BadInput(f"alpha is {alpha}; a rate strictly between 0 and 1 is needed")


def _check_power(power: float, least: float) -> None:
    if not least < power < 1:
        raise BadInput(f"the power is {power}; a number between {least} and 1 is needed")

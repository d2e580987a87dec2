"""Racing: which pools are so far behind at a rung that they are given up.

At a rung every racing pool i has the mean d_i of its paired differences to the control arms, and
its mean a variance V_i, which :mod:`.arm_noise` infers from the scatter of the trials of all arms
and of the means of the controls. Pool j *leads* pool i when

    d_j - d_i > margin = c sqrt(V_i + V_j),

and a pool that at least ``keep`` pools lead is *behind*. The control mean cancels in d_j - d_i.

**The error bound.** N pools race; true effects at the rung decide which are the ``keep`` best. Take
the one of rank r <= keep. At most r - 1 pools are truly better, so that it can only be behind when
at least m = keep - r + 1 of the N - r others lead it, whose true difference to it is at most zero:
their *noise* exceeds the margin. The probability of that is greatest when all differences are zero.
Given the noise of arm means, and the pool's own, z, the others exceed it independently of each
other: t with d0 + d degrees of freedom, in units of what V_i is there over its mean, s^2, so that

    P(any of the best is behind) <= sum_r E_{s,z} P(Binomial(N - r, P(t > z + sqrt(2) c / s)) >= m)

and c is where the sum is alpha / rungs (the union bound, over ranks and over rungs). That takes the
pools of a race to be equally noisy given s; the tests simulate races where they are not.

With missing scores an arm with k of n seeds has at most n / k times the variance of a complete one,
and fewer degrees of freedom, as have all that it is compared with. The control mean does not quite
cancel, which a factor 1 + 1/C covers.

**What it does not cover.** The best pools *at the rung* are meant. Where learning curves cross,
another pool may be best at the end: :func:`audited` lets a random share of the stopped pools run
on, and :func:`wrong_stops` says how often that was so. N is the number of pools that still race,
which earlier rungs have chosen; the tests simulate whole races.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from djsandbox_ray.analysis.verdicts.arm_noise import ArmNoise, rounding_of
from djsandbox_ray.analysis.verdicts.variances import prior_df
from djsandbox_ray.analysis.verdicts.verdicts import MIN_CONTROL_ARMS
from djsandbox_ray.pools.order import hash_key
from djsandbox_ray.records import TrialRecord, TrialState

Floats = NDArray[np.float64]

_STEP = 0.1
"""Noises whose roots differ by less than that share are taken together."""
_OWN_NODES = 48


@dataclass(frozen=True)
class RaceRule:
    """When a pool is given up.

    Raises:
        ValueError: a number outside its range.
    """

    keep: int = 3
    """The best pools that must survive."""
    alpha: float = 0.2
    """Greatest probability that any of the truly best ``keep`` pools is stopped, over all rungs.
    In simulations of the worst case it happens about half as often, and then to a pool that others
    equal; ``benchmarks/early_stopping.py`` shows what other values cost and save."""
    rungs: int = 2
    """Number of decisions in all; ``alpha`` is divided over them."""

    def __post_init__(self) -> None:
        for name in ("keep", "rungs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; at least 1 is needed")
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha is {self.alpha}; a rate strictly between 0 and 1 is needed")


@dataclass(frozen=True)
class Comparison:
    """The racing pools at one rung."""

    effects: dict[str, float]
    """Mean over its seeds of a pool's score minus the mean of the controls; pools without any
    score are not in it, and nobody is where fewer than 3 control arms are complete."""
    margin: float
    """What a pool must lead another one by, where both have all their seeds and the median of
    noise; infinite where nothing can be decided."""
    behind: tuple[str, ...]
    """The pools that at least ``keep`` others lead, in the order given."""


def compare(scores: Mapping[str, Floats], controls: Floats, rule: RaceRule) -> Comparison:
    """Compare the racing pools at one rung.

    Nothing is behind when no more than ``keep`` pools race, or fewer than 3 control arms have all
    their scores. Without any spread among the controls there is no noise to allow for.

    Args:
        scores: per pool, its aggregated score of every seed, shape (seeds,); NaN where missing.
        controls: the same of the control arms, shape (controls, seeds). An arm with a missing
            score is left out.
        rule: when a pool is given up.

    Raises:
        ValueError: shapes that do not fit; an infinite score.
    """
    racing = _racing(scores, controls)
    complete = controls[~np.isnan(controls).any(axis=1)]
    if len(complete) < MIN_CONTROL_ARMS:
        return Comparison({}, math.inf, ())
    table = np.array(list(racing.values())).reshape(len(racing), controls.shape[1])
    effect = np.nanmean(table - complete.mean(axis=0), axis=1) if racing else np.empty(0)
    effects = dict(zip(racing, effect.tolist(), strict=True))
    if len(racing) <= rule.keep:
        return Comparison(effects, math.inf, ())
    present = np.isfinite(table).sum(axis=1)
    # How draws were taken is not used: the controls tell what buckets add.
    noise = ArmNoise.of(table, complete, draw_share=1.0, bucket_share=1 / 3)
    variance = noise.mean[: len(table)] * (table.shape[1] / present)
    if (present < table.shape[1]).any():
        variance = variance * (1 + 1 / len(complete))
    df = noise.df[: len(table)]
    units = np.zeros(df.max() + 1)
    for known in np.unique(df):
        units[known] = _critical(rule, noise, len(table), int(known))
    rounding = rounding_of(np.concatenate([complete, np.nan_to_num(table)]))
    # Pool by pool: a table of all pairs would take gigabytes where thousands race.
    leads = [
        np.count_nonzero(
            effect - own > units[np.minimum(df, known)] * np.sqrt(variance + its) + rounding
        )
        for own, its, known in zip(effect, variance, df, strict=True)
    ]
    behind = tuple(pool for pool, count in zip(racing, leads, strict=True) if count >= rule.keep)
    typical = float(np.median(variance[df == df.max()]))
    return Comparison(effects, float(units[-1]) * math.sqrt(2 * typical), behind)


def _racing(scores: Mapping[str, Floats], controls: Floats) -> dict[str, Floats]:
    """Check the scores, and return those of the pools that have any."""
    if controls.ndim != 2 or not controls.shape[1]:
        raise ValueError(f"controls have shape {controls.shape}; (controls, seeds) is needed")
    for pool, row in (*scores.items(), *((f"control {i}", c) for i, c in enumerate(controls))):
        if row.shape != (controls.shape[1],):
            raise ValueError(
                f"{pool!r} has scores of shape {row.shape} and the controls have "
                f"{controls.shape[1]} seeds; one score per seed is needed, NaN where missing"
            )
        if np.isinf(row).any():
            raise ValueError(f"{pool!r} has an infinite score; NaN stands for a missing one")
    return {pool: row for pool, row in scores.items() if not np.isnan(row).all()}


def _critical(rule: RaceRule, noise: ArmNoise, pools: int, df: int) -> float:
    """Return c of the error bound, for more than ``keep`` pools; at least 0."""
    if not noise.mean.any():
        return 0.0
    alpha = rule.alpha / rule.rungs
    # By rank of one of the best: pools that are not better, and how many of them must lead it.
    ranks = [(pools - r, rule.keep - r + 1) for r in range(1, rule.keep + 1)]
    levels = 0.5 * np.log(noise.variances[:, :pools] / noise.mean[:pools]).mean(axis=1)
    nodes = np.stack([noise.prior, np.round(levels / _STEP)])
    (prior, level), which = np.unique(nodes, axis=1, return_inverse=True)
    weights = np.bincount(which, noise.weights)
    d0, _ = prior_df()
    freedom = (d0[prior.astype(np.int64)] + df)[:, None]
    x, own_weights = scipy.special.roots_legendre(_OWN_NODES)
    x = (x + 1) / 2
    # Squares are denser near 0: far below is where others lead.
    own, own_weights = scipy.special.stdtrit(freedom, x**2), own_weights * x

    def excess(c: float) -> float:
        lead = scipy.special.stdtr(
            freedom, -own - math.sqrt(2) * c * np.exp(-_STEP * level)[:, None]
        )
        tails = sum(scipy.special.bdtrc(needed - 1, others, lead) for others, needed in ranks)
        return float(weights @ tails @ own_weights) - alpha

    if excess(0.0) <= 0:
        return 0.0
    most = 4.0
    while excess(most) > 0:
        most *= 2
    return float(scipy.optimize.brentq(excess, 0.0, most, xtol=1e-6))


def audited(pool: str, share: float, seed: int) -> bool:
    """Say whether a pool runs on although it is behind, to measure how often stopping is wrong.

    A seeded hash of the pool's id decides, so that the same pools are audited after a resume.

    Args:
        pool: the pool's id.
        share: probability of an audit, in [0, 1].
        seed: of the study.

    Raises:
        ValueError: a share outside its range.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share is {share}; a share from 0 to 1 is needed")
    return int(hash_key(seed, "audit", pool)) < share * 2**64


@dataclass(frozen=True)
class AuditReport:
    """How often stopping was wrong, measured on stopped pools that ran on."""

    audited: int
    """Stopped pools that ran on to the end."""
    wrong: int
    """Those of them that ended among the best."""
    rate: float | None
    """``wrong / audited``; None where nothing was audited."""
    low: float
    high: float
    """95 % Clopper-Pearson interval of the probability that a stopped pool is one of the best."""


def wrong_stops(audited: Sequence[str], finals: Mapping[str, float], keep: int) -> AuditReport:
    """Count the stopped pools that ran on and ended among the best ``keep``.

    Better pools that were stopped and not audited have no final score and cannot push an audited
    one out, so that the rate errs on the high side.

    Args:
        audited: pools that would have been stopped, but ran on; those without a final score
            (failed) are left out.
        finals: final score or effect of every pool that ran to its end, the audited among them.
        keep: as in :class:`RaceRule`.

    Raises:
        ValueError: a final score that is NaN.
    """
    if missing := [pool for pool, value in finals.items() if math.isnan(value)]:
        raise ValueError(f"the final score of {missing[0]!r} is NaN; leave it out")
    ended = [pool for pool in audited if pool in finals]
    better = {pool: sum(other > finals[pool] for other in finals.values()) for pool in ended}
    wrong = sum(count < keep for count in better.values())
    n = len(ended)
    if not n:
        return AuditReport(0, 0, None, 0.0, 1.0)
    interval = scipy.stats.binomtest(wrong, n).proportion_ci(method="exact")
    return AuditReport(n, wrong, wrong / n, interval.low, interval.high)


@dataclass(frozen=True)
class Savings:
    """What early stopping saved, in samples seen in training."""

    samples: int
    """Samples that stopped trials did not train."""
    share: float
    """Of the samples that all trials would have trained; 0 where there are none."""
    share_of_stoppable: float
    """The same among the trials that may be stopped."""


def saved(trials: Iterable[TrialRecord], stoppable: Collection[str]) -> Savings:
    """Add up what stopped trials did not train.

    Args:
        trials: settled trials. One that failed would have failed without early stopping too, and
            counts with the samples it trained.
        stoppable: ids of the pools that race: neither controls nor self-tests.
    """
    unused, everything, racing = 0, 0, 0
    for trial in trials:
        trained = trial.reports[-1].samples if trial.reports else 0
        stopped = trial.state is TrialState.STOPPED
        unused += trial.spec.budget - trained if stopped else 0
        without = trial.spec.budget if stopped else trained
        everything += without
        racing += without if trial.spec.pool in stoppable else 0
    return Savings(
        samples=unused,
        share=unused / everything if everything else 0.0,
        share_of_stoppable=unused / racing if racing else 0.0,
    )

"""Racing: which pools are so far behind at a rung that they are given up.

At a rung every racing pool i has the mean d_i of its paired differences to the control arms. With
S^2 the variance of the C control arms' means (:mod:`.verdicts` says why noise
is measured between arms), pool j *leads* pool i when

    d_j - d_i > margin = c S sqrt(2),

and a pool that at least ``keep`` pools lead is *behind*. The control mean cancels in d_j - d_i.

**The error bound.** N pools race; true effects at the rung decide which are the ``keep`` best. Take
the one of rank r <= keep. At most r - 1 pools are truly better, so that it can only be behind when
at least m = keep - r + 1 of the N - r others lead it, whose true difference to it is at most zero:
their *noise* exceeds the margin. The probability of that is greatest when all differences are zero.
Arm means being normal with one variance sigma^2, and S = s sigma independent of them, given the
pool's own noise z and s the others exceed it independently of each other, so that

    P(any of the best is behind) <= sum_r E_{s,z} P(Binomial(N - r, Phi(-z - sqrt(2) c s)) >= m)

and c is where the sum is alpha / rungs (the union bound, over ranks and over rungs). Dunnett's
value for one pool and Bonferroni over the ``keep`` best would give a c about 10 % greater.

With missing scores arms differ in variance: an arm with k of n seeds has at most n / k times that
of a complete one, and the control mean does not quite cancel, which a factor 1 + 1/C covers. Then c
comes from Markov's inequality, P(at least m lead) <= (N - r) P(t_{C-1} > c) / m, which holds under
any dependence between arms.

**What it does not cover.** The best pools *at the rung* are meant. Where learning curves cross,
another pool may be best at the end: :func:`audited` lets a random share of the stopped pools run
on, and :func:`wrong_stops` says how often that was so. N is the number of pools that still race,
which earlier rungs have chosen; the tests simulate whole races.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy
from numpy.typing import NDArray

from djsandbox_ray.analysis.verdicts.dunnett import chi_rule, normal_rule
from djsandbox_ray.analysis.verdicts.verdicts import MIN_CONTROL_ARMS
from djsandbox_ray.pools.order import hash_key
from djsandbox_ray.records import TrialRecord, TrialState

Floats = NDArray[np.float64]


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
    """What a pool with all its seeds must lead another one by; infinite where nothing can be
    decided."""
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
    spread = float(complete.mean(axis=1).std(ddof=1))
    largest = max(np.nanmax(np.abs(table)), np.abs(complete).max())
    rounding = float(sum(controls.shape) * np.finfo(np.float64).eps * largest)
    inflation = controls.shape[1] / np.isfinite(table).sum(axis=1)
    equal = bool((inflation == 1).all())
    unit = _critical(rule, len(racing), len(complete) - 1, equal) * spread
    if not equal:
        unit *= math.sqrt(1 + 1 / len(complete))
    # Pool by pool: a table of all pairs would take gigabytes where thousands race.
    leads = [
        np.count_nonzero(effect - own > unit * np.sqrt(inflation + its) + rounding)
        for own, its in zip(effect, inflation, strict=True)
    ]
    behind = tuple(pool for pool, count in zip(racing, leads, strict=True) if count >= rule.keep)
    return Comparison(effects, unit * math.sqrt(2), behind)


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


@lru_cache(maxsize=1024)
def _critical(rule: RaceRule, pools: int, df: int, equal: bool) -> float:
    """Return c of the error bound, for more than ``keep`` pools; at least 0."""
    alpha = rule.alpha / rule.rungs
    # By rank of one of the best: pools that are not better, and how many of them must lead it.
    ranks = [(pools - r, rule.keep - r + 1) for r in range(1, rule.keep + 1)]
    expected = math.fsum(others / needed for others, needed in ranks)
    markov = max(0.0, float(scipy.stats.t.isf(min(1.0, alpha / expected), df)))
    if not equal:
        return markov
    s, s_weights = chi_rule(df)
    z, z_weights = normal_rule()

    def excess(c: float) -> float:
        exceeds = scipy.special.ndtr(-z[None, :] - math.sqrt(2) * c * s[:, None])
        tails = sum(scipy.special.bdtrc(needed - 1, others, exceeds) for others, needed in ranks)
        return float(s_weights @ tails @ z_weights) - alpha

    return float(scipy.optimize.brentq(excess, 0.0, 1.001 * markov)) if excess(0.0) > 0 else 0.0


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

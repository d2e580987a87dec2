"""What ties a threshold search to the first study: where it starts, its pools, and its scores."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.analysis.verdicts.grid import completed_metrics, trial_name
from djsandbox_ray.analysis.verdicts.scores import Yardstick
from djsandbox_ray.analysis.verdicts.second_look import selected
from djsandbox_ray.errors import BadInput, unknown
from djsandbox_ray.pools.arms import Arm, SecondLook, arm_of, second_look
from djsandbox_ray.pools.config import WHOLE_BUCKET_CONTROLS
from djsandbox_ray.pools.cuts import EXCLUDED, LEFT_OUT
from djsandbox_ray.recipes.search.search import Proposal, Windows
from djsandbox_ray.recipes.search.space import SearchSpace, Window
from djsandbox_ray.records import Choice, PoolKind, Pools, RankingRow, TrialRecord


def proposed_arm(
    proposal: Proposal,
    space: SearchSpace,
    row_ids: NDArray[np.int64],
    eligible: NDArray[np.bool_],
) -> Arm:
    """Return the pool of a proposal, and its column of codes of all rows.

    Args:
        proposal: a feasible one.
        space: over the eligible rows.
        row_ids: (n,), of all rows.
        eligible: (n,), the rows that pools are made of, ``space.size`` of them.
    """
    inside = np.zeros(len(row_ids), dtype=np.bool_)
    inside[eligible] = space.inside(proposal.ranges)
    codes = np.where(eligible, LEFT_OUT, EXCLUDED).astype(np.int8)
    return arm_of(proposal.pool, row_ids, inside, others=codes)


def confirmation_arms(first: Pools, arm: Arm, controls: int) -> SecondLook:
    """Set the best proposal beside control arms of its size that no other study has.

    What was searched was chosen by the controls of the first study and those of the confirmation.

    Args:
        first: pools of the first study.
        arm: of the best proposal.
        controls: how many; at least 8 where draws take the whole pool.
    """
    pool, codes = arm
    if pool.size == first.draw_size:
        controls = max(controls, WHOLE_BUCKET_CONTROLS)
    same_size = replace(first, size=pool.size, pools=(pool, *first.pools))
    return second_look(same_size, [pool.id], codes, controls, study="search")


@dataclass(frozen=True)
class Scale:
    """Scores of trials as changes against the controls of the first study."""

    yardstick: Yardstick
    """Of that study."""
    baseline: Mapping[int, float]
    """By seed: mean score of its control arms. Trials are compared within seeds."""

    def score(self, trials: Iterable[TrialRecord]) -> float | None:
        """Return the mean change of the completed trials of a pool; None where there is none.

        Raises:
            BadInput: a trial lacks a metric of the score, or has one that is not finite.
        """
        grid = {(trial.spec.pool, trial.spec.seed): trial for trial in trials}
        changes = []
        for key, metrics in completed_metrics(grid).items():
            if lacking := [name for name in self.yardstick.metrics if name not in metrics]:
                raise BadInput(
                    f"{trial_name(grid[key])} lacks the metric {lacking[0]!r} of the first study"
                )
            changes.append(self.yardstick.change(metrics) - self.baseline[key[1]])
        return math.fsum(changes) / len(changes) if changes else None


@dataclass(frozen=True)
class Start:
    """The searched statistics, and what is known of them before anything is trained."""

    names: tuple[str, ...]
    known: tuple[tuple[Windows, float], ...]
    """Every bucket that was judged, as a window, with its change; best first."""
    first: tuple[Windows, ...]
    """To be tried first: the best buckets of all statistics together, then the best of all."""


def start(choice: Choice | None, rows: Sequence[RankingRow], pools: Pools) -> Start | None:
    """Return where to start.

    Args:
        choice: pools whose statistics are searched; without one, those that were called better.
        rows: the ranking of the single-operator stage.
        pools: of the single-operator stage.

    Returns:
        None where no pool was chosen or called better.

    Raises:
        BadInput: a chosen pool that is no bucket of a statistic.
    """
    buckets = {pool.id: pool for pool in pools.pools if pool.kind is PoolKind.BUCKET}
    # Pools of builders have no statistic, hence no window to search.
    rows = [row for row in rows if row.statistic is not None or row.pool not in buckets]
    chosen = choice.pools if choice else selected(rows, len(rows))
    for name in chosen:
        if name not in buckets:
            raise BadInput(f"search: {unknown('bucket', name, buckets)}")
    names = tuple(dict.fromkeys(str(buckets[name].statistic) for name in chosen))
    if not names:
        return None
    counts: dict[str, int] = {}
    for pool in buckets.values():
        if pool.statistic in names:
            counts[pool.statistic] = max(counts.get(pool.statistic, 0), pool.code + 1)
    known: list[tuple[Windows, float]] = []
    together: dict[str, Window] = {}
    for row in sorted(rows, key=lambda row: -row.change if math.isfinite(row.change) else math.inf):
        if row.statistic in counts and row.pool in buckets and math.isfinite(row.change):
            code, count = buckets[row.pool].code, counts[row.statistic]
            window = Window(code / count, (code + 1) / count)
            known.append(({row.statistic: window}, row.change))
            together.setdefault(row.statistic, window)
    alone = [windows for windows, _ in known[:1]]
    return Start(names, tuple(known), tuple([together, *alone] if len(together) > 1 else alone))

"""What a study shows while it runs: to the tracker, and on the terminal."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from statistics import fmean

from djsandbox_ray.cluster import waited_for
from djsandbox_ray.errors import SandboxError
from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.records import Pool, PoolKind, Statistics, TrialRecord, TrialState

# After so many trials, all failed, the run ends.
_HOPELESS = 6


class Watch:
    """Passes on the records of the trials of a study.

    Args:
        context: of the run.
        stage: the study's name.
        pools: of the study, by id.
        statistics: that pools were made of.
        optional: whether the run goes on even if every trial fails.
    """

    def __init__(
        self,
        context: Context,
        stage: str,
        pools: Mapping[str, Pool],
        statistics: Statistics,
        *,
        optional: bool = False,
    ) -> None:
        self._context = context
        self._stage = stage
        self._pools = pools
        self._optional = optional
        self._ended: set[str] = set()
        self._operators = {item.name: item.operator for item in statistics.statistics}

    def track(self, record: TrialRecord) -> None:
        """Hand a record to the tracker."""
        pool = self._pools[record.spec.pool]
        tags = {
            "stage": self._stage,
            "pool": pool.id,
            "kind": str(pool.kind),
            "statistic": pool.statistic or "",
            "operator": self._operators.get(pool.statistic or "", ""),
            "bucket": pool.bucket or "",
            "seed": str(record.spec.seed),
            "state": str(record.state),
        }
        params = {
            "pool": pool.id,
            "seed": str(record.spec.seed),
            "budget": str(record.spec.budget),
            "pool_size": str(pool.size),
            "draw": record.spec.draw_hash,
        }
        self._context.tracker.trial(record, {k: v for k, v in tags.items() if v}, params)

    def waiting(self, group: Sequence[Mapping[str, float]] | None) -> None:
        """Say that nothing can run for want of a place for a group; None: something runs again."""
        self._context.progress.update(waiting="" if group is None else waited_for(group))

    def show(self, record: TrialRecord, records: Collection[TrialRecord]) -> None:
        """Bring the progress line up to date.

        Args:
            record: the one that changed.
            records: all that are known by now.

        Raises:
            SandboxError: nothing but failures has come back.
        """
        buckets = [r for r in records if self._pools[r.spec.pool].kind is PoolKind.BUCKET]
        states = [entry.state for entry in records]
        self._context.progress.update(
            done=sum(state is not TrialState.RUNNING for state in states),
            running=sum(state is TrialState.RUNNING for state in states),
            failed=sum(state is TrialState.FAILED for state in states),
            stopped=sum(state is TrialState.STOPPED for state in states),
            begun=sum(
                entry.reports[-1].samples / entry.spec.budget
                for entry in records
                if entry.state is TrialState.RUNNING and entry.reports
            ),
            best=best_so_far(buckets, self._context.config.evaluation.score),
        )
        if record.state is TrialState.FAILED:
            self._context.progress.note(
                f"{self._stage}: {record.spec.pool} seed {record.spec.seed} FAILED: {record.error}"
            )
        self._ended |= {record.spec.id} if record.state is not TrialState.RUNNING else set()
        if not self._optional:
            _give_up_if_hopeless([entry for entry in records if entry.spec.id in self._ended])


def _give_up_if_hopeless(records: Iterable[TrialRecord]) -> None:
    """End the run when nothing but failures has come back: the rest would be paid for in vain."""
    ended = list(records)
    if len(ended) >= _HOPELESS and all(record.state is TrialState.FAILED for record in ended):
        raise SandboxError(
            f"all of the first {len(ended)} trials failed; the last: {ended[-1].error}"
        )


def best_so_far(records: Iterable[TrialRecord], score: Sequence[str] | None) -> str | None:
    """Name the pool with the greatest mean of the score's metrics so far; not yet a verdict."""
    means: dict[str, list[float]] = {}
    for record in records:
        if record.final and record.final.metrics:
            metrics = record.final.metrics
            means.setdefault(record.spec.pool, []).append(
                fmean(metrics[name] for name in score or metrics)
            )
    return max(means, key=lambda pool: fmean(means[pool]), default=None)

"""Which statistics are alike, and the best pool of each cluster of them: what to combine.

Two operators that see the same samples, or that move the same metrics, add little to each other;
the best of each cluster is a choice without such doubles.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.analysis.together.clusters import (
    Clustering,
    Pick,
    best_of_each,
    metric_profiles,
    ward,
)
from djsandbox_ray.analysis.together.correlation import Correlation, correlate
from djsandbox_ray.analysis.verdicts.second_look import candidates
from djsandbox_ray.errors import BadInput
from djsandbox_ray.hooks.hook import Hook, Planned
from djsandbox_ray.hooks.results import directions, finished
from djsandbox_ray.identity import content_id
from djsandbox_ray.records import (
    Choice,
    Confirmation,
    ConfirmationRow,
    Dataset,
    PoolKind,
    Pools,
    Ranking,
    RankingRow,
    Statistics,
    Trials,
)
from djsandbox_ray.reporting.figures import png
from djsandbox_ray.reporting.heatmap import heat_map
from djsandbox_ray.stats.parts import chunks


@dataclass(frozen=True)
class _Question:
    """What is correlated, and how it is to be read."""

    job: str
    title: str
    absolute: bool
    """Whether the sign of a correlation means nothing."""
    facts: dict[str, Any]
    """More for the JSON file."""

    @property
    def distance(self) -> str:
        """The distance of the tree, as a formula."""
        return f"sqrt(2 (1 - {'|r|' if self.absolute else 'r'}))"


class ClusterHook(Hook):
    """What both ways of clustering do alike."""

    def ahead(self, clusters: int = 3, **_: Any) -> Planned:
        """One pool of each cluster at most; nothing is trained."""
        return Planned(pools=clusters)

    def choose(
        self,
        question: _Question,
        correlation: Correlation,
        ranking: Ranking,
        confirmation: Confirmation | None,
        clusters: int,
        only_confirmed: bool,
    ) -> Choice | None:
        """Cluster, pick the best of each, and write it all down; None if nothing can be clustered.

        Raises:
            BadInput: fewer than one cluster.
        """
        if clusters < 1:
            raise BadInput(f"{question.job}: clusters is {clusters}; 1 or more are needed")
        alive = [name for name in correlation.names if name not in correlation.constant]
        if correlation.constant:
            self.note(
                f"{question.job}: left out, without spread: {', '.join(correlation.constant)}"
            )
        if not alive:
            self.note(f"{question.job}: no statistic is left to cluster")
            return None
        if len(alive) < clusters:
            self.note(f"{question.job}: only {len(alive)} statistics for {clusters} clusters")
        tree = ward(correlation.of(alive), clusters, absolute=question.absolute)
        first, second = self.rows(RankingRow, ranking), self.rows(ConfirmationRow, confirmation)
        known = candidates(first, second, only_confirmed=only_confirmed)
        picks = best_of_each(tree.clusters, known)
        for number, pick in enumerate(picks, start=1):
            members = ", ".join(pick.members)
            self.note(f"{question.job}: cluster {number} ({members}): {pick.pool or ''} {pick.why}")
        picked = {pick.pool for pick in picks}
        best = tuple(item.pool for item in known if item.pool in picked)
        return self._written(question, correlation, tree, picks, best)

    def _written(
        self,
        question: _Question,
        correlation: Correlation,
        tree: Clustering,
        picks: Sequence[Pick],
        chosen: tuple[str, ...],
    ) -> Choice:
        """Write the JSON and the figure, also where nothing was chosen."""
        found = {
            "method": "Ward linkage",
            "distance": question.distance,
            **question.facts,
            "names": list(tree.names),
            "correlation": _plain(correlation.of(tree.names).matrix),
            "rows": correlation.of(tree.names).rows.tolist(),
            "linkage": tree.linkage.tolist(),
            "order": list(tree.order),
            "left_out": list(correlation.constant),
            "taken_as_unrelated": [list(pair) for pair in correlation.undefined],
            "clusters": [asdict(pick) for pick in picks],
            "chosen": list(chosen),
        }
        path = self.write_sealed(f"{question.job}.json", found)
        caption = f"Ward linkage on {question.distance}"
        drawn = heat_map(correlation, tree, title=question.title, note=caption)
        figure = self.write_bytes(f"figures/{question.job}.png", png(drawn))
        if not chosen:
            self.note(f"{question.job}: no pool is chosen")
        return Choice(content_id("choice", found), chosen, path, figure)


class ClusterStatistics(ClusterHook):
    """Writes ``cluster_statistics.json`` and ``figures/cluster_statistics.png``."""

    VERSION = 1

    def run(
        self,
        dataset: Dataset,
        statistics: Statistics,
        pools: Pools,
        ranking: Ranking,
        confirmation: Confirmation | None,
        clusters: int = 3,
        only_confirmed: bool = True,
    ) -> Choice | None:
        """Cluster the statistics that have pools, by their values over all samples.

        The sign of a correlation means nothing here: a pool is the low or the high end of a
        statistic, so a statistic and its negative make the same pools.

        Args:
            dataset: the samples.
            statistics: their values.
            pools: of the first study.
            ranking: of the first study.
            confirmation: the second look; None where there was none.
            clusters: how many, 1 or more; at most one pool of each is chosen.
            only_confirmed: whether a pool must be better in the second look, too; if not, those
                that are not confirmed follow, except where the second look found them worse.

        Returns:
            None where no pool can be chosen.

        Raises:
            BadInput: fewer than one cluster.
        """
        tested = {pool.statistic for pool in pools.pools if pool.kind is PoolKind.BUCKET}
        kept = [item for item in statistics.statistics if item.name in tested]
        if not kept:
            self.note("cluster_statistics: no statistic has pools")
            return None
        read = chunks(self.storage, kept, dataset.rows)
        question = _Question(
            job="cluster_statistics",
            title="Statistics that tell the same about a sample",
            absolute=True,
            facts={"of": "the values of all samples", "dataset_rows": dataset.rows},
        )
        correlation = correlate([item.name for item in kept], read)
        return self.choose(question, correlation, ranking, confirmation, clusters, only_confirmed)


class ClusterMetrics(ClusterHook):
    """Writes ``cluster_metrics.json`` and ``figures/cluster_metrics.png``."""

    VERSION = 1
    SECTIONS = ("trials", "evaluation")

    def identity(self) -> Any:
        """The metrics of the score, and the seeds."""
        plain = [self.config.evaluation.score, self.config.trials.seeds]
        counts = directions(self.config)
        return [*plain, counts] if counts else plain

    def run(
        self,
        pools: Pools,
        trials: Trials,
        ranking: Ranking,
        confirmation: Confirmation | None,
        clusters: int = 3,
        only_confirmed: bool = True,
    ) -> Choice | None:
        """Cluster the statistics by what their pools do to the metrics of the score.

        Args:
            pools: of the first study.
            trials: of these pools.
            ranking: of the first study.
            confirmation: the second look; None where there was none.
            clusters: how many, 1 or more; at most one pool of each is chosen.
            only_confirmed: whether a pool must be better in the second look, too; if not, those
                that are not confirmed follow, except where the second look found them worse.

        Returns:
            None where no pool can be chosen.

        Raises:
            BadInput: fewer than one cluster.
        """
        if not any(pool.kind is PoolKind.BUCKET for pool in pools.pools):
            self.note("cluster_metrics: no statistic has pools")
            return None
        profiles = metric_profiles(
            pools.pools,
            finished(self.context, trials),
            seeds=self.config.trials.seed_numbers,
            metrics=self.config.evaluation.score_metrics(),
        )
        for metric, reason in profiles.left_out.items():
            self.note(f"cluster_metrics: {metric} is left out: {reason}")
        question = _Question(
            job="cluster_metrics",
            title="Statistics whose pools move the same metrics",
            absolute=False,
            facts={
                "of": "changes of the pools' metrics, in standard deviations of the controls",
                "metrics": list(profiles.metrics),
                "metrics_left_out": profiles.left_out,
                "turned": list(profiles.turned),
            },
        )
        correlation = correlate(profiles.statistics, [profiles.table])
        return self.choose(question, correlation, ranking, confirmation, clusters, only_confirmed)


def _plain(matrix: NDArray[np.float64]) -> list[list[float | None]]:
    """Return a matrix as JSON can hold it: None for NaN."""
    return [[value if math.isfinite(value) else None for value in row] for row in matrix.tolist()]

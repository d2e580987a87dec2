"""The race: pools are compared with each other at rungs, and those far behind are given up.

A pure object, fed with reports: the same reports give the same decisions, in whatever order they
come and however often the driver is killed between them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from djsandbox_ray.analysis.verdicts.racing import RaceRule, audited, compare
from djsandbox_ray.analysis.verdicts.scores import Yardstick
from djsandbox_ray.analysis.verdicts.verdicts import MIN_CONTROL_ARMS
from djsandbox_ray.errors import BadInput
from djsandbox_ray.records import PoolKind, TrialSpec
from djsandbox_ray.trials.stopping.stopping import (
    Action,
    Competition,
    Decision,
    Stopping,
    StoppingConfig,
)


class RaceConfig(StoppingConfig):
    """When a pool is given up, and how often that is checked."""

    alpha: float = Field(default=0.2, gt=0, lt=1)
    """The greatest probability that any of the truly best ``keep`` pools is given up."""
    keep: int = Field(default=3, ge=1, strict=True)
    """So many pools must lead a pool before it is given up."""
    audit: float = Field(default=0.1, ge=0, le=1)
    """The share of pools given up that run on, to measure how often giving up is wrong."""
    seed: int = Field(default=0, ge=0, strict=True)
    """Decides which pools are audited."""


class Race:
    """Who has reached which rung, and what was decided there.

    Controls and self-tests never wait. A rung is decided when every trial of the pools still in
    the race, and of the controls, has reached it or has failed.
    """

    def __init__(self, competition: Competition, config: RaceConfig) -> None:
        self._competition = competition
        self._config = config
        self._reports: dict[str, dict[int, Mapping[str, float]]] = {}
        self._failed: set[str] = set()
        self._specs = {spec.id: spec for spec in competition.specs}
        self._decisions = list(competition.decisions)
        for trial, record in competition.known.items():
            for report in record.reports:
                self.report(trial, report.samples, report.metrics)
            if record.diverged:
                self.failed(trial)
        self._finished = {
            pool.id
            for pool in competition.pools.values()
            if all(
                spec.id in competition.known and competition.known[spec.id].final
                for spec in self._of({pool.id})
            )
        }

    def report(self, trial: str, samples: int, metrics: Mapping[str, float]) -> None:
        """Take in a report; one that differs from an earlier one, or is new, ends what it knew."""
        reports = self._reports.get(trial, {})
        if reports.get(samples) != metrics:
            kept = {rung: value for rung, value in reports.items() if rung < samples}
            self._reports[trial] = {**kept, samples: dict(metrics)}

    def failed(self, trial: str) -> None:
        """Wait for a trial no longer."""
        self._failed.add(trial)

    def action(self, trial: str) -> Action:
        """Say what becomes of a trial now."""
        pool = self._specs[trial].pool
        if any(pool in decision.stopped for decision in self._decisions):
            return Action.STOP
        rung = self._next_rung()
        if pool in self._racing() and rung is not None and self._reached(trial, rung):
            return Action.WAIT
        return Action.GO

    def decide(self) -> Decision | None:
        """Decide the next rung if everyone is there, and hand the decision on before it counts."""
        rung, racing = self._next_rung(), self._racing()
        if rung is None:
            return None
        awaited = self._of({*racing, *self._controls()})
        if not all(self._reached(spec.id, rung) for spec in awaited):
            return None
        decision = self._compare(rung, racing)
        self._competition.on_decision(decision)
        self._decisions.append(decision)
        return decision

    def _racing(self) -> list[str]:
        out = {pool for made in self._decisions for pool in (*made.stopped, *made.audited)}
        return [
            pool.id
            for pool in self._competition.pools.values()
            if pool.kind is PoolKind.BUCKET and pool.id not in out
        ]

    def _controls(self) -> list[str]:
        pools = self._competition.pools.values()
        return [pool.id for pool in pools if pool.kind is PoolKind.CONTROL]

    def _of(self, pools: Iterable[str]) -> list[TrialSpec]:
        wanted = set(pools)
        return [spec for spec in self._competition.specs if spec.pool in wanted]

    def _next_rung(self) -> int | None:
        decided = {decision.samples for decision in self._decisions}
        waiting = [rung for rung in self._competition.rungs[:-1] if rung not in decided]
        # With no more pools than are kept, none can be given up.
        return waiting[0] if waiting and len(self._racing()) > self._config.keep else None

    def _reached(self, trial: str, rung: int) -> bool:
        reports = self._reports.get(trial, {})
        return trial in self._failed or max(reports, default=0) >= rung

    def _compare(self, rung: int, racing: list[str]) -> Decision:
        specs = self._of({*racing, *self._controls()})
        # Batches end a little behind a rung, all at the same place. A trial that went on from the
        # checkpoint of another plan of rungs has nothing there that could be compared.
        seen = [
            min(samples for samples in reports if samples >= rung)
            for spec in specs
            if max(reports := self._reports.get(spec.id, {}), default=0) >= rung
        ]
        place = Counter(seen).most_common(1)[0][0] if seen else rung
        found = {
            (spec.pool, spec.seed): metrics
            for spec in specs
            if (metrics := self._reports.get(spec.id, {}).get(place)) is not None
        }
        names = self._controls()
        controls = {key: metrics for key, metrics in found.items() if key[0] in names}
        if (arms := len({pool for pool, _ in controls})) < MIN_CONTROL_ARMS:
            return _undecided(
                rung,
                f"nobody can be given up: {arms} control arms were evaluated there, "
                f"{MIN_CONTROL_ARMS} are needed (controls of earlier runs have those runs' rungs)",
            )
        study, config = self._competition, self._config
        try:
            yardstick = Yardstick.from_controls(controls, study.metrics, study.aggregate)
        except BadInput as error:
            return _undecided(rung, str(error))
        scores = self._table({key: yardstick.change(metrics) for key, metrics in found.items()})
        rule = RaceRule(keep=config.keep, alpha=config.alpha, rungs=len(study.rungs) - 1)
        control_scores = np.array([scores.pop(name) for name in names if name in scores])
        comparison = compare(scores, control_scores, rule)
        if not isfinite(comparison.margin):
            return _undecided(rung, "too few complete control arms or pools are there to compare")
        behind = [pool for pool in comparison.behind if pool not in self._finished]
        checked = [pool for pool in behind if audited(pool, config.audit, config.seed)]
        stopped = [pool for pool in behind if pool not in checked]
        return Decision(rung, tuple(stopped), tuple(checked), comparison.effects, comparison.margin)

    def _table(self, scores: Mapping[tuple[str, int], float]) -> dict[str, NDArray[np.float64]]:
        """Return the scores of pools that have some; shape (seeds,), NaN where one is missing."""
        seeds = sorted({spec.seed for spec in self._competition.specs})
        pools = sorted({pool for pool, _ in scores})
        return {
            pool: np.array([scores.get((pool, seed), np.nan) for seed in seeds]) for pool in pools
        }


def _undecided(rung: int, reason: str) -> Decision:
    return Decision(rung, (), (), {}, None, reason)


class RaceStopping(Stopping):
    """Synchronous rungs: everyone waits for everyone, then pools far behind are given up."""

    Config = RaceConfig
    config: RaceConfig

    def scheduler(self, competition: Competition) -> Any:
        """Return the race as a scheduler of Ray Tune."""
        from djsandbox_ray.trials.stopping.barrier import Barrier

        return Barrier(Race(competition, self.config))

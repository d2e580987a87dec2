"""The race: pools are compared with each other at rungs, and those far behind are given up.

A pure object, fed with reports: the same reports give the same decisions, in whatever order they
come and however often the driver is killed between them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from djsandbox_ray.analysis.verdicts.racing import RaceRule, audited, compare
from djsandbox_ray.analysis.verdicts.scores import Yardstick
from djsandbox_ray.analysis.verdicts.verdicts import MIN_CONTROL_ARMS
from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.metric import ScoreMetrics
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
    the race, and of the controls, has reached it or has failed; of self-tests too, where these say
    which metrics count. Who is awaited is kept up to date
    report by report, so that an event costs the same however many trials there are; all of them
    are looked at once per rung.
    """

    def __init__(self, competition: Competition, config: RaceConfig) -> None:
        self._competition = competition
        self._config = config
        self._reports: dict[str, dict[int, Mapping[str, float]]] = {}
        self._failed: set[str] = set()
        self._trials: dict[str, list[TrialSpec]] = {}
        for spec in competition.specs:
            self._trials.setdefault(spec.pool, []).append(spec)
        self._pool_of = {spec.id: spec.pool for spec in competition.specs}
        pools = competition.pools.values()
        # Both in the order of the study.
        self._controls = dict.fromkeys(p.id for p in pools if p.kind is PoolKind.CONTROL)
        self._racing = dict.fromkeys(p.id for p in pools if p.kind is PoolKind.BUCKET)
        metrics = ScoreMetrics.of(competition.metrics)
        self._asked = {p.id for p in pools if metrics.informative and p.spoil is not None}
        """Self-tests that say by which metrics pools are compared."""
        self._stopped: set[str] = set()
        self._decided: set[int] = set()
        self._rung: int | None = None
        """The next to be decided."""
        self._awaited: set[str] = set()
        """Trials that have not reached it."""
        for trial, record in competition.known.items():
            for report in record.reports:
                self.report(trial, report.samples, report.metrics)
            if record.diverged:
                self.failed(trial)
        self._finished = {
            pool.id
            for pool in pools
            if all(
                spec.id in competition.known and competition.known[spec.id].final
                for spec in self._trials.get(pool.id, ())
            )
        }
        for decision in competition.decisions:
            self._apply(decision)
        self._look_ahead()

    def report(self, trial: str, samples: int, metrics: Mapping[str, float]) -> None:
        """Take in a report; one that differs from an earlier one, or is new, ends what it knew."""
        reports = self._reports.get(trial, {})
        if reports.get(samples) != metrics:
            kept = {rung: value for rung, value in reports.items() if rung < samples}
            self._reports[trial] = {**kept, samples: dict(metrics)}
            self._await(trial)

    def failed(self, trial: str) -> None:
        """Wait for a trial no longer."""
        self._failed.add(trial)
        self._awaited.discard(trial)

    def action(self, trial: str) -> Action:
        """Say what becomes of a trial now; only a report of its own or a decision changes that."""
        pool = self._pool_of[trial]
        if pool in self._stopped:
            return Action.STOP
        if self._rung is not None and pool in self._racing and self._reached(trial, self._rung):
            return Action.WAIT
        return Action.GO

    def decide(self) -> Decision | None:
        """Decide the next rung if everyone is there, and hand the decision on before it counts."""
        if self._rung is None or self._awaited:
            return None
        decision = self._compare(self._rung)
        self._competition.on_decision(decision)
        self._apply(decision)
        self._look_ahead()
        return decision

    def _apply(self, decision: Decision) -> None:
        self._decided.add(decision.samples)
        self._stopped.update(decision.stopped)
        for pool in (*decision.stopped, *decision.audited):
            self._racing.pop(pool, None)

    def _look_ahead(self) -> None:
        """Find the next rung, and whom it awaits."""
        waiting = [rung for rung in self._competition.rungs[:-1] if rung not in self._decided]
        # With no more pools than are kept, none can be given up.
        self._rung = waiting[0] if waiting and len(self._racing) > self._config.keep else None
        self._awaited = set()
        if self._rung is not None:
            for spec in self._of({*self._racing, *self._controls, *self._asked}):
                self._await(spec.id)

    def _await(self, trial: str) -> None:
        """Bring up to date whether the next rung awaits a trial."""
        pool = self._pool_of.get(trial)
        counts = pool in self._racing or pool in self._controls or pool in self._asked
        if counts and self._rung is not None and not self._reached(trial, self._rung):
            self._awaited.add(trial)
        else:
            self._awaited.discard(trial)

    def _of(self, pools: Collection[str]) -> list[TrialSpec]:
        return [spec for spec in self._competition.specs if spec.pool in pools]

    def _reached(self, trial: str, rung: int) -> bool:
        reports = self._reports.get(trial, {})
        return trial in self._failed or max(reports, default=0) >= rung

    def _compare(self, rung: int) -> Decision:
        specs = self._of({*self._racing, *self._controls, *self._asked})
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
        spoilt = {key: found.pop(key) for key in [*found] if key[0] in self._asked}
        controls = {key: found[key] for key in found if key[0] in self._controls}
        if (arms := len({pool for pool, _ in controls})) < MIN_CONTROL_ARMS:
            return _undecided(
                rung,
                f"nobody can be given up: {arms} control arms were evaluated there, "
                f"{MIN_CONTROL_ARMS} are needed (controls of earlier runs have those runs' rungs)",
            )
        study, config = self._competition, self._config
        try:
            yardstick = Yardstick.from_controls(
                controls, study.metrics, study.aggregate, found, spoilt
            )
        except BadInput as error:
            return _undecided(rung, str(error))
        scores = self._table({key: yardstick.change(metrics) for key, metrics in found.items()})
        rule = RaceRule(keep=config.keep, alpha=config.alpha, rungs=len(study.rungs) - 1)
        control_scores = np.array([scores.pop(name) for name in self._controls if name in scores])
        comparison = compare(scores, control_scores, rule)
        if not isfinite(comparison.margin):
            return _undecided(rung, "too few complete control arms or pools are there to compare")
        checked = [pool for pool in comparison.behind if audited(pool, config.audit, config.seed)]
        # Audited pools are finished, too, when a decision that was lost is taken again.
        spared = {*checked, *self._finished}
        stopped = [pool for pool in comparison.behind if pool not in spared]
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

"""Asynchronous successive halving (Li et al. 2018, arXiv 1810.05934) as Ray Tune ships it.

It compares lone trials with those that came before, knows nothing of controls and seeds, and is
here to compare the race with. A driver that was killed forgets all but the finished trials.
"""

from __future__ import annotations

from math import isclose
from statistics import fmean
from types import SimpleNamespace
from typing import Any

from pydantic import Field, model_validator

from djsandbox_ray.evaluation.metric import ScoreMetrics
from djsandbox_ray.records import PoolKind
from djsandbox_ray.trials.stopping.stopping import (
    Competition,
    Stopping,
    StoppingConfig,
    report_in,
)


class AshaConfig(StoppingConfig):
    """At every rung the best ``1/reduction_factor`` of the trials so far go on."""

    reduction_factor: float = Field(default=2, gt=1)
    """Also the ratio of a rung to the one before, as successive halving has it."""

    @model_validator(mode="after")
    def _geometric(self) -> AshaConfig:
        if not self.rungs:
            raise ValueError("asha needs at least one rung")
        wanted = [self.rungs[0] * self.reduction_factor**n for n in range(len(self.rungs))]
        if not all(isclose(*pair, rel_tol=1e-3) for pair in zip(self.rungs, wanted, strict=True)):
            raise ValueError(
                f"rungs must grow by the reduction_factor {self.reduction_factor:g}: "
                f"{[round(rung, 4) for rung in wanted]}, not {self.rungs}"
            )
        return self


class Asha(Stopping):
    """Tune's AsyncHyperBand on the mean of the score's metrics, for bucket pools only."""

    Config = AshaConfig
    config: AshaConfig

    def scheduler(self, competition: Competition) -> Any:
        """Return the scheduler, told what the finished trials of earlier work reported."""
        from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

        score, pools = ScoreMetrics.of(competition.metrics), competition.pools

        class Buckets(AsyncHyperBandScheduler):
            """Leaves controls and self-tests alone."""

            def __getstate__(self) -> dict[str, Any]:
                return {}  # pickled for Tune's snapshots, which nobody restores

            @property
            def metric(self) -> None:
                """Ask for no metric in the results: the score is computed here."""

            def on_trial_result(self, tune_controller: Any, trial: Any, result: Any) -> str:
                report = report_in(result)
                pool = pools[trial.config["trial"]["pool"]]
                if report is None or pool.kind is not PoolKind.BUCKET:
                    return TrialScheduler.CONTINUE
                names = score.chosen(report.metrics)
                values = [score.sign(name) * report.metrics[name] for name in names]
                scored = {"samples": report.samples, "score": fmean(values)}
                return str(super().on_trial_result(tune_controller, trial, scored))

            def on_trial_complete(self, tune_controller: Any, trial: Any, result: Any) -> None:
                self.on_trial_result(tune_controller, trial, result)

        scheduler = Buckets(
            time_attr="samples",
            metric="score",
            mode="max",
            max_t=competition.rungs[-1],
            grace_period=competition.rungs[0],
            reduction_factor=self.config.reduction_factor,
        )
        no_controller: Any = None
        for record in competition.known.values():
            if record.final:
                spec = {"pool": record.spec.pool}
                trial: Any = SimpleNamespace(trial_id=record.spec.id, config={"trial": spec})
                scheduler.on_trial_add(no_controller, trial)
                for report in record.reports:
                    flat = {f"report/metrics/{name}": x for name, x in report.metrics.items()}
                    flat["report/samples"] = report.samples
                    scheduler.on_trial_result(no_controller, trial, flat)
        return scheduler

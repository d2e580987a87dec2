"""Gives trials to Ray Tune and passes on what they report."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from ray import tune
from ray.tune.error import TuneError

from djsandbox_ray.cluster import check_placeable
from djsandbox_ray.errors import SandboxError
from djsandbox_ray.records import RungReport, TrialRecord, TrialSpec, TrialState
from djsandbox_ray.trials.config import Resources
from djsandbox_ray.trials.trainable import Shared, Trial

_REPORT = TypeAdapter(RungReport)
# A process that dies (killed, out of memory, a lost node) is replaced so often.
_RESTARTS = 2


def run_trials(
    specs: Sequence[TrialSpec],
    shared: Shared,
    resources: Resources,
    on_record: Callable[[TrialRecord], None],
) -> None:
    """Run every trial to its end and hand over its record after each report.

    Args:
        specs: the trials, in the order in which they start.
        shared: what they have in common.
        resources: what each occupies; as many run at once as the cluster has room for.
        on_record: called in this process after every start, report and end of a trial.

    Raises:
        BadInput: no node of the cluster can ever place a trial.
        SandboxError: the run was interrupted.
    """
    check_placeable(resources.cpus_per_worker, resources.gpus_per_worker, "trials.resources")
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    # Failures are recorded with their traceback and reported; Tune would print them three times.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    reporter = _Reporter(specs, on_record)
    bundle = {"CPU": resources.cpus_per_worker, "GPU": resources.gpus_per_worker}
    trainable = tune.with_resources(
        tune.with_parameters(Trial, shared=shared), tune.PlacementGroupFactory([bundle])
    )
    configs = [{"id": spec.id, "pool": spec.pool, "seed": spec.seed} for spec in specs]
    # Tune's own snapshots lag behind and are not needed: trial records are the truth.
    folder = tempfile.mkdtemp(prefix="djsandbox-tune-")
    try:
        tune.Tuner(
            trainable,
            param_space={"trial": tune.grid_search(configs)},
            tune_config=tune.TuneConfig(
                reuse_actors=True,
                trial_name_creator=_trial_name,
                trial_dirname_creator=lambda trial: str(trial.config["trial"]["id"]),
            ),
            run_config=tune.RunConfig(
                name="trials",
                storage_path=folder,
                verbose=0,
                callbacks=[reporter],
                failure_config=tune.FailureConfig(max_failures=_RESTARTS),
            ),
        ).fit()
    except TuneError as error:
        # Tune turns what a callback raises into text.
        raise reporter.raised or error from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    if unfinished := reporter.unfinished():
        raise SandboxError(
            f"interrupted with {unfinished} of {len(specs)} trials to go; "
            "the same command goes on from here"
        )


def _trial_name(trial: Any) -> str:
    spec = trial.config["trial"]
    return f"{spec['pool'].replace('/', '_')}-seed{spec['seed']}"


class _Reporter(tune.Callback):
    """Keeps the records of the running trials up to date."""

    def __init__(
        self, specs: Sequence[TrialSpec], on_record: Callable[[TrialRecord], None]
    ) -> None:
        self._records = {spec.id: TrialRecord(spec, TrialState.RUNNING) for spec in specs}
        self._on_record = on_record
        self.raised: Exception | None = None

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks for its snapshots, which nobody restores.
        return {}

    def unfinished(self) -> int:
        return sum(record.state is TrialState.RUNNING for record in self._records.values())

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._update(trial, reports=())  # one that is started again begins anew

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if "failure" in result:
            self._update(trial, state=TrialState.FAILED, **result["failure"])
            return
        report = _REPORT.validate_python(result["report"])
        reports = (*self._record(trial).reports, report)
        self._update(trial, reports=reports)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        record = self._record(trial)
        if record.state is not TrialState.FAILED:
            state = TrialState.COMPLETED if record.final else TrialState.STOPPED
            self._update(trial, state=state)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        text = "the trial ended without a reason"
        if trial.error_file:
            text = Path(trial.error_file).read_text().strip() or text
        self._update(trial, state=TrialState.FAILED, error=text.splitlines()[-1], traceback=text)

    def _record(self, trial: Any) -> TrialRecord:
        return self._records[trial.config["trial"]["id"]]

    def _update(self, trial: Any, **changes: Any) -> None:
        record = replace(self._record(trial), **changes)
        self._records[record.spec.id] = record
        try:
            self._on_record(record)
        except Exception as error:
            self.raised = error
            raise

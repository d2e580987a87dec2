"""The runs of one sandbox run in MLflow, written so that writing again changes nothing.

A run is found again by its key tags; parameters are sent once; a trial's reports carry their own
timestamps, and a tag holds a mark of those that are there, so that only new ones are sent. With the
index, this module alone talks to MLflow.
"""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TypeVar

from djsandbox_ray.masking import without_secrets
from djsandbox_ray.records import RungReport, TrialRecord, TrialState
from djsandbox_ray.storage.own import temporary
from djsandbox_ray.tracking.mlflow_index import Known, MlflowIndex
from djsandbox_ray.tracking.outbox import Refused
from djsandbox_ray.tracking.queued import Writer
from djsandbox_ray.tracking.rungs import mark, numbers, started_ms, unsent
from djsandbox_ray.tracking.tracker import DatasetInput, PoolVerdict

logger = logging.getLogger(__name__)

T = TypeVar("T")

REPORTS = "djsandbox.reports"
PARENT = "mlflow.parentRunId"
DESCRIPTION = "mlflow.note.content"
"""What the page of a run shows as its description."""
VERDICT, RANK, CHANGE = "verdict", "pool_rank", "pool_change"
"""What became of a trial's pool: MLflow's tables sort by numbers, the rank is there for that."""
# FINISHED means the full budget: MLflow's tables, filtered by it, rank no score at a smaller one
# beside full ones. The tag ``state`` tells trials that were stopped early from those cut off.
STATUS = {
    TrialState.RUNNING: "RUNNING",
    TrialState.COMPLETED: "FINISHED",
    TrialState.STOPPED: "KILLED",
    TrialState.FAILED: "FAILED",
}
_FINAL_ERRORS = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST"}
_LONGEST_PARAM = 6000
_LONGEST_ERROR = 4000
_LONGEST_DESCRIPTION = 5000
_LONGEST_SAID = 400
_DAMAGED = re.compile("file is not a database|disk image is malformed")
_BATCH = 500


class MlflowRuns(Writer):
    """Writes the parent run of a sandbox run and one nested run per trial."""

    def __init__(self, index: MlflowIndex) -> None:
        self._index = index
        self._verdicts: dict[tuple[str, str], PoolVerdict] = {}
        """By stage and pool."""
        self._ended = False
        self._warned = False

    def attempt(self, send: Callable[[], None]) -> None:
        """Call ``send``, a method of this object.

        Raises:
            Refused: MLflow will never take it.
            ConnectionError: anything else, such as a server that does not answer; worth another
                attempt. No message holds a password, or more than a line.
        """
        try:
            try:
                send()
            except Exception as error:
                if not _is_final(error):
                    raise
                self._index.forget()  # a user may have deleted the run: once more, on a new one
                send()
        except Exception as error:
            self._index.forget()  # a call that failed may have had its effect
            kind = Refused if _is_final(error) or isinstance(error, Refused) else ConnectionError
            raise kind(in_short(error)) from None

    def start(self) -> None:
        """Begin the parent run, or take it up again."""
        self._set_status(self._described(), "RUNNING", None)

    def dataset(self, dataset: DatasetInput) -> None:
        """Make a dataset an input of the parent run and of the trials that are sent from now on."""
        if dataset not in self._index.datasets:
            self._index.datasets.append(dataset)
        self._index.parent()

    def trial(
        self,
        record: TrialRecord,
        tags: Mapping[str, str],
        params: Mapping[str, str],
        inputs: Sequence[DatasetInput] = (),
    ) -> None:
        """Bring the nested run of a trial up to date with its record."""
        spec, reports = record.spec, record.reports
        parent = self._index.parent()
        there = self._index.runs().get(spec.id)
        if there is not None and unsent(reports, there.tags.get(REPORTS, "")) is None:
            # Trained anew with another result: the abandoned attempt's reports are not its own.
            self._index.delete(spec.id)
        own = {
            **tags,
            "pool": spec.pool,
            "seed": str(spec.seed),
            "state": record.state.value,
            PARENT: parent.run_id,
        }
        name = f"{spec.pool} seed {spec.seed}"
        known = self._index.ensure(spec.id, name, own, started_ms(reports), inputs)
        new = unsent(reports, known.tags.get(REPORTS, "")) or ()
        if new:
            own[REPORTS] = mark(reports)
        if record.error or known.status == "FAILED":  # or an older error that is over
            own["error"] = (record.error or "")[-_LONGEST_ERROR:]
        points = [(values(report), report.time_ms, report.samples) for report in new]
        self._log(known, points, params, own)
        self._log_verdict(known, own)
        status = STATUS[record.state]
        if self._ended and status == "RUNNING":
            status = "KILLED"
        self._set_status(known, status, reports[-1].time_ms if reports else _now())

    def judged(self, stage: str, pools: Sequence[PoolVerdict]) -> None:
        """Log on every trial of a study what became of its pool."""
        self._index.parent()
        self._verdicts |= {(stage, pool.pool): pool for pool in pools}
        for key, known in self._index.runs().items():
            if key and known.tags.get("stage") == stage:
                self._log_verdict(known, known.tags)

    def metrics(self, numbers: Mapping[str, float], time_ms: int) -> None:
        """Log numbers of the parent run, those that are not there already."""
        self._log_once(self._index.parent(), numbers, time_ms)

    def describe(self, text: str) -> None:
        """Show on the page of the parent run what was found."""
        shown = text if len(text) <= _LONGEST_DESCRIPTION else f"{text[:_LONGEST_DESCRIPTION]}..."
        self._log(self._index.parent(), tags={DESCRIPTION: shown})

    def artifact(self, name: str, data: bytes) -> None:
        """Store a file of the parent run, in the place of an older one of that name."""
        path = PurePosixPath(name)
        folder = None if path.parent == PurePosixPath() else str(path.parent)
        self._warn_of_local_files()
        with temporary() as scratch:
            file = scratch / path.name
            file.write_bytes(data)
            self._index.client.log_artifact(self._index.parent().run_id, str(file), folder)

    def _warn_of_local_files(self) -> None:
        """Say once when files go to a path of this machine which the server may not see."""
        if self._warned:
            return
        place = self._index.files_beside_server()
        if place is not None:
            logger.warning(
                "the MLflow server keeps files in %s, a path that it has to share with this "
                "machine: started with --artifacts-destination, it takes them over the network; "
                "an experiment that exists keeps its place, so name a new one",
                place,
            )
        self._warned = True

    def end(self, ok: bool) -> None:
        """End the parent run, and trials that were cut off with it."""
        self._ended = True
        parent = self._described()
        for key, known in self._index.runs().items():
            if key and known.status == "RUNNING":
                self._set_status(known, "KILLED", _now())
        self._set_status(parent, "FINISHED" if ok else "FAILED", _now())

    def _described(self) -> Known:
        known = self._index.parent()
        self._log(known, params=self._index.run.params, tags=self._index.run.tags)
        return known

    def _log_verdict(self, known: Known, tags: Mapping[str, str]) -> None:
        """Log on the run of a trial what became of its pool, if that is known."""
        if (found := self._verdicts.get((tags.get("stage", ""), tags["pool"]))) is None:
            return
        # A change that is not known would be sorted among those that are.
        known_change = {CHANGE: found.change} if math.isfinite(found.change) else {}
        self._log_once(known, {RANK: float(found.rank), **known_change}, _now())
        self._log(known, tags={VERDICT: found.verdict})

    def _log_once(self, known: Known, told: Mapping[str, float], time_ms: int) -> None:
        """Log numbers that are not there already."""
        given = named(told)
        new = {key: value for key, value in given.items() if not _same(known.metrics, key, value)}
        self._log(known, [(new, time_ms, 0)])
        known.metrics.update(new)

    def _log(
        self,
        known: Known,
        points: Sequence[tuple[Mapping[str, float], int, int]] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Send points (values, time in ms, step), then parameters and tags that are not there."""
        from mlflow.entities import Metric, Param, RunTag

        metrics = [
            Metric(key, value, time_ms, step)
            for group, time_ms, step in points
            for key, value in group.items()
        ]
        new = self._new_params(known, params or {})
        changed = {key: text for key, text in (tags or {}).items() if known.tags.get(key) != text}
        if not (metrics or new or changed):
            return
        while len(metrics) > _BATCH:  # the tags say that the metrics are there: they go last
            self._index.client.log_batch(known.run_id, metrics[:_BATCH])
            metrics = metrics[_BATCH:]
        self._index.client.log_batch(
            known.run_id,
            metrics,
            [Param(key, value) for key, value in new.items()],
            [RunTag(key, value) for key, value in changed.items()],
        )
        known.params.update(new)
        known.tags.update(changed)

    def _new_params(self, known: Known, params: Mapping[str, str]) -> dict[str, str]:
        given = {key: value[:_LONGEST_PARAM] for key, value in named(params).items()}
        for key, value in given.items():
            if known.params.get(key, value) != value:
                logger.warning(
                    "MLflow keeps the first value of the parameter %s, %r; it is now %r",
                    key,
                    known.params[key],
                    value,
                )
                known.params[key] = value  # said once
        return {key: value for key, value in given.items() if key not in known.params}

    def _set_status(self, known: Known, status: str, end_ms: int | None) -> None:
        if known.status == status:
            return
        if status == "RUNNING":
            self._index.client.update_run(known.run_id, status)
        else:
            self._index.client.set_terminated(known.run_id, status, end_ms)
        known.status = status


def in_short(error: BaseException) -> str:
    """Return what an error of MLflow says, in one line.

    Those of a database come with the statement and all of its parameters: samples of nobody's
    interest, and secrets perhaps.
    """
    first = next((line for line in str(error).splitlines() if line.strip()), "")
    words = [type(error).__name__, first.partition("[SQL")[0].strip()]
    said = without_secrets(": ".join(filter(None, words)))
    if _DAMAGED.search(said):
        said += "; the database is damaged: move its file away, and a new one is written"
    return said if len(said) <= _LONGEST_SAID else said[:_LONGEST_SAID] + "..."


def _is_final(error: Exception) -> bool:
    return getattr(error, "error_code", None) in _FINAL_ERRORS


def _same(known: Mapping[str, float], key: str, value: float) -> bool:
    if key not in known:
        return False
    return known[key] == value or (math.isnan(known[key]) and math.isnan(value))


def _now() -> int:
    return time.time_ns() // 1_000_000


def named(given: Mapping[str, T]) -> dict[str, T]:
    """Replace the characters that MLflow forbids in the names of metrics and parameters by ``_``.

    Raises:
        Refused: two names would become one.
    """
    result = {re.sub(r"[^/\w.\- ]", "_", key): value for key, value in given.items()}
    if len(result) < len(given):
        raise Refused(f"names that MLflow cannot tell apart among {sorted(given)}")
    return result


def values(report: RungReport) -> dict[str, float]:
    """Return the numbers of a rung, under names that MLflow takes."""
    return named(numbers(report))

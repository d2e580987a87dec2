"""Every number that the run shows to Prometheus, by way of Ray's own endpoint on every node.

Ray exports them as ``ray_djsandbox_*``, counters with ``_total`` behind. The driver alone sets
them, so that a run is one series per set of tags, and no worker process leaves series behind.
Without a connection to Ray there is nobody to export them, and setting one does nothing.

Ray forgets a gauge that is not set again within two of its report intervals (20 s by default): so
the gauges of a driver that has died vanish, and those of a living one must be refreshed.
"""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass, field
from typing import Any, Literal

logger = logging.getLogger(__name__)

_run = ""


@dataclass(frozen=True, eq=False)
class Instrument:
    """A number with a unit, one value per set of tags; every metric has the tag ``run``."""

    name: str
    kind: Literal["counter", "gauge"]
    unit: str
    tags: tuple[str, ...]
    """Beside ``run``; each takes few values, and is no label that Prometheus sets itself."""
    help: str
    _made: list[Any] = field(default_factory=list, repr=False)
    _gauged: dict[tuple[tuple[str, str], ...], float] = field(default_factory=dict, repr=False)

    @property
    def exported(self) -> str:
        """The name under which Prometheus finds it."""
        return f"ray_{self.name}_total" if self.kind == "counter" else f"ray_{self.name}"

    def set(self, value: float, **tags: str) -> None:
        """Replace the value of a gauge; one that it has already is left to :meth:`refresh`."""
        key = tuple(sorted(tags.items()))
        if self._gauged.get(key) != value:
            self._gauged[key] = value
            self._record("set", value, tags)

    def add(self, value: float, **tags: str) -> None:
        """Raise a counter; nothing but a positive value changes it."""
        if value > 0:
            self._record("inc", value, tags)

    def refresh(self) -> None:
        """Set all values of a gauge again."""
        for tags, value in list(self._gauged.items()):
            self._record("set", value, dict(tags))

    def forget(self) -> None:
        """Have no values."""
        self._gauged.clear()

    def _record(self, method: str, value: float, tags: dict[str, str]) -> None:
        if set(tags) != set(self.tags):
            raise TypeError(f"{self.name} has the tags {self.tags}, not {tuple(tags)}")
        if not _connected():
            return
        try:
            if not self._made:
                self._made.append(self._make())
            getattr(self._made[0], method)(float(value), {"run": _run, **tags})
        except Exception as error:
            # A view never ends a run.
            logger.warning("the metric %s cannot be exported: %s", self.name, error)

    def _make(self) -> Any:
        from ray.util import metrics

        kind = metrics.Counter if self.kind == "counter" else metrics.Gauge
        return kind(self.name, f"{self.help} [{self.unit}]", ("run", *self.tags))


TRIALS = Instrument(
    "djsandbox_trials",
    "gauge",
    "trials",
    ("stage", "state"),
    "Trials of a study by state: WAITING, RUNNING, COMPLETED, STOPPED or FAILED.",
)
TRAINED_SAMPLES = Instrument(
    "djsandbox_trained_samples",
    "counter",
    "samples",
    ("stage",),
    "Samples that trials have trained on, counted at every rung.",
)
TRIAL_SECONDS = Instrument(
    "djsandbox_trial_seconds",
    "counter",
    "seconds",
    ("stage", "part"),
    "Time that trials spent, by part: training or evaluation.",
)
PLANNED_SAMPLES = Instrument(
    "djsandbox_planned_samples",
    "gauge",
    "samples",
    ("stage",),
    "Samples that the trials of a study would train on if none was given up.",
)
BUDGET_USED = Instrument(
    "djsandbox_budget_used_ratio",
    "gauge",
    "ratio",
    ("stage",),
    "Share of the planned samples of a study that its trials have trained on.",
)
BEST_CHANGE = Instrument(
    "djsandbox_best_change_ratio",
    "gauge",
    "ratio",
    ("stage",),
    "Mean score of the best pool so far against that of the controls (0.05 = +5 %); no verdict.",
)
OPERATOR_ROWS = Instrument(
    "djsandbox_operator_rows",
    "counter",
    "rows",
    ("operator",),
    "Samples for which an operator has computed its statistics.",
)
REJECTED_SAMPLES = Instrument(
    "djsandbox_rejected_samples",
    "gauge",
    "samples",
    ("stage", "reason"),
    "Samples that were set aside when a source was read, by reason.",
)
JOB_SECONDS = Instrument(
    "djsandbox_job_seconds",
    "gauge",
    "seconds",
    ("stage",),
    "Wall time of a job of the workflow that this driver has run.",
)
RUN_START_TIME = Instrument(
    "djsandbox_run_start_time_seconds",
    "gauge",
    "seconds since the epoch",
    (),
    "When the driver began; it is there as long as the driver is.",
)

METRICS = (
    TRIALS,
    TRAINED_SAMPLES,
    TRIAL_SECONDS,
    PLANNED_SAMPLES,
    BUDGET_USED,
    BEST_CHANGE,
    OPERATOR_ROWS,
    REJECTED_SAMPLES,
    JOB_SECONDS,
    RUN_START_TIME,
)


def label(run: str) -> None:
    """Have all metrics of this process carry the name of a run from now on."""
    global _run
    _run = run
    for metric in METRICS:
        metric.forget()
    RUN_START_TIME.set(time.time())


def refresh() -> None:
    """Set all gauges again; to be called every few seconds, see above."""
    for metric in METRICS:
        metric.refresh()


def _connected() -> bool:
    # Ray is not imported for this: some commands never need it.
    ray = sys.modules.get("ray")
    return bool(_run) and ray is not None and bool(ray.is_initialized())

"""One worker of a trial: a model family at work on one draw, one step per rung."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from math import isfinite
from pathlib import Path
from traceback import format_exc
from typing import Any

import ray

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.evaluation.answer_store import AnswerStore
from djsandbox_ray.evaluation.asking import Answerer
from djsandbox_ray.evaluation.denoising import Denoiser
from djsandbox_ray.evaluation.evaluator import Artefact, Encoder
from djsandbox_ray.evaluation.suite import NotFinite, Suite
from djsandbox_ray.evaluation.video.wanted import VideoMaker
from djsandbox_ray.masking import without_secrets
from djsandbox_ray.pools.draws import Draw, draw_from
from djsandbox_ray.records import Pool, RungReport
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.telemetry.output import FAILED, TrialLog, log_path
from djsandbox_ray.trials.checkpoint import ALONE, Checkpoint
from djsandbox_ray.trials.config import Resources
from djsandbox_ray.trials.exporting import export_model
from djsandbox_ray.trials.family import Diverged, ModelFamily, TrialTask, check_numerics
from djsandbox_ray.trials.pulse import Pulse
from djsandbox_ray.trials.rescoring import rescored_reports
from djsandbox_ray.trials.shared_folder import kept_model
from djsandbox_ray.trials.strategies.strategy import Group


class OtherRows(BadInput):
    """The file of all trials' rows is not the one that they were planned with."""


@dataclass(frozen=True)
class Shared:
    """What all trials of a run have in common; sent to every trial process once."""

    family: ModelFamily
    prepared: Any
    suite: Suite
    pools: Mapping[str, Pool]
    assignments: str
    """Parquet in the storage with the rows of all pools: each trial draws its own of its column."""
    draw_size: int
    base_seed: int
    rungs: tuple[int, ...]
    """Samples seen at every report; the last is the whole training."""
    storage: str
    """URL under which checkpoints are kept; every node must reach it."""
    resources: Resources
    retries: int
    """How often a trial that crashed is tried again."""
    retry_diverged: bool = False
    """Whether one that diverged is tried again, too."""
    study: str = "trials"
    """Run and stage, by which processes are named."""
    logs: str | None = None
    """Folder of the storage for what trials print; None keeps nothing."""
    keep_stopped: bool = False
    """Whether the checkpoints of trials that were given up stay."""
    stall_seconds: float | None = None
    """After how many seconds a silent worker is replaced; None or 0 for never."""
    watch: str | None = None
    """Whom workers tell that they are alive; None for nobody."""
    pause: float = 5.0
    """Seconds between two times."""
    budget: int = 0
    """Samples seen in the stage that the pool feeds; 0: in the whole training."""
    owner: str = ALONE
    """The driver, by which its folders of checkpoints are named."""
    numerics: Mapping[str, str] | None = None
    """The family's on the driver, after which trials are named; None where nobody compares."""
    models: str = ""
    """Folder of the storage where what was trained stays, by seed, for later trials to go on from;
    empty: it does not."""
    export: str = ""
    """Folder of the storage for the whole model, as it was last evaluated, in the format of its
    library; empty: it is not exported."""

    def draw(self, trial: Mapping[str, Any]) -> Draw:
        """Return the rows that a trial trains on.

        Raises:
            OtherRows: they are not those that it was planned with.
        """
        pool, column = self.pools[trial["pool"]], self.pools[trial["pool"]].column
        parts = Storage(self.storage).read_batches(self.assignments, ["row_id", column])
        drawn = draw_from(
            ((part["row_id"].to_numpy(), part[column].to_numpy()) for part in parts),
            pool,
            int(trial["seed"]),
            pool.draw_size or self.draw_size,
            self.base_seed,
        )
        if drawn.hash != trial["draw"]:
            raise OtherRows(
                f"{self.assignments}: the rows of {pool.id!r} are not those that trial "
                f"{trial['id']} was planned with: the file was changed while the run was at work; "
                "the same command plans anew"
            )
        return drawn


class TrialWorker:
    """Trains one trial after the other, alone or as one worker of a group.

    An ordinary object, so that it can live in a trial's own process or in an actor: starting a
    process and importing torch takes longer than a small trial itself.
    """

    def __init__(self, shared: Shared, group: Group | None = None) -> None:
        self._shared = shared
        self._group = group or Group()
        self._training: Generator[RungReport] | None = None
        self._log: TrialLog | None = None
        self._trained_as = ""
        """Id of the training."""
        self._pulse = Pulse(shared.watch, self._group.rank, shared.pause)

    @property
    def place(self) -> str:
        """The rank, node and process of this worker."""
        rank = f"rank {self._group.rank} on " if self._group.size > 1 else ""
        address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
        return f"{rank}node {address} (pid {os.getpid()})"

    def begin(self, trial: Mapping[str, Any], reported: int) -> None:
        """Make ready for a trial, new or cut off; training begins with the first step.

        Args:
            trial: id, pool, seed, the hash of its draw, and what it has reported in earlier work:
                that comes first, where no checkpoint has it.
            reported: samples seen at the last report that has been handed on; the steps go on
                behind it, with the reports that the newest checkpoint holds first.
        """
        self.close()
        self._pulse.begin(trial["id"], self.place)
        shared = self._shared
        pool, seed = shared.pools[trial["pool"]], int(trial["seed"])
        if shared.logs is not None:
            path = log_path(shared.logs, trial["id"], self._group.rank)
            title = f"{shared.study}: {pool.id} seed {seed} behind {reported} samples, {self.place}"
            self._log = TrialLog(Storage(shared.storage), path, title)
        drawn = shared.draw(trial)
        checkpoint = _Watched(shared.storage, trial["id"], self._group, shared.owner)
        checkpoint.pulse = self._pulse
        task = TrialTask(
            seed=seed,
            rows=drawn.rows,
            captions=drawn.captions,
            rungs=shared.rungs,
            cpus=shared.resources.cpus_per_worker,
            gpus=shared.resources.gpus_per_worker,
            checkpoint=checkpoint,
            group=self._group,
            evaluate=self._evaluate,
            pulse=self._pulse,
            budget=shared.budget,
            spoil=pool.spoil,
            keep=partial(self._keep, seed) if shared.models else None,
        )
        self._reported = reported
        self._trained_as = trial.get("training", "")
        known = tuple(RungReport(**report) for report in trial["reports"])
        # Where a stage ends before the first rung, the state is kept, but nothing is reported.
        kept = tuple(one for one in checkpoint.reports() if one.samples >= shared.rungs[0])
        self._kept = iter(self._scored_now(kept or known, checkpoint))
        self._training = self._train(task)

    def step(self) -> dict[str, Any]:
        """Train to the next rung.

        What the family raises is a result too, so that a group can tell it from a dead process.

        Returns:
            ``{"report": ..., "done": ...}`` or ``{"failure": {error, diverged, traceback, place},
            "done": True}``.
        """
        whole = self._shared.rungs[-1]
        try:
            with self._pulse.training():
                report = self._next()
            _check(report, whole)
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            failure = {
                "error": without_secrets(reason),
                "diverged": isinstance(error, Diverged | NotFinite),
                "traceback": without_secrets(format_exc()),
                "place": self.place,
            }
            self._note(f"{FAILED}{failure['error']}\n{failure['traceback']}")
            self.close()
            return {"failure": failure, "done": True}
        self._note(f"{report.samples} samples: loss {report.loss:.6g}, {report.metrics}")
        return {"report": asdict(report), "done": report.samples == whole}

    def close(self) -> None:
        """Let go of the trial, and of its model."""
        self._pulse.end()
        training, self._training = self._training, None
        if training is not None:
            training.close()
        log, self._log = self._log, None
        if log is not None:
            log.close()

    def _train(self, task: TrialTask) -> Generator[RungReport]:
        """Train, if the numbers are those that the trial is named after."""
        shared = self._shared
        if shared.numerics is not None:
            check_numerics(shared.family, task.gpus, shared.numerics)
        yield from shared.family.train(task, shared.prepared)

    def _evaluate(
        self,
        model: Encoder | Artefact | Answerer | VideoMaker | Denoiser,
        samples: int | None = None,
    ) -> dict[str, float]:
        with self._pulse.aside():
            store = None if samples is None else self._answers(samples)
            metrics = self._shared.suite.run(model, store)
            if self._shared.export:
                export_model(model, Storage(self._shared.storage), self._shared.export)
            return metrics

    def _keep(self, seed: int, fill: Callable[[Path], Mapping[str, Any]]) -> None:
        shared = self._shared
        with self._pulse.aside():
            if self._group.rank == 0:
                kept_model(Storage(shared.storage), shared.models, seed).write(fill)
            self._group.barrier()

    def _answers(self, samples: int) -> AnswerStore:
        return AnswerStore(Storage(self._shared.storage), self._trained_as, samples)

    def _scored_now(
        self, reports: tuple[RungReport, ...], checkpoint: Checkpoint
    ) -> tuple[RungReport, ...]:
        """Return kept reports with their answers scored as this run does.

        Where answers are gone, nothing is returned, and the trial begins anew: only a model that
        is trained up to there can give them.
        """
        if not (self._shared.suite.asks and reports):
            return reports
        again: tuple[RungReport, ...] | None = None
        if self._group.rank == 0:
            again = rescored_reports(self._shared.suite, reports, self._answers)
        again = self._group.from_first(again)
        if again is None:
            self._note("answers of earlier rungs are gone: the trial begins anew")
            checkpoint.discard()
        return again or ()

    def _note(self, text: str) -> None:
        if self._log is not None:
            self._log.note(text)

    def _next(self) -> RungReport:
        """Return the next report behind what has been handed on."""
        if self._training is None:
            raise RuntimeError("a worker takes steps between begin and close only")
        # Checkpoints that a family kept but does not load, it repeats; without any, it repeats all.
        for report in chain(self._kept, self._training):
            if report.samples > self._reported:
                self._reported = report.samples
                return report
        raise SandboxError("the model family ended before the budget")


class _Watched(Checkpoint):
    """Checkpoints whose transfers may take as long as they take."""

    pulse: Pulse

    def save(self, report: RungReport, write: Callable[[Path], None], judged: bool = True) -> None:
        """See :meth:`Checkpoint.save`."""
        with self.pulse.aside():
            super().save(report, write, judged)


def _check(report: RungReport, whole: int) -> None:
    numbers = {"loss": report.loss, **report.metrics, **report.terms}
    if wrong := [name for name, value in numbers.items() if not isfinite(value)]:
        raise Diverged(f"not finite after {report.samples} samples: {', '.join(wrong)}")
    if report.samples > whole:
        raise SandboxError(f"{report.samples} samples were seen, more than the budget {whole}")

"""Gives trials to Ray Tune and passes on what they report."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any
from uuid import uuid4

from pyarrow.fs import FSSpecHandler, PyFileSystem
from ray import tune
from ray.tune.error import TuneError
from ray.tune.execution import class_cache

from djsandbox_ray.errors import SandboxError, uncovered
from djsandbox_ray.nodes.connection import check_placeable
from djsandbox_ray.nodes.waiting import AwaitRoom
from djsandbox_ray.records import PoolKind, TrialRecord, TrialSpec, TrialState
from djsandbox_ray.storage.backlog import Backlog
from djsandbox_ray.storage.filesystems import filesystem
from djsandbox_ray.storage.own import MARKER, marker
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.checkpoint import Checkpoint
from djsandbox_ray.trials.gang import bundles
from djsandbox_ray.trials.ownership import clear, take_over
from djsandbox_ray.trials.reporter import Reporter
from djsandbox_ray.trials.stopping.stopping import Competition, Decision, Stopping
from djsandbox_ray.trials.strategies.strategy import Group
from djsandbox_ray.trials.trainable import Trial
from djsandbox_ray.trials.vigil import Silence, Vigil
from djsandbox_ray.trials.worker import Shared

_KIND, _TUNE = "files of Tune", "tune-"


def run_trials(
    specs: Sequence[TrialSpec],
    shared: Shared,
    stopping: Stopping,
    competition: Competition,
    on_record: Callable[[TrialRecord], None],
    folder: str,
    on_waiting: Callable[[Sequence[Mapping[str, float]] | None], None] = lambda group: None,
    await_room: AwaitRoom = check_placeable,
    on_retry: Callable[[TrialRecord], None] = lambda record: None,
    save: Callable[[TrialRecord], None] = lambda record: None,
    on_silence: Callable[[Silence], None] = lambda silence: None,
    on_places: Callable[[Collection[str]], None] = lambda trials: None,
) -> None:
    """Run every trial to its end, or until it is stopped, and hand over its record as it changes.

    A trial that earlier work has begun goes on from its checkpoint, or from what it has reported.
    Pools that earlier decisions gave up stay given up.

    Records are saved in the background, since Tune handles one event after the other: all of them
    are there before a decision is made of them, and before this returns or raises. One that a kill
    keeps from being saved comes again, from the checkpoint that its trial wrote before it reported.

    Args:
        specs: the trials that are not settled, in the order in which they start.
        shared: what they have in common; as many run at once as the cluster has room for.
        stopping: how trials are stopped early.
        competition: the study that the trials are part of.
        on_record: called in this process after every start, report and end of a trial.
        folder: where in the storage a folder for Tune's own files is made, and removed at the end.
        on_waiting: called again and again with the bundles that a trial needs while nothing can
            run for want of them, and with None when that is over; what it raises ends the study.
        await_room: waits until there are nodes for one trial; Tune asks for those of the others.
        on_retry: called with the record of a trial that crashed and will be tried again; error,
            traceback and place are those of the crash.
        save: keeps a record where later work finds it; called in the background, with the newest
            record of a trial.
        on_silence: called in another thread when a worker says nothing for long, and when it is
            replaced.
        on_places: called with the ids of the trials that have a place, whenever these change.

    Raises:
        BadInput: the cluster can never place a trial.
        SandboxError: the run was interrupted.
    """
    _check_complete(specs, competition)
    group = bundles(shared.resources)
    await_room(group, "trials.resources")
    storage = Storage(shared.storage)
    settled = [key for key, record in competition.known.items() if record.settled]
    clear(storage, settled, shared.owner)

    with Backlog("trial records") as backlog:
        keeper = Keeper(shared, competition, on_record, save, backlog)
        racing = keeper.without_given_up(specs)
        if not racing:
            return
        resources = shared.resources
        alike = Group(0, resources.workers, resources.strategy)
        take_over(storage, [spec.id for spec in racing], shared.owner, alike)
        vigil = Vigil(shared.stall_seconds, on_silence)
        watched = replace(shared, watch=vigil.watch, pause=vigil.pause)

        def retried(record: TrialRecord) -> None:
            vigil.crashed(record.spec.id)
            on_retry(record)

        reporter = Reporter(
            racing,
            competition.known,
            keeper.keep,
            lambda waits: on_waiting(group if waits else None),
            retried,
            on_places,
        )
        scheduler = stopping.scheduler(replace(competition, on_decision=keeper.decide))
        own = f"{folder}/{_TUNE}{uuid4().hex}"
        storage.write_bytes(f"{own}/{MARKER}", marker(_KIND, own).encode())
        vigil.begin(reporter.running)
        try:
            _tuner(racing, watched, group, scheduler, reporter, competition.known, own).fit()
        except BaseException as error:
            with uncovered("the watch over workers ends"):
                vigil.end()
            with uncovered(f"{own} is removed"):
                storage.remove(own, last=MARKER)
            if isinstance(error, TuneError):
                # Tune turns what a callback raises into text.
                raise reporter.raised or error from None
            raise
        vigil.end()
        storage.remove(own, last=MARKER)
        if unfinished := reporter.unfinished():
            raise SandboxError(
                f"interrupted with {unfinished} of {len(racing)} trials to go; "
                "the same command goes on from here"
            )
        keeper.conclude()


class Keeper:
    """Has records saved, and lets go of the checkpoints that nobody needs any more."""

    def __init__(
        self,
        shared: Shared,
        competition: Competition,
        on_record: Callable[[TrialRecord], None],
        save: Callable[[TrialRecord], None],
        backlog: Backlog,
    ) -> None:
        self._shared, self._competition = shared, competition
        self._on_record, self._save, self._backlog = on_record, save, backlog
        self._given_up = {pool for made in competition.decisions for pool in made.stopped}
        self._stopped: dict[str, TrialRecord] = {}
        """Without a decision that stands: the same command, cut off, lets them go on."""
        self._crashed = False

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles what a user's scheduler holds for its snapshots, which nobody restores.
        return {}

    def keep(self, record: TrialRecord) -> None:
        """Have a record saved, whatever is made of it; the checkpoint of one that is over goes."""
        settled, stopped = record.settled, record.state is TrialState.STOPPED
        given_up = stopped and record.spec.pool in self._given_up
        over = settled or (given_up and not self._shared.keep_stopped)
        self._backlog.put(record.spec.id, partial(self._write, record, over))
        self._on_record(record)
        if stopped and self._competition.pools[record.spec.pool].kind is not PoolKind.BUCKET:
            raise SandboxError(
                f"early stopping has stopped a trial of {record.spec.pool}: controls and "
                "self-tests must run to the end, everything is compared with them"
            )
        if stopped and not over:
            self._stopped[record.spec.id] = record
        self._crashed |= record.state is TrialState.FAILED and not settled

    def decide(self, decision: Decision) -> None:
        """Keep a decision, behind the reports that it was made of."""
        self._backlog.flush()
        self._competition.on_decision(decision)
        self._given_up.update(decision.stopped)

    def without_given_up(self, specs: Sequence[TrialSpec]) -> list[TrialSpec]:
        """Return the trials of pools that earlier decisions have not given up."""
        for spec in specs:
            if spec.pool in self._given_up:
                left = self._competition.known.get(spec.id, TrialRecord(spec, TrialState.STOPPED))
                self.keep(replace(left, state=TrialState.STOPPED))
        return [spec for spec in specs if spec.pool not in self._given_up]

    def conclude(self) -> None:
        """Let go of what the same command would need only if it had been cut off."""
        if not self._crashed and not self._shared.keep_stopped:
            for record in self._stopped.values():
                self._backlog.put(record.spec.id, partial(self._write, record, over=True))

    def _write(self, record: TrialRecord, over: bool) -> None:
        self._save(record)
        if over:
            owner = self._shared.owner
            Checkpoint(self._shared.storage, record.spec.id, owner=owner).remove()


def clear_left(storage: Storage, folder: str) -> None:
    """Remove what killed drivers have left of Tune's own files, where this driver's are made."""
    for name in [name for name in storage.names(folder) if name.startswith(_TUNE)]:
        path = f"{folder}/{name}"
        if storage.is_link(path) or not storage.exists(f"{path}/{MARKER}"):
            continue
        if storage.read_bytes(f"{path}/{MARKER}") == marker(_KIND, path).encode():
            storage.remove(path, last=MARKER)


def _tuner(
    specs: Sequence[TrialSpec],
    shared: Shared,
    group: Sequence[Mapping[str, float]],
    scheduler: Any,
    reporter: Reporter,
    known: Mapping[str, TrialRecord],
    folder: str,
) -> tune.Tuner:
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    # Ctrl-C ends the run at once, as SIGTERM does; what Tune would save first is not needed.
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"
    # Tune's own snapshots lag behind and are not needed: trial records are the truth.
    os.environ["TUNE_GLOBAL_CHECKPOINT_S"] = str(10**9)
    # Failures are recorded with their traceback and reported; Tune would print them three times.
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    trainable = tune.with_resources(
        tune.with_parameters(Trial, shared=shared),
        tune.PlacementGroupFactory([dict(bundle) for bundle in group]),
    )
    configs = [_config(spec, known.get(spec.id)) for spec in specs]
    # Tune would copy AWS keys into the runtime environment of its actors, which Ray logs and shows;
    # nodes have their own.
    class_cache.ENV_VARS_TO_PROPAGATE.difference_update(
        [name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")]
    )
    return tune.Tuner(
        trainable,
        param_space={"trial": tune.grid_search(configs)},
        tune_config=tune.TuneConfig(
            scheduler=scheduler,
            reuse_actors=True,
            trial_name_creator=_trial_name,
            trial_dirname_creator=lambda trial: str(trial.config["trial"]["id"]),
        ),
        run_config=tune.RunConfig(
            name="trials",
            verbose=0,
            callbacks=[reporter],
            failure_config=tune.FailureConfig(max_failures=shared.retries),
            **_place(Storage(shared.storage), folder),
        ),
    )


def _config(spec: TrialSpec, known: TrialRecord | None) -> dict[str, Any]:
    """Return what a worker is told of a trial, as plain data."""
    reports = [asdict(report) for report in known.reports] if known else []
    own = {"id": spec.id, "pool": spec.pool, "seed": spec.seed, "draw": spec.draw_hash}
    return {**own, "training": spec.training, "reports": reports}


def _place(storage: Storage, folder: str) -> dict[str, Any]:
    """Say where Tune keeps its files: a paused trial may go on in another node."""
    if storage.is_local:
        return {"storage_path": storage.uri(folder)}
    files, path = filesystem(storage.uri(folder))
    return {"storage_path": path, "storage_filesystem": PyFileSystem(FSSpecHandler(files))}


def _check_complete(specs: Sequence[TrialSpec], competition: Competition) -> None:
    """Refuse a study with trials that nobody runs: others would wait for them for ever."""
    run = {spec.id for spec in specs}
    settled = {key for key, record in competition.known.items() if record.settled}
    for spec in competition.specs:
        if (spec.id in run) == (spec.id in settled):
            what = "is settled, but runs again" if spec.id in run else "is not settled, nor run"
            raise ValueError(f"trial {spec.id!r} (pool {spec.pool!r}, seed {spec.seed}) {what}")


def _trial_name(trial: Any) -> str:
    spec = trial.config["trial"]
    return f"{spec['pool'].replace('/', '_')}-seed{spec['seed']}"

"""A whole run, from top to bottom: check, connect, run round by round, say what was found.

SIGTERM, which ``ray job stop`` sends, stops a run as Ctrl-C does: what is finished is kept.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfDiskError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    WorkerCrashedError,
)
from rich.console import Console

from djsandbox_ray.config import RunConfig
from djsandbox_ray.errors import BadInput, SandboxError, uncovered
from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.hooks.results import directions
from djsandbox_ray.hooks.study import NO_RESULT
from djsandbox_ray.identity import content_id
from djsandbox_ray.nodes.anchor import anchor, watched
from djsandbox_ray.nodes.connection import connect
from djsandbox_ray.nodes.waiting import foreseen
from djsandbox_ray.outside.environment import node_folder
from djsandbox_ray.reporting.progress import Progress
from djsandbox_ray.storage.filesystems import disk_failure
from djsandbox_ray.storage.half_written import Leftovers
from djsandbox_ray.storage.lease import WATCH
from djsandbox_ray.storage.own import clear_scratch, own_folder
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.telemetry.observed import observed
from djsandbox_ray.tracking.tracker import RunInfo
from djsandbox_ray.trials.config import seeds_text, worker_bundle
from djsandbox_ray.trials.gang import bundles
from djsandbox_ray.trials.strategies.strategy import STRATEGIES
from djsandbox_ray.workflows.aftermath import aftermath
from djsandbox_ray.workflows.beforehand import check_run, foretold
from djsandbox_ray.workflows.ending import print_results
from djsandbox_ray.workflows.finished import FinishedRun
from djsandbox_ray.workflows.language.jobs import Workflow
from djsandbox_ray.workflows.language.repeat import Round, conclude
from djsandbox_ray.workflows.language.workflow import configured_workflow
from djsandbox_ray.workflows.opened import open_round
from djsandbox_ray.workflows.publish import publish
from djsandbox_ray.workflows.runner import run_workflow
from djsandbox_ray.workflows.state import RunState, alone, interrupt, state_path


def run_sandbox(config: RunConfig, console: Console, trains: bool = True) -> dict[str, Any]:
    """Run the workflow of a configuration, or what is left of it, and print the verdicts.

    Args:
        config: that was checked.
        console: where it is told.
        trains: whether models may be trained; else the run ends before the first study that needs
            one.

    Returns:
        The outputs of all jobs by job id; of a workflow with rounds, those of the last.

    Raises:
        BadInput: something is wrong that only shows with the data at hand; or nothing may be
            trained, and there is no such run.
        Stopped: by SIGTERM or Ctrl-C, or the cluster is gone; what is finished is kept.
        Held: another process runs it.
        Lost: another process has taken the run over.
        PlanRefused: trials cannot be scored without their models, and none may be trained.
        SandboxError: a job failed; what is finished is kept.
    """
    check_run(config)
    first = Round.first(config)
    with Progress(console) as progress:
        for line in foretold(config):
            progress.note(line)
        storage = open_round(first, progress).storage  # a tracker that cannot be shows here
        if not trains:
            FinishedRun(storage, first.run)  # there must be one, however far it has come
        # Before a cluster is started for nothing.
        with alone(storage, first.run, progress.note) as lease:
            cluster = config.cluster
            if dashboard := connect(cluster.address, cluster.cpus, cluster.dashboard):
                progress.note(f"Ray's dashboard: {dashboard}")
            held = anchor()
            with (
                stoppable(),
                cleared(storage, first.run),
                observed(storage, first.run),
                aftermath(lease, state_path(first), held),
                watched(held, interrupt),
                RunState(lease, first, held) as state,
                said_plainly(storage),
            ):
                _check_resources(config, progress)
                done = run_rounds(config, progress, state, trains)
    print_results(console, config, done.context, done.outputs, done.unsent)
    return done.outputs


@dataclass(frozen=True)
class Done:
    """What a run has come to."""

    context: Context
    """Of its last round."""
    outputs: dict[str, Any]
    """Of its last round, by job."""
    unsent: int
    """How many things, of all rounds, could not be sent to the tracker."""


def run_rounds(config: RunConfig, progress: Progress, state: RunState, trains: bool = True) -> Done:
    """Run the workflow until its targets hold, or once; rounds that are done are only read.

    Raises:
        BadInput: what a round gave does not fit into the configuration of the next.
        SandboxError: a job failed; what is finished is kept.
    """
    this, unsent = Round.first(config), 0
    while True:
        state.begin(this)
        workflow = configured_workflow(this.config)
        context = replace(open_round(this, progress, state.lease), trains=trains)
        outputs, kept_back = _run_round(workflow, context, state)
        unsent += kept_back
        outcome = conclude(workflow.repeat, this, outputs)
        state.conclude(outcome)
        for line in (*map(str, outcome.judged), outcome.reason):
            if line:
                progress.note(f"round {this.number}: {line}")
        if outcome.following is None:
            return Done(context, outputs, unsent)
        this = outcome.following


def _run_round(workflow: Workflow, context: Context, state: RunState) -> tuple[dict[str, Any], int]:
    """Return the outputs, and how many things could not be sent to the tracker."""
    tracker = context.tracker

    def finish(ok: bool, within: float | None = None) -> int:
        # A run that was taken over: it is another's to tell how it ends.
        return 0 if state.lease.lost is not None else tracker.finish(ok, within)

    try:
        tracker.start(_run_info(context))
        outputs = run_workflow(workflow, context, partial(publish, context))
    except BaseException as error:
        stopped = isinstance(error, KeyboardInterrupt)
        if stopped:
            with uncovered("the state of the run is kept"):
                state.end("STOPPED")  # first of all: this process may be killed in a moment
        with uncovered("the tracker is told how the run has ended"):
            finish(False, FLUSH_SECONDS if stopped else None)
        raise
    return outputs, finish(True)


_SHARED = (
    *("trials", "datasets", "rejected", "acceptances", "models", "answers", "videos"),
    *("latents", "prompts", "image_features"),
)
"""Folders of a storage that several runs write."""


@contextmanager
def cleared(storage: Storage, run: str) -> Iterator[None]:
    """Clear away what drivers that were killed have left, and nothing else.

    At the start, what is known to be left; at the end, what must be looked at twice. Temporary
    folders of other nodes are cleared there, when the next one is made.

    Args:
        storage: of the run.
        run: whose lease is held.
    """
    for root in (partial(own_folder, "tmp"), partial(node_folder, "scratch")):
        with suppress(OSError, BadInput):  # whoever needs it says what is wrong with it
            clear_scratch(root())
    folders = [f"runs/{run}", *_SHARED] if storage.is_local else []
    left = Leftovers([Path(storage.uri(folder)) for folder in folders], WATCH)
    yield
    left.look_again()


_DIED = (
    *(NodeDiedError, ObjectLostError, OutOfDiskError, OutOfMemoryError),
    *(RayActorError, WorkerCrashedError),
)
"""What Ray raises where a process or a machine ended, whatever it was at."""


@contextmanager
def said_plainly(storage: Storage) -> Iterator[None]:
    """Have what a task of Ray or a library has raised say what it is, in a sentence.

    Raises:
        SandboxError: as the task has raised it, without the traceback that Ray makes of it; or a
            process of the cluster has died.
        StorageFailed: a disk is full, or takes nothing for another reason.
    """
    try:
        yield
    except Exception as error:
        told = _plainly(error, storage.shown)
        if told is None:
            raise
        raise told from None


def _plainly(error: BaseException, where: str) -> SandboxError | None:
    causes: list[BaseException] = []
    following: BaseException | None = error
    while following is not None and following not in causes:
        causes.append(following)
        following = getattr(following, "cause", None) or following.__cause__
    own = [one for one in causes if isinstance(one, SandboxError) and not isinstance(one, RayError)]
    if own:
        return None if own[0] is error else own[0]
    if told := next((told for one in causes if (told := disk_failure(one, where))), None):
        return told
    died = next((one for one in causes if isinstance(one, _DIED)), None)
    if died is None:
        return None
    said = next((line.strip() for line in str(died).splitlines() if line.strip()), "")
    return SandboxError(
        f"a process of the cluster has ended while it was at work ({type(died).__name__}: {said}); "
        "what is finished is kept, and the same command goes on"
    )


def _check_resources(config: RunConfig, progress: Progress) -> None:
    groups = {"statistics": config.statistics.group()}
    if config.training is not None:
        resources = config.training.resources
        strategy = STRATEGIES.get(resources.strategy)
        strategy.check(resources.deepspeed, resources.gpus_per_worker)
        groups["trials.resources"] = bundles(resources)
    if config.scorer is not None:
        groups["scorer.resources"] = [worker_bundle(config.scorer.resources)]
    for where, group in groups.items():
        if awaited := foreseen(group, where, config.cluster.wait):
            progress.note(awaited)


def _run_info(context: Context) -> RunInfo:
    config = context.config
    # Where a run is computed and stored does not make it another run, nor what it must see.
    resolved = config.model_dump(
        mode="json", exclude={"storage", "cluster", "tracking", "statistics", "noise"}
    )
    for key in NO_RESULT:
        (resolved["trials"] or {}).pop(key, None)
    for section in ("ingest", "scorer"):
        (resolved[section] or {}).pop("resources", None)
    trained, measured = {}, {}
    if (trials := config.training) is not None:
        trained = {
            "model": str(getattr(trials.model, "arch", trials.model.type)),
            "budget": str(trials.budget),
            "seeds": seeds_text(trials),
        }
    if (evaluation := config.measuring) is not None:
        measured = {"aggregate": evaluation.kind, "alpha": str(evaluation.alpha)}
        if less := directions(config).get("less"):
            measured["better_when_less"] = ", ".join(less)
    return RunInfo(
        name=config.name,
        key=content_id("run", resolved),
        params={
            **trained,
            "operators": str(len(config.operators)),
            "draw_share": str(config.pools.draw_share),
            **measured,
            "workflow": config.workflow if isinstance(config.workflow, str) else "its own",
        },
        tags={"stage": "run", "dataset": config.dataset.type},
    )


FLUSH_SECONDS = 1.5
"""How long a stopped run waits for its tracker in all: Ray kills a job 3 seconds after SIGTERM,
unless its submitter asked for more."""


@contextmanager
def stoppable() -> Iterator[None]:
    """Let SIGTERM and SIGINT end the block with a KeyboardInterrupt.

    Ray's calls pass on no other exception of a signal handler. While the block ends, a second
    SIGTERM does nothing; a second Ctrl-C breaks that off too. To be entered after Ray is connected,
    which installs a handler of its own. Without effect outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        raise KeyboardInterrupt

    for number in numbers:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

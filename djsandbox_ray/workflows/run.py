"""A whole run, from top to bottom: check, connect, run round by round, say what was found.

SIGTERM, which ``ray job stop`` sends, stops a run as Ctrl-C does: what is finished is kept.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any

from rich.console import Console

from djsandbox_ray.config import RunConfig
from djsandbox_ray.dataset.source import SOURCES
from djsandbox_ray.errors import BadInput
from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.identity import content_id
from djsandbox_ray.nodes.connection import connect
from djsandbox_ray.nodes.waiting import foreseen
from djsandbox_ray.reporting.progress import Progress
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.telemetry.observed import observed
from djsandbox_ray.tracking.journal import Recorded
from djsandbox_ray.tracking.tracker import TRACKERS, RunInfo
from djsandbox_ray.trials.config import worker_bundle
from djsandbox_ray.trials.gang import bundles
from djsandbox_ray.trials.strategies.strategy import STRATEGIES
from djsandbox_ray.workflows.ending import print_results
from djsandbox_ray.workflows.language.jobs import Workflow
from djsandbox_ray.workflows.language.repeat import Round, conclude
from djsandbox_ray.workflows.language.workflow import configured_workflow
from djsandbox_ray.workflows.publish import publish
from djsandbox_ray.workflows.runner import run_workflow
from djsandbox_ray.workflows.state import RunState, refuse_if_running


def run_sandbox(config: RunConfig, console: Console) -> dict[str, Any]:
    """Run the workflow of a configuration, or what is left of it, and print the verdicts.

    Returns:
        The outputs of all jobs by job id; of a workflow with rounds, those of the last.

    Raises:
        BadInput: something is wrong that only shows with the data at hand.
        Stopped: by SIGTERM or Ctrl-C; what is finished is kept.
        SandboxError: a job failed; what is finished is kept.
    """
    configured_workflow(config)
    check_sources(config)
    first = Round.first(config)
    with Progress(console) as progress:
        storage = open_round(first, progress).storage  # a tracker that cannot be shows here
        refuse_if_running(storage, first.run)  # before a cluster is started for nothing
        connect(config.cluster.address, config.cluster.cpus)
        # Again, as now the cluster's drivers are known, and before the run's log is written to.
        refuse_if_running(storage, first.run)
        with stoppable(), observed(storage, first.run), RunState(storage, first) as state:
            _check_resources(config, progress)
            done = run_rounds(config, progress, state)
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


def run_rounds(config: RunConfig, progress: Progress, state: RunState) -> Done:
    """Run the workflow until its targets hold, or once; rounds that are done are only read.

    Raises:
        BadInput: what a round gave does not fit into the configuration of the next.
        SandboxError: a job failed; what is finished is kept.
    """
    this, unsent = Round.first(config), 0
    while True:
        state.begin(this)
        workflow = configured_workflow(this.config)
        context = open_round(this, progress)
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
    ok, within = False, None
    try:
        tracker.start(_run_info(context))
        outputs = run_workflow(workflow, context, partial(publish, context))
        ok = True
    except KeyboardInterrupt:
        state.end("STOPPED")  # first of all: this process may be killed in a moment
        within = FLUSH_SECONDS
        raise
    finally:
        unsent = tracker.finish(ok, within)
    return outputs, unsent


def open_context(config: RunConfig, progress: Progress) -> Context:
    """Return what the hooks of the first round work with; nothing is started or written yet."""
    return open_round(Round.first(config), progress)


def open_round(this: Round, progress: Progress) -> Context:
    """Return what the hooks of a round work with; nothing is started or written yet."""
    config, storage = this.config, Storage(this.config.storage)
    tracker = TRACKERS.get(config.tracking.type)(config.tracking, storage)
    # Every round is a run to the tracker; what they told it lies together, for `djsandbox sync`.
    recorded = Recorded(tracker, f"runs/{this.run}")
    return Context(config, storage, this.folder, recorded, progress)


def check_sources(config: RunConfig) -> None:
    """Look for the data of all sources before any of it is read.

    Raises:
        BadInput: with one line per source that is not there or not of the promised form.
    """
    sections = {"dataset": config.dataset, "evaluation.dataset": config.evaluation.dataset}
    if config.scorer is not None:
        sections["scorer.dataset"] = config.scorer.dataset
    problems = []
    for where, source in sections.items():
        try:
            SOURCES.get(source.type)(source).shards()
        except BadInput as error:
            problems.append(f"{where}: {error}")
    if problems:
        raise BadInput("\n".join(problems))


def _check_resources(config: RunConfig, progress: Progress) -> None:
    resources, statistics = config.trials.resources, config.statistics
    strategy = STRATEGIES.get(resources.strategy)
    strategy.check(resources.deepspeed, resources.gpus_per_worker)
    groups = {"statistics": statistics.group(), "trials.resources": bundles(resources)}
    if config.scorer is not None:
        groups["scorer.resources"] = [worker_bundle(config.scorer.resources)]
    for where, group in groups.items():
        if awaited := foreseen(group, where, config.cluster.wait):
            progress.note(awaited)


def _run_info(context: Context) -> RunInfo:
    config = context.config
    # Where a run is computed and stored does not make it another run.
    resolved = config.model_dump(
        mode="json", exclude={"storage", "cluster", "tracking", "statistics"}
    )
    for key in ("resources", "retries", "retry_diverged"):
        resolved["trials"].pop(key)
    for section in ("ingest", "scorer"):
        (resolved[section] or {}).pop("resources", None)
    trials, evaluation = config.trials, config.evaluation
    return RunInfo(
        name=config.name,
        key=content_id("run", resolved),
        params={
            "model": str(getattr(trials.model, "arch", trials.model.type)),
            "budget": str(trials.budget),
            "seeds": str(trials.seeds),
            "operators": str(len(config.operators)),
            "draw_share": str(config.pools.draw_share),
            "aggregate": evaluation.aggregate,
            "alpha": str(evaluation.alpha),
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

"""A whole run: open storage, cluster and tracker, run the workflow, say where the results are."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.console import Console
from rich.text import Text

from djsandbox_ray import hooks  # noqa: F401 - the hooks register themselves
from djsandbox_ray.analysis.confirmation import read_confirmation
from djsandbox_ray.analysis.ranking_csv import read_csv
from djsandbox_ray.cluster import check_placeable, connect
from djsandbox_ray.config import RunConfig
from djsandbox_ray.dataset.source import SOURCES
from djsandbox_ray.errors import BadInput
from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.identity import content_id
from djsandbox_ray.ledger import from_json, total
from djsandbox_ray.masking import without_secrets
from djsandbox_ray.records import Confirmation, Dataset, Ledger, Ranking, Report
from djsandbox_ray.reporting import (
    Progress,
    Unit,
    confirmation_section,
    costs_table,
    notes,
    ranking_table,
    section_table,
)
from djsandbox_ray.storage import Storage
from djsandbox_ray.tracking import TRACKERS, DatasetInput, Recorded, RunInfo
from djsandbox_ray.trials.gang import bundles
from djsandbox_ray.trials.strategies.share import check_settings
from djsandbox_ray.workflows.jobs import Workflow
from djsandbox_ray.workflows.rounds import Round, conclude
from djsandbox_ray.workflows.runner import run_workflow
from djsandbox_ray.workflows.state import RunState
from djsandbox_ray.workflows.workflow import configured_workflow


@dataclass(frozen=True)
class Done:
    """What a run has come to."""

    context: Context
    """Of its last round."""
    outputs: dict[str, Any]
    """Of its last round, by job."""
    unsent: int
    """How many things, of all rounds, could not be sent to the tracker."""


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


def run_sandbox(config: RunConfig, console: Console) -> dict[str, Any]:
    """Run the workflow of a configuration, or what is left of it, and print the verdicts.

    Returns:
        The outputs of all jobs by job id; of a workflow with rounds, those of the last.

    Raises:
        BadInput: something is wrong that only shows with the data at hand.
        SandboxError: a job failed; what is finished is kept.
    """
    configured_workflow(config)
    check_sources(config)
    with Progress(console) as progress:
        state = RunState(open_context(config, progress).storage, Round.first(config))
        ok = False
        try:
            connect(config.cluster.address, config.cluster.cpus)
            _check_resources(config)
            done = run_rounds(config, progress, state)
            ok = True
        finally:
            state.end(ok)
    _print_results(console, config, done)
    return done.outputs


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
        outputs, kept_back = _run_round(workflow, context)
        unsent += kept_back
        outcome = conclude(workflow.repeat, this, outputs)
        state.conclude(outcome)
        for line in (*map(str, outcome.judged), outcome.reason):
            if line:
                progress.note(f"round {this.number}: {line}")
        if outcome.following is None:
            return Done(context, outputs, unsent)
        this = outcome.following


def _run_round(workflow: Workflow, context: Context) -> tuple[dict[str, Any], int]:
    """Return the outputs, and how many things could not be sent to the tracker."""
    ok = False
    try:
        context.tracker.start(_run_info(context))
        outputs = run_workflow(workflow, context, partial(_publish, context))
        ok = True
    finally:
        unsent = context.tracker.finish(ok)
    return outputs, unsent


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


def _check_resources(config: RunConfig) -> None:
    resources = config.trials.resources
    check_settings(resources.strategy, resources.deepspeed, resources.gpus_per_worker)
    check_placeable(bundles(resources), "trials.resources")
    if config.scorer is not None:
        needed = config.scorer.resources
        bundle = {"CPU": needed.cpus_per_worker, "GPU": needed.gpus_per_worker}
        check_placeable([bundle], "scorer.resources")


def _run_info(context: Context) -> RunInfo:
    config = context.config
    # Where a run is computed and stored does not make it another run.
    resolved = config.model_dump(
        mode="json", exclude={"storage", "cluster", "tracking", "statistics"}
    )
    for key in ("resources", "retries", "retry_diverged"):
        resolved["trials"].pop(key)
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


def _publish(context: Context, output: Any) -> None:
    """Send what a job gave to the tracker; what was sent before changes nothing."""
    tracker, storage = context.tracker, context.storage
    if isinstance(output, Dataset):
        tracker.dataset(DatasetInput(output.id, output.id, output.table, output.rows))
    if isinstance(output, Ranking):
        data = storage.read_bytes(output.path)
        tracker.artifact("ranking.csv", data)
        verdicts = Counter(row.verdict for row in read_csv(data.decode()))
        shown = ("better", "worse", "undecided", "stopped", "failed")
        tracker.metrics({f"pools_{verdict}": float(verdicts[verdict]) for verdict in shown})
    if isinstance(output, Confirmation):
        tracker.artifact("confirmation.csv", storage.read_bytes(output.path))
    if isinstance(output, Ledger):
        tracker.artifact("ledger.json", storage.read_bytes(output.path))
        spent = total(from_json(storage.read_json(output.path)))
        costs = {
            "cost_samples": float(spent.samples),
            "cost_flops": spent.flops,
            "cost_cpu_seconds": spent.cpu_seconds,
            "cost_gpu_seconds": spent.gpu_seconds,
            "cost_wall_seconds": spent.wall_seconds,
        }
        tracker.metrics({name: value for name, value in costs.items() if value is not None})
    if isinstance(output, Report):
        tracker.artifact("report.html", storage.read_bytes(output.path))
        tracker.artifact("figures/ranking.png", storage.read_bytes(output.figure))


def _print_results(console: Console, config: RunConfig, done: Done) -> None:
    """Print the verdicts, what to know of them, what they cost, and where all of it is."""
    storage, tracker = done.context.storage, done.context.tracker
    unit = Unit.of(config.evaluation.aggregate)
    found = {type(output): output for output in done.outputs.values()}
    if isinstance(ranking := found.get(Ranking), Ranking):
        rows = read_csv(storage.read_bytes(ranking.path).decode())
        console.print()
        console.print(ranking_table(rows, unit))
        _print_lines(console, notes(rows))
    if isinstance(report := found.get(Report), Report):
        _print_lines(console, report.summary)
    if isinstance(confirmation := found.get(Confirmation), Confirmation):
        confirmed = read_confirmation(storage.read_bytes(confirmation.path).decode())
        console.print()
        console.print(section_table(confirmation_section(confirmed, unit)))
    if isinstance(ledger := found.get(Ledger), Ledger):
        console.print()
        console.print(costs_table(from_json(storage.read_json(ledger.path))))
    if isinstance(report, Report):
        places = {"report ": report.path, "picture": report.figure}
        shown = [f"{name} {storage.uri(path)}" for name, path in places.items()]
        _print_lines(console, map(without_secrets, shown))
    if tracker.ui_command:
        _print_lines(console, [f"runs    {tracker.ui_command}"])
    if done.unsent:
        again = f"djsandbox sync {config.name} --storage {shlex.quote(storage.shown)}"
        _print_lines(
            console,
            [
                f"{done.unsent} records could not be sent to the tracker; the same command sends "
                f"them, and so does: {again}"
            ],
        )


def _print_lines(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        console.print(Text(line), soft_wrap=True)

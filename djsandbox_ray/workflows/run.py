"""A whole run: open storage, cluster and tracker, run the workflow, say where the results are."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.text import Text

from djsandbox_ray import __version__, hooks  # noqa: F401 - the hooks register themselves
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
from djsandbox_ray.workflows.guard import refuse_if_running, this_process
from djsandbox_ray.workflows.runner import run_workflow
from djsandbox_ray.workflows.workflow import load_workflow

_PACKAGES = (
    "ray",
    "py-data-juicer",
    "torch",
    "open_clip_torch",
    "transformers",
    "pylance",
    "mlflow",
)


def open_context(config: RunConfig, progress: Progress) -> Context:
    """Return what hooks work with; nothing is started or written yet."""
    storage, folder = Storage(config.storage), f"runs/{config.name}"
    tracker = TRACKERS.get(config.tracking.type)(config.tracking, storage)
    return Context(config, storage, folder, Recorded(tracker, folder), progress)


def run_sandbox(config: RunConfig, console: Console) -> dict[str, Any]:
    """Run the workflow of a configuration, or what is left of it, and print the verdicts.

    Returns:
        The outputs of all jobs by job id.

    Raises:
        BadInput: something is wrong that only shows with the data at hand.
        SandboxError: a job failed; what is finished is kept.
    """
    workflow = load_workflow(config.workflow)
    check_sources(config)
    with Progress(console) as progress:
        context = open_context(config, progress)
        state = _begin(context)
        ok = False
        try:
            connect(config.cluster.address, config.cluster.cpus)
            _check_resources(config)
            context.tracker.start(_run_info(context))
            outputs = run_workflow(workflow, context, partial(_publish, context))
            ok = True
        finally:
            unsent = context.tracker.finish(ok)
            _end(context, state, ok)
    _print_results(console, context, outputs, unsent)
    return outputs


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


def _begin(context: Context) -> dict[str, Any]:
    refuse_if_running(context.storage, context.config.name)
    storage, config = context.storage, context.config
    resolved = config.model_dump(mode="json", by_alias=True)
    text = without_secrets(yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))
    storage.write_bytes(f"{context.folder}/config.yaml", text.encode())
    state = {
        "state": "RUNNING",
        "process": this_process(),
        "started": _now(),
        "finished": None,
        "versions": {"djsandbox-ray": __version__, **_versions()},
        "git_commit": _git_commit(),
        "seeds": list(range(config.trials.seeds)),
        "pool_seed": config.pools.seed,
    }
    storage.write_json(f"{context.folder}/run.json", state)
    return state


def _end(context: Context, state: dict[str, Any], ok: bool) -> None:
    ended = {**state, "state": "COMPLETED" if ok else "FAILED", "finished": _now()}
    context.storage.write_json(f"{context.folder}/run.json", ended)


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
            "workflow": config.workflow,
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


def _print_results(
    console: Console, context: Context, outputs: dict[str, Any], unsent: int
) -> None:
    """Print the verdicts, what to know of them, what they cost, and where all of it is."""
    storage = context.storage
    unit = Unit.of(context.config.evaluation.aggregate)
    found = {type(output): output for output in outputs.values()}
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
    if context.tracker.ui_command:
        _print_lines(console, [f"runs    {context.tracker.ui_command}"])
    if unsent:
        again = f"djsandbox sync {context.config.name} --storage {shlex.quote(storage.shown)}"
        _print_lines(
            console,
            [
                f"{unsent} records could not be sent to the tracker; the same command sends them, "
                f"and so does: {again}"
            ],
        )


def _print_lines(console: Console, lines: Iterable[str]) -> None:
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _git_commit() -> str | None:
    """Return the commit of the package's own checkout, if it runs from one."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return os.environ.get("DJSANDBOX_GIT_COMMIT")
    result = subprocess.run(
        shlex.split("git rev-parse HEAD"), cwd=here, capture_output=True, text=True, check=False
    )
    return result.stdout.strip() or None


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())

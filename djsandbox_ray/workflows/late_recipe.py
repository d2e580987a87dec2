"""The recipe of a run whose workflow writes none, made of what it has found: nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import Any, TypeVar

from rich.console import Console

from djsandbox_ray.config import checked
from djsandbox_ray.errors import BadInput, Damaged, SandboxError
from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.hooks.recipe import WriteRecipe
from djsandbox_ray.hooks.thresholds import Refine
from djsandbox_ray.records import (
    Confirmation,
    ConfirmationRow,
    Ledger,
    PoolKind,
    Pools,
    Ranking,
    RankingRow,
    Scorer,
    Statistics,
)
from djsandbox_ray.reporting.progress import Progress
from djsandbox_ray.settings.sections import Component
from djsandbox_ray.storage.lease import take
from djsandbox_ray.tracking.tracker import NullTracker
from djsandbox_ray.trials.ownership import lease_path
from djsandbox_ray.workflows.finished import FinishedRun

R = TypeVar("R")


def write_late_recipe(run: FinishedRun) -> None:
    """Write the recipe of a run's best pool, as the workflow ``probe_analyze_refine`` would.

    Args:
        run: that is finished and has no recipe.

    Raises:
        SandboxError: there can be none; says why.
        Held: the run is still running.
    """
    state = _state(run)
    if state != "COMPLETED":
        raise _none(run, f"it is not finished ({state}); the same `djsandbox run` goes on")
    ranking, pools = _one(run, Ranking, "ranking"), _one(run, Pools, "pools")
    statistics = _one(run, Statistics, "statistics")
    if ranking is None or pools is None or statistics is None:
        raise _none(run, "its workflow judges no pools")
    confirmation = _one(run, Confirmation, "confirmation")
    studies: dict[str, Any] = {
        "pools": pools,
        "ranking": ranking,
        "confirmation": confirmation,
        "combinations": dict(run.outputs(Pools)).get("combinations"),
        "combination_ranking": dict(run.outputs(Ranking)).get("combination_ranking"),
    }
    root = run.name.partition("/")[0]
    with take(run.storage, lease_path(root), f"the run {root!r}"):
        context, dataset = _context(run), run.dataset()
        try:
            thresholds = Refine(context).run(dataset, statistics, **studies)
            if thresholds is None:
                rows = run.storage.read_rows(RankingRow, ranking.path)
                looks = (
                    run.storage.read_rows(ConfirmationRow, confirmation.path)
                    if confirmation
                    else None
                )
                raise _none(run, _why_none(rows, looks, pools))
            WriteRecipe(context).run(
                dataset,
                statistics,
                _one(run, Scorer, "scorer"),
                thresholds=thresholds,
                ledger=_one(run, Ledger, "ledger"),
                **studies,
            )
        except Damaged:  # of the run: that the same run makes it again says the error
            raise
        except BadInput as error:  # such as an operator that can keep no range
            raise _none(run, str(error)) from error


def _why_none(
    rows: Sequence[RankingRow], looks: Sequence[ConfirmationRow] | None, pools: Pools
) -> str:
    buckets = [row for row in rows if row.kind is PoolKind.BUCKET]
    better = [row.pool for row in buckets if row.verdict == "better"]
    if not better:
        return f"none of its {len(buckets)} pools was called better than the controls"
    named = ", ".join(better)
    if looks is not None and not any(look.verdict == "better" for look in looks):
        return f"called better were {named}, but with fresh seeds none was better again"
    broken = [line for pool in pools.pools if pool.id in better for line in pool.breaks]
    if broken:
        return f"what is better breaks a policy: {'; '.join(broken)}"
    return f"what is better ({named}) leaves out no part of a statistic"


def _context(run: FinishedRun) -> Context:
    """Return what hooks work with; what they would say is said in another way."""
    document = {**run.settings(), "storage": run.storage.url}
    config = checked(document, f"{run.folder}/config.yaml", elsewhere=True)
    tracker = NullTracker(Component(type="none"), run.storage)
    progress = Progress(Console(file=StringIO()))
    return Context(config, run.storage, run.folder, tracker, progress)


def _state(run: FinishedRun) -> str:
    path = f"runs/{run.name.partition('/')[0]}/run.json"
    if not run.storage.exists(path):
        return "it has not begun"
    return str(run.storage.read_sealed(path).get("state"))


def _one(run: FinishedRun, kind: type[R], job: str) -> R | None:
    """Return the output of a job; of a user's workflow, the only one of its type."""
    found = dict(run.outputs(kind))
    return found.get(job) or (next(iter(found.values())) if len(found) == 1 else None)


def _none(run: FinishedRun, why: str) -> SandboxError:
    return SandboxError(f"the run {run.name!r} has no recipe: {why}")

"""The command ``djsandbox report``: what a run has found, told again; nothing is computed."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from djsandbox_ray.errors import SandboxError
from djsandbox_ray.records import (
    Acceptance,
    Confirmation,
    ConfirmationRow,
    Insights,
    Interactions,
    Ledger,
    Pool,
    Pools,
    Ranking,
    RankingRow,
    Recipe,
    Report,
)
from djsandbox_ray.reporting.ranking import Unit
from djsandbox_ray.reporting.summary import summary_line
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.workflows.ending import Results
from djsandbox_ray.workflows.finished import FinishedRun
from djsandbox_ray.workflows.publish import is_main

_SHOWN = (Ranking, Confirmation, Interactions, Ledger, Acceptance, Recipe, Insights, Report)


def show_report(name: str, url: str, summary: bool, console: Console) -> None:
    """Print what a run has found, as it did at its end.

    Args:
        name: of the run; ``<run>/round-1`` for a later round.
        url: the storage.
        summary: in one line instead.
        console: to print on.

    Raises:
        BadInput: there is no such run.
        SandboxError: it has found nothing yet.
    """
    run = FinishedRun(Storage(url), name)
    if summary:
        console.print(Text(summary_of(run)), soft_wrap=True)
        return
    found = [output for kind in _SHOWN for _, output in run.outputs(kind)]
    if not found:
        raise _nothing(run)
    Results(console, run.storage, found, unit_of(run)).show()


def summary_of(run: FinishedRun) -> str:
    """Return what a run has found in one line.

    Raises:
        SandboxError: it has no ranking yet.
    """
    ranking = main_ranking(run)
    if ranking is None:
        raise _nothing(run)
    confirmed = [
        row
        for _, one in run.outputs(Confirmation)
        for row in run.storage.read_rows(ConfirmationRow, one.path)
    ]
    rows = run.storage.read_rows(RankingRow, ranking.path)
    return summary_line(run.name, rows, confirmed, pools_of(run), unit_of(run))


def main_ranking(run: FinishedRun) -> Ranking | None:
    """Return the ranking of single operators; None where the run has none yet."""
    return next((one for _, one in run.outputs(Ranking) if is_main(one)), None)


def pools_of(run: FinishedRun) -> dict[str, Pool]:
    """Return the pools of all studies of a run by id; of one name, those of the first study."""
    found: dict[str, Pool] = {}
    for _, pools in sorted(run.outputs(Pools), key=lambda item: item[1].study is not None):
        for pool in pools.pools:
            found.setdefault(pool.id, pool)
    return found


def unit_of(run: FinishedRun) -> Unit:
    """Return what the changes of a run are measured in."""
    section = run.settings().get("evaluation")
    return Unit.of(section["aggregate"]) if section else Unit.PERCENT


def _nothing(run: FinishedRun) -> SandboxError:
    return SandboxError(
        f"the run {run.name!r} has found nothing yet: it is not finished (the same `djsandbox run` "
        "goes on), or its workflow judges no pools"
    )

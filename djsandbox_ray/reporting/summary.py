"""What a run found, in one line: for a chat, a log, a commit message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from djsandbox_ray.records import ConfirmationRow, Pool, RankingRow
from djsandbox_ray.reporting.answer import conclude, summary_text
from djsandbox_ray.reporting.ranking import Unit, notes, tally


def summary_line(
    name: str,
    rows: Sequence[RankingRow],
    confirmed: Sequence[ConfirmationRow],
    pools: Mapping[str, Pool],
    unit: Unit,
) -> str:
    """Say what to keep, what that is worth, how sure it is, and how the others did.

    Args:
        name: of the run.
        rows: the ranking of single operators.
        confirmed: the second look at the best; empty where there was none.
        pools: by id, for what the best one keeps.
        unit: what changes are measured in.
    """
    if any(row.self_test_failed for row in rows):  # then nothing is promised
        return f"{name}: {notes(rows)[0]}"
    found = conclude(rows, confirmed or None, pools)
    return f"{name}: {summary_text(found, unit)}. {tally(rows)}"

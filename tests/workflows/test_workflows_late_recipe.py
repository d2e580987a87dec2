"""The recipe of a run whose workflow writes none: made of what it found, or why there is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from factories import confirmation_row, minimal_document, ranking_row

from djsandbox_ray.errors import SandboxError
from djsandbox_ray.pools.build import construct
from djsandbox_ray.pools.config import PoolConfig
from djsandbox_ray.records import (
    Confirmation,
    ConfirmationRow,
    Dataset,
    Pools,
    Ranking,
    RankingRow,
    Statistic,
    Statistics,
)
from djsandbox_ray.stats.parts import PartReport, part, write_part
from djsandbox_ray.storage.lease import Held
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.workflows.finished import FinishedRun
from djsandbox_ray.workflows.late_recipe import write_late_recipe
from djsandbox_ray.workflows.state import alone

ROWS = 90
FOLDER = "runs/test"
STATS = "datasets/dataset-1/stats/op.parquet"
HOOKS = {
    "dataset": "ingest",
    "statistics": "statistics",
    "pools": "pools",
    "ranking": "judge",
    "confirmation": "confirmation",
}
BETTER = [ranking_row("text_len/high", 0.5, "better"), ranking_row("text_len/low", 0.1, "worse")]
Leave = Callable[..., FinishedRun]


@pytest.fixture
def leave(storage: Storage) -> Leave:
    """Leave in a storage what a run of single operators leaves there."""

    def left(
        rows: list[RankingRow] = BETTER,
        looks: list[ConfirmationRow] | None = None,
        *,
        state: str = "COMPLETED",
        operator: str = "text_length_filter",
        breaks: tuple[str, ...] = (),
        only: tuple[str, ...] = tuple(HOOKS),
        **settings: Any,
    ) -> FinishedRun:
        row_ids, values = np.arange(ROWS), np.arange(ROWS, dtype=np.float64)
        write_part(
            storage, part(STATS, 0), row_ids, {"text_len": values}, PartReport(ROWS, {}, 0, (), 0.1)
        )
        built = construct(row_ids, {"text_len": values}, PoolConfig(controls=5))
        path = f"{FOLDER}/assignments.parquet"
        storage.write_table(path, pa.table({"row_id": row_ids, **built.assignments}))
        made = tuple(replace(pool, breaks=breaks) for pool in built.pools)
        storage.write_rows(RankingRow, f"{FOLDER}/ranking.csv", rows)
        outputs: dict[str, Any] = {
            "dataset": Dataset("dataset-1", "datasets/dataset-1/samples.lance", ROWS, 0),
            "statistics": Statistics(
                "statistics-1", (Statistic("text_len", "text_len", operator, "op", STATS),)
            ),
            "pools": Pools("pools-1", path, made, built.size, built.draw_size, built.eligible, 0),
            "ranking": Ranking("ranking-1", f"{FOLDER}/ranking.csv"),
        }
        if looks is not None:
            storage.write_rows(ConfirmationRow, f"{FOLDER}/confirmation.csv", looks)
            outputs["confirmation"] = Confirmation("confirmation-1", f"{FOLDER}/confirmation.csv")
        for job, output in outputs.items():
            if job in only:
                marker = {"output": asdict(output), "cost": {"hook": HOOKS[job]}}
                storage.write_sealed(f"{FOLDER}/jobs/{job}.json", marker)
        document = minimal_document(storage="/elsewhere", operators=[operator], **settings)
        storage.write_bytes(f"{FOLDER}/config.yaml", yaml.safe_dump(document).encode())
        storage.write_sealed(f"{FOLDER}/run.json", {"state": state})
        return FinishedRun(storage, "test")

    return left


def test_what_won_becomes_a_recipe(leave: Leave, storage: Storage) -> None:
    run = leave()
    write_late_recipe(run)
    (found,) = run.evidence()
    assert found["pool"]["id"] == "text_len/high"
    assert found["retention"]["rows"] == 30
    (entry,) = yaml.safe_load(storage.read_bytes(found["recipe"]))["process"]
    assert entry["text_length_filter"]["min_len"] == 60
    assert any("confirmed" in line for line in found["caveats"])


def test_what_was_confirmed_is_what_counts(leave: Leave) -> None:
    rows = [ranking_row("text_len/low", 0.9, "better"), ranking_row("text_len/high", 0.5, "better")]
    looks = [
        confirmation_row("text_len/low", 0.0, "undecided"),
        confirmation_row("text_len/high", 0.4, "better"),
    ]
    run = leave(rows, looks)
    write_late_recipe(run)
    assert run.evidence()[0]["pool"]["id"] == "text_len/high"
    assert run.evidence()[0]["effect"]["confirmed"]["change"] == 0.4


@pytest.mark.parametrize(
    ("left", "why"),
    [
        ({"state": "STOPPED"}, r"it is not finished \(STOPPED\); the same `djsandbox run` goes on"),
        ({"only": ("dataset", "statistics")}, "its workflow judges no pools"),
        (
            {"rows": [ranking_row("text_len/high", 0.0, "undecided")]},
            "none of its 1 pools was called better",
        ),
        (
            {"looks": [confirmation_row("text_len/high", 0.0, "undecided")]},
            "called better were text_len/high, but with fresh seeds none was better again",
        ),
        (
            {
                "breaks": ("too long",),
                "policies": [{"statistic": "text_len", "mean_at_most": 10}],
            },
            "breaks a policy: too long",
        ),
        (
            {"rows": [ranking_row(f"text_len/{b}", 0.1) for b in ("low", "middle", "high")]},
            "leaves out no part of a statistic",
        ),
    ],
)
def test_why_there_is_none_is_said(leave: Leave, left: dict[str, Any], why: str) -> None:
    run = leave(**left)
    with pytest.raises(SandboxError, match=f"the run 'test' has no recipe: .*{why}") as caught:
        write_late_recipe(run)
    assert caught.value.exit_code == 1
    assert not run.evidence()


def test_a_run_that_still_runs_is_left_alone(leave: Leave, storage: Storage) -> None:
    run = leave()
    with alone(storage, "test"), pytest.raises(Held):
        write_late_recipe(run)
    assert not run.evidence()

"""Plans, the store of records, and their tables."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from djsandbox_ray.pools.build import construct
from djsandbox_ray.pools.config import PoolConfig
from djsandbox_ray.pools.draws import members
from djsandbox_ray.records import (
    Pool,
    PoolKind,
    Pools,
    RungReport,
    TrialRecord,
    TrialSpec,
    TrialState,
)
from djsandbox_ray.storage import Storage
from djsandbox_ray.trials.clip.family import Clip, ClipConfig
from djsandbox_ray.trials.config import TrialsConfig
from djsandbox_ray.trials.plan import plan_trials
from djsandbox_ray.trials.store import TrialStore
from djsandbox_ray.trials.tables import curves_table, read_records, trials_table

ROWS = 900


def _plan(
    names: list[str],
    budget: int = 1000,
    learning_rate: float = 1e-3,
    evaluation: str = "e",
    dataset: str = "d",
) -> list[TrialSpec]:
    row_ids = np.arange(ROWS, dtype=np.int64)
    columns = {name: np.random.default_rng(len(name)).normal(size=ROWS) for name in names}
    built = construct(row_ids, columns, PoolConfig(size=300))
    pools = Pools("p", "a", built.pools, built.size, built.draw_size, 0)

    def rows(pool: Pool) -> NDArray[np.int64]:
        return members(row_ids, built.assignments[pool.column], pool)

    model = ClipConfig(type="clip", learning_rate=learning_rate)
    config = TrialsConfig(model=model, budget=budget, seeds=3)
    return plan_trials(dataset, pools, rows, config, Clip(model), [evaluation])


def test_every_pool_meets_every_seed_once_and_controls_go_first() -> None:
    specs = _plan(["a", "bb"])
    assert len({spec.id for spec in specs}) == len(specs)
    assert len({(spec.pool, spec.seed) for spec in specs}) == len(specs)
    assert [spec.seed for spec in specs] == sorted(spec.seed for spec in specs)
    assert all(spec.pool.startswith("control/") for spec in specs[:5])


def test_a_new_operator_adds_trials_and_keeps_the_others() -> None:
    before, after = _plan(["a", "bb"]), _plan(["a", "bb", "ccc"])
    assert {spec.id for spec in before} < {spec.id for spec in after}
    new = [spec.pool for spec in after if spec.id not in {other.id for other in before}]
    assert {pool.split("/")[0] for pool in new} == {"ccc"} | ({"control"} & {p[:7] for p in new})


@pytest.mark.parametrize(
    "change",
    [{"budget": 1001}, {"learning_rate": 2e-3}, {"evaluation": "other"}, {"dataset": "other"}],
)
def test_what_decides_a_result_decides_its_id(change: dict[str, object]) -> None:
    before = {spec.id for spec in _plan(["a"])}
    assert not before & {spec.id for spec in _plan(["a"], **change)}  # type: ignore[arg-type]


@pytest.mark.parametrize("rungs", [[0.5, 0.25], [0.0], [1.0], [0.5, 0.5]])
def test_rungs_are_increasing_fractions(rungs: list[float]) -> None:
    with pytest.raises(ValidationError, match="rungs are fractions"):
        TrialsConfig(model=ClipConfig(type="clip"), budget=10, rungs=rungs)


def _record(state: TrialState, trial: str, samples: tuple[int, ...]) -> TrialRecord:
    reports = tuple(RungReport(n, 0.5, {"m": 0.1 * n, "k/l": 1.0}, 1.5, 0.5, 77) for n in samples)
    spec = TrialSpec(trial, "text_len/low", 1, "draw", 20)
    error = "why" if state is TrialState.FAILED else None
    return TrialRecord(spec, state, reports, error)


RECORDS = [
    _record(TrialState.COMPLETED, "t1", (10, 20)),
    _record(TrialState.FAILED, "t2", (10,)),
    _record(TrialState.FAILED, "t3", ()),
]


def test_only_settled_trials_are_found_again(storage: Storage) -> None:
    store = TrialStore(storage)
    for record in RECORDS:
        store.save(record)
    assert store.settled(RECORDS[0].spec) == RECORDS[0]
    assert store.settled(RECORDS[1].spec) is None, "a crashed trial is worth another try"
    assert store.settled(TrialSpec("never", "p", 0, "d", 1)) is None
    diverged = replace(RECORDS[1], diverged=True)
    store.save(diverged)
    assert store.settled(diverged.spec) == diverged
    storage.write_json("trials/t1.json", {"from": "another version"})
    assert store.settled(RECORDS[0].spec) is None


def test_tables_hold_everything_and_give_it_back() -> None:
    pool = Pool("text_len/low", PoolKind.BUCKET, "text_len", 0, 300, "h", "text_len", "low")
    trials = trials_table(RECORDS, {pool.id: pool}, flops_per_sample=2.0)
    curves = curves_table(RECORDS)
    assert read_records(trials, curves) == RECORDS
    frame = trials.to_pandas().set_index("trial")
    assert frame.loc["t1", "flops"] == 40
    assert frame.loc["t1", "metric:m"] == pytest.approx(2.0)
    assert pd.isna(frame.loc["t3", "samples"])
    assert curves.num_rows == 3


def test_tables_without_a_single_report() -> None:
    pool = Pool("text_len/low", PoolKind.BUCKET, "text_len", 0, 300, "h")
    trials = trials_table(RECORDS[2:], {pool.id: pool}, None)
    assert read_records(trials, curves_table(RECORDS[2:])) == RECORDS[2:]

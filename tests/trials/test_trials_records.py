"""Plans, the store of records, and their tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from damages import DAMAGES

from djsandbox_ray.pools.build import construct
from djsandbox_ray.pools.config import PoolConfig
from djsandbox_ray.pools.draws import Part
from djsandbox_ray.records import (
    Pool,
    PoolKind,
    Pools,
    RungReport,
    TrialRecord,
    TrialSpec,
    TrialState,
)
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.clip.family import Clip, ClipConfig
from djsandbox_ray.trials.trial_records import (
    TrialStore,
    curves_table,
    plan_trials,
    read_records,
    trials_table,
)

ROWS = 900


def _plan(
    names: list[str],
    budget: int = 1000,
    learning_rate: float = 1e-3,
    evaluation: str = "e",
    dataset: str = "d",
    seeds: Sequence[int] = (0, 1, 2),
) -> list[TrialSpec]:
    row_ids = np.arange(ROWS, dtype=np.int64)
    columns = {name: np.random.default_rng(len(name)).normal(size=ROWS) for name in names}
    built = construct(row_ids, columns, PoolConfig(size=300))
    pools = Pools(
        "p", "a", built.pools, built.size, built.draw_size, eligible=built.eligible, seed=0
    )

    def column(name: str) -> list[Part]:
        codes = built.assignments[name]
        return [(row_ids[:400], codes[:400]), (row_ids[400:], codes[400:])]

    model = Clip(ClipConfig(type="clip", learning_rate=learning_rate)).identity()
    return plan_trials(
        dataset, pools, column, seeds=seeds, budget=budget, model=model, evaluation=[evaluation]
    )


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


def test_fresh_seeds_are_fresh_trials() -> None:
    first, fresh = _plan(["a"]), _plan(["a"], seeds=(3, 4))
    assert {spec.seed for spec in fresh} == {3, 4}
    assert not {spec.id for spec in first} & {spec.id for spec in fresh}
    assert {spec.id for spec in _plan(["a"], seeds=(2,))} < {spec.id for spec in first}


def _record(state: TrialState, trial: str, samples: tuple[int, ...]) -> TrialRecord:
    reports = tuple(RungReport(n, 0.5, {"m": 0.1 * n, "k/l": 1.0}, 1.5, 0.5, 77) for n in samples)
    spec = TrialSpec(trial, "text_len/low", 1, "draw", 20)
    error = "why" if state is TrialState.FAILED else None
    return TrialRecord(
        spec,
        state,
        reports,
        error,
        attempts=2,
        held_seconds=1.25,
        owner="run/trials",
        numerics={"device": "cpu", "torch": "2.14"},
    )


RECORDS = [
    _record(TrialState.COMPLETED, "t1", (10, 20)),
    _record(TrialState.FAILED, "t2", (10,)),
    _record(TrialState.FAILED, "t3", ()),
]


@pytest.mark.parametrize("damage", [*DAMAGES, "tripled"])
def test_a_record_that_is_damaged_is_trained_again_and_said(
    storage: Storage, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    store, path = TrialStore(storage), "trials/t1.json"
    store.save(RECORDS[0])
    if damage == "tripled":  # by hand: the number of a verdict
        written = storage.read_json(path)
        written["reports"][-1]["metrics"]["m"] *= 3
        storage.write_json(path, written)
    else:
        DAMAGES[damage](Path(storage.uri(path)))
    assert store.load(RECORDS[0].spec) is None
    if damage != "gone":
        assert f"{path} is damaged" in caplog.text
        assert "text_len/low seed 1 is trained again" in caplog.text
    store.save(RECORDS[0])
    assert store.load(RECORDS[0].spec) == RECORDS[0]


def test_the_record_of_another_trial_does_not_count(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    """As where files were copied: its checksum is right."""
    store = TrialStore(storage)
    store.save(RECORDS[0])
    storage.move("trials/t1.json", "trials/t2.json")
    assert store.load(RECORDS[1].spec) is None
    assert "trials/t2.json is damaged or of another version: it is the record of t1" in caplog.text


@pytest.mark.parametrize("lacking", ["checksum", "numerics"])
def test_a_record_of_an_earlier_version_counts(storage: Storage, lacking: str) -> None:
    written = asdict(RECORDS[0])
    if lacking == "numerics":
        del written["numerics"]
    storage.write_json("trials/t1.json", written)
    expected = replace(RECORDS[0], numerics={}) if lacking == "numerics" else RECORDS[0]
    assert TrialStore(storage).load(RECORDS[0].spec) == expected


def test_the_store_gives_back_what_any_run_has_left(storage: Storage) -> None:
    store = TrialStore(storage)
    for record in RECORDS:
        store.save(record)
        assert store.load(record.spec) == record
    assert store.load(TrialSpec("never", "p", 0, "d", 1)) is None
    renamed = replace(RECORDS[0].spec, pool="another/name")
    assert store.load(renamed) == replace(RECORDS[0], spec=renamed)
    storage.write_json("trials/t1.json", {"from": "another version"})
    assert store.load(RECORDS[0].spec) is None


def test_what_would_come_again_is_settled() -> None:
    completed, crashed, _ = RECORDS
    assert completed.settled
    assert not crashed.settled, "a crashed trial is worth another try"
    assert replace(crashed, diverged=True).settled
    assert not replace(completed, state=TrialState.STOPPED).settled
    assert not replace(completed, state=TrialState.RUNNING).settled


def test_tables_hold_everything_and_give_it_back() -> None:
    pool = Pool("text_len/low", PoolKind.BUCKET, "text_len", 0, 300, "h", "text_len", "low")
    trials = trials_table(RECORDS, {pool.id: pool}, lambda seen: 2.0 * seen)
    curves = curves_table(RECORDS)
    assert read_records(trials, curves) == RECORDS
    diverged = [replace(RECORDS[1], diverged=True)]
    table = trials_table(diverged, {pool.id: pool}, None)
    assert read_records(table, curves_table(diverged)) == diverged
    frame = trials.to_pandas().set_index("trial")
    assert frame.loc["t1", "flops"] == 40
    assert frame.loc["t1", "metric:m"] == pytest.approx(2.0)
    assert list(frame["numerics:torch"]) == ["2.14"] * 3
    assert pd.isna(frame.loc["t3", "samples"])
    assert curves.num_rows == 3


def test_stages_and_terms_of_a_loss_are_in_the_tables() -> None:
    pool = Pool("text_len/low", PoolKind.BUCKET, "text_len", 0, 300, "h")
    plain = RECORDS[0]
    reports = tuple(replace(one, terms={"nll": 0.5, "head/loss": 2.0}) for one in plain.reports)
    staged = replace(plain, spec=replace(plain.spec, total=plain.spec.budget + 30), reports=reports)
    assert plain.final is not None
    assert staged.final is None, "the last stage is ahead"
    records = [staged, *RECORDS[1:]]
    trials, curves = trials_table(records, {pool.id: pool}, None), curves_table(records)
    assert read_records(trials, curves) == records
    assert curves["term:head/loss"].to_pylist() == [2.0, 2.0, None]
    without = trials.drop_columns(["total"])
    assert read_records(without, curves)[1:] == RECORDS[1:]
    assert "total" not in trials_table(RECORDS, {pool.id: pool}, None).column_names


def test_tables_of_an_earlier_version_and_of_records_from_both() -> None:
    pool = Pool("text_len/low", PoolKind.BUCKET, "text_len", 0, 300, "h")
    for records in (
        [replace(record, numerics={}) for record in RECORDS],
        [replace(RECORDS[0], numerics={}), *RECORDS[1:]],
    ):
        trials = trials_table(records, {pool.id: pool}, None)
        assert read_records(trials, curves_table(records)) == records


def test_tables_without_a_single_report() -> None:
    pool = Pool("text_len/low", PoolKind.BUCKET, "text_len", 0, 300, "h")
    trials = trials_table(RECORDS[2:], {pool.id: pool}, None)
    assert read_records(trials, curves_table(RECORDS[2:])) == RECORDS[2:]

"""Counts and means kept up record by record are those of all records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from statistics import fmean

import pytest
from factories import pool, rung_report, trial_record
from hypothesis import given
from hypothesis import strategies as st

from djsandbox_ray.records import PoolKind, TrialRecord, TrialState
from djsandbox_ray.telemetry.standing import Standing, samples_of

POOLS = {
    name: pool(name)
    for name in ("control/0", "control/1", "s/low", "s/high", "t/low", "self_test/x")
}
BUDGET = 100
CHANGES = st.lists(
    st.tuples(
        st.sampled_from(sorted(POOLS)),
        st.integers(0, 1),
        st.sampled_from(TrialState),
        st.sampled_from([(), (50,), (50, BUDGET)]),
        st.floats(0.1, 9, allow_nan=False),
    ),
    max_size=20,
)


def _best_change(records: Mapping[str, TrialRecord]) -> float | None:
    found: dict[str, list[float]] = {}
    for record in records.values():
        if record.final:
            found.setdefault(record.spec.pool, []).append(record.final.metrics["a"])
    means = {name: fmean(values) for name, values in found.items()}
    asked, controls = (
        [mean for name, mean in means.items() if POOLS[name].kind is kind]
        for kind in (PoolKind.BUCKET, PoolKind.CONTROL)
    )
    return (max(asked) - fmean(controls)) / fmean(controls) if asked and controls else None


@given(CHANGES)
def test_differences_come_to_what_all_records_come_to(changes: list[tuple]) -> None:
    now, records = Standing(POOLS, ["a"]), {}
    for name, seed, state, rungs, score in changes:
        reports = tuple(rung_report(samples, {"a": score, "b": 1.0}) for samples in rungs)
        record = trial_record(name, seed, state=state, reports=reports, budget=BUDGET)
        records[record.spec.id] = record
        now.take(record)
        assert now.known == len(records)
        assert now.used == sum(map(samples_of, records.values()))
        for one in TrialState:
            assert now.count(one) == sum(entry.state is one for entry in records.values())
        running = [entry for entry in records.values() if entry.state is TrialState.RUNNING]
        now.place([entry.spec.id for entry in running if entry.spec.seed])
        assert now.at_work == sum(entry.spec.seed for entry in running)
        assert now.at_a_rung == sum(
            not entry.spec.seed and bool(entry.reports) for entry in running
        )
        assert now.best_change == pytest.approx(_best_change(records))


def _at(name: str, seed: int, *scores: float, state=TrialState.RUNNING) -> TrialRecord:
    """Return a trial that has come to so many rungs of 25 samples, with these scores."""
    found = tuple(rung_report(25 * (place + 1), score) for place, score in enumerate(scores))
    return trial_record(name, seed, state=state, reports=found, budget=BUDGET)


def test_the_leader_changes_with_its_scores() -> None:
    now = Standing(POOLS, None)
    assert now.leader is None
    first = trial_record("s/low", 0, 0.9)
    for record in (first, trial_record("s/high", 0, 0.8), trial_record("self_test/x", 0, 5.0)):
        now.take(record)
    assert now.leader == ("s/low", BUDGET)
    now.take(trial_record("s/low", 1, 0.1))
    assert now.leader == ("s/high", BUDGET)
    now.take(replace(first, reports=(), state=TrialState.RUNNING))
    assert now.leader == ("s/high", BUDGET)


def test_the_leader_leads_while_it_waits_at_a_rung() -> None:
    now = Standing(POOLS, None)
    for record in (_at("s/low", 0, 0.9), _at("s/high", 0, 0.8), _at("t/low", 0, 0.7)):
        now.take(record)
    assert now.leader == ("s/low", 25)
    # One that has run ahead is not compared with itself.
    now.take(_at("t/low", 0, 0.7, 0.75))
    assert now.leader == ("s/low", 25)
    now.take(_at("s/high", 0, 0.8, 0.85))
    assert now.leader == ("s/high", 50), "half of the pools have come there"
    # Those that are given up hold up nobody.
    now.take(_at("s/high", 0, 0.8, 0.85, state=TrialState.STOPPED))
    now.take(_at("t/low", 0, 0.7, 0.75, state=TrialState.STOPPED))
    assert now.leader == ("s/low", 25)

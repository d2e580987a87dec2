"""A study beside other drivers of its run: what one that was taken over does not do any more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from factories import lost_lease
from planted_world import EVALUATION, TRAIN, context_of, first_pools

from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.hooks.study import Inputs, Study
from djsandbox_ray.records import RungReport, StudyPlan, TrialRecord, TrialSpec, TrialState
from djsandbox_ray.storage.lease import Lost, take
from djsandbox_ray.storage.own import MARKER, marker
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.ownership import lease_path
from djsandbox_ray.trials.stopping.stopping import Competition, Decision

Act = Callable[..., object]
REPORT = RungReport(20, 1.0, {"score": 1.0}, 1.0, 0.0, 1)


@pytest.fixture
def context(storage: Storage) -> Context:
    return context_of(storage)[0]


def test_who_was_taken_over_while_it_waited_for_nodes_does_not_go_on(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("djsandbox_ray.hooks.hook.await_room", lambda *_: None)
    context.await_room([{"CPU": 1}], "trials.resources")
    lost = replace(context, lease=lost_lease(context.storage, "planted"))
    with pytest.raises(Lost):
        lost.await_room([{"CPU": 1}], "trials.resources")


def study_of(context: Context) -> Study:
    plan = StudyPlan("trials", (0,), race=True)
    pools = first_pools(context)
    return Study(context, plan, Inputs(TRAIN, EVALUATION, replace(pools, pools=pools.pools[:1])))


def save(*, specs: Sequence[TrialSpec], save: Act, **_: object) -> None:
    save(TrialRecord(specs[0], TrialState.COMPLETED, (REPORT,)))


def decide(*, competition: Competition, **_: object) -> None:
    competition.on_decision(Decision(5, (), (), {}, None, "none are there"))


@pytest.mark.parametrize("act", [save, decide])
def test_who_is_taken_over_while_it_trains_keeps_nothing_more(
    context: Context, monkeypatch: pytest.MonkeyPatch, act: Act
) -> None:
    """Another decision than the one that its successor acts upon would stay."""
    storage = context.storage

    def trained(
        specs: object, shared: object, stopping: object, race: object, *_: object, **more: Act
    ) -> None:
        lease.lost = "the run was taken over"
        act(specs=specs, competition=race, save=more["save"])

    monkeypatch.setattr("djsandbox_ray.hooks.study.run_trials", trained)
    with take(storage, lease_path("planted"), "the run") as lease, pytest.raises(Lost):
        study_of(replace(context, lease=lease)).run()
    assert not storage.exists("trials")
    assert not storage.exists(f"{context.folder}/race")


def test_who_was_taken_over_leaves_the_tables_and_files_of_its_successor(context: Context) -> None:
    storage, left = context.storage, f"{context.folder}/tune-1"
    study = study_of(replace(context, lease=lost_lease(context.storage, "planted")))
    storage.write_bytes(f"{left}/{MARKER}", marker("files of Tune", left).encode())
    with pytest.raises(Lost):
        study.run()
    assert storage.exists(left)
    with pytest.raises(Lost):
        study.write([TrialRecord(study.specs[0], TrialState.COMPLETED, (REPORT,))])
    assert not storage.exists(f"{context.folder}/trials.parquet")

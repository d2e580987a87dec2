"""A study: what its trials are named after, and what one that was taken over leaves alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from factories import lost_lease
from planted_world import EVALUATION, TRAIN, context_of, first_pools

from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.hooks.results import finished
from djsandbox_ray.hooks.study import Inputs, Study, study_identity
from djsandbox_ray.hooks.train import Train
from djsandbox_ray.records import RungReport, StudyPlan, TrialRecord, TrialSpec, TrialState
from djsandbox_ray.storage.lease import Lost, take
from djsandbox_ray.storage.own import MARKER, marker
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.ownership import lease_path
from djsandbox_ray.trials.stopping.stopping import Competition, Decision

MODEL = {"type": "planted_world:Planted"}
Act = Callable[..., object]
REPORT = RungReport(20, 1.0, {"score": 1.0}, 1.0, 0.0, 1)


def trained(storage: Storage, **resources: Any) -> list[TrialRecord]:
    """Train the study on these resources, and read its tables."""
    trials = {"model": MODEL, "budget": 20, "seeds": 2, "resources": resources}
    context, _ = context_of(storage, trials=trials)
    return finished(context, Train(context).run(TRAIN, EVALUATION, first_pools(context)))


def test_another_kind_of_device_is_another_trial_and_records_say_which(storage: Storage) -> None:
    ids: dict[str, set[str]] = {}
    for gpus, device in ((0, "cpu"), (1, "cuda")):
        records = trained(storage, gpus_per_worker=gpus)
        ids[device] = {record.spec.id for record in records}
        for record in records:
            assert record.numerics == {"device": device}
            kept = storage.read_sealed(f"trials/{record.spec.id}.json")
            assert kept["numerics"] == record.numerics
    assert not ids["cpu"] & ids["cuda"]


@pytest.mark.parametrize("resources", [{"gpus_per_worker": 0.25}, {"cpus_per_worker": 4}])
def test_how_much_of_a_device_makes_no_other_trial(
    storage: Storage, resources: dict[str, float]
) -> None:
    """A share of a GPU is a GPU; all else of the resources is no part of a study."""
    gpus = 1 if "gpus_per_worker" in resources else 0
    found = [
        study_identity(context_of(storage, trials=trials)[0].config)
        for trials in (
            {"model": {"type": "clip"}, "budget": 20, "resources": {"gpus_per_worker": gpus}},
            {"model": {"type": "clip"}, "budget": 20, "resources": resources},
        )
    ]
    assert found[0] == found[1]
    on_cpus = {"model": {"type": "clip"}, "budget": 20}
    assert (study_identity(context_of(storage, trials=on_cpus)[0].config) == found[0]) is (not gpus)


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

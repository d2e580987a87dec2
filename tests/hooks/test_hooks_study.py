"""A study: what its trials are named after, and what one that was taken over leaves alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from factories import lost_lease
from planted_world import EVALUATION, TRAIN, context_of, first_pools

from djsandbox_ray.hooks.conduct import Conduct
from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.hooks.plans import self_tests, spoils_of
from djsandbox_ray.hooks.results import blind_metrics, finished
from djsandbox_ray.hooks.study import (
    Inputs,
    Study,
    configured_family,
    study_identity,
    trial_samples,
)
from djsandbox_ray.hooks.train import Train
from djsandbox_ray.ledger.cost import fixed_share
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


EARLY = {"type": "staged_family:Early"}
STAGED = {"model": EARLY, "budget": 20, "seeds": [3, 8]}


def test_samples_and_operations_of_all_stages_are_planned_kept_and_paid_for(
    storage: Storage,
) -> None:
    """Two seeds, 20 samples on the pool and 60 on fixed data, 10 and 50 operations each."""
    context, _ = context_of(storage, trials=STAGED)
    pools = first_pools(context)
    hook = Train(context)
    arms = len(pools.pools)
    planned = hook.ahead(pools=pools)
    assert (planned.trials, planned.samples) == (2 * arms, 2 * arms * 80)
    study = hook.study(TRAIN, EVALUATION, pools)
    assert study.rungs == (35, 50, 80), "a quarter and a half of what is behind the first stage"
    assert {(spec.budget, spec.total, spec.seed) for spec in study.specs} == {
        (20, 80, 3),
        (20, 80, 8),
    }
    records = finished(context, hook.run(TRAIN, EVALUATION, pools))
    assert all(record.final is not None for record in records)
    assert {report.terms["budget"] for record in records for report in record.reports} == {20.0}
    table = storage.read_table("runs/planted/trials.parquet")
    assert set(table["total"].to_pylist()) == {80}
    assert set(table["flops"].to_pylist()) == {20 * 10.0 + 60 * 50.0}
    trials = len(records)
    assert hook.spent.samples == 80 * trials
    assert hook.spent.fixed_samples == 60 * trials
    assert hook.spent.flops == 3200 * trials
    assert hook.spent.fixed_flops == 3000 * trials
    assert fixed_share(hook.spent) == pytest.approx(3000 / 3200)


def test_a_model_of_one_stage_has_nothing_on_fixed_data(storage: Storage) -> None:
    context, _ = context_of(storage)
    hook = Train(context)
    hook.run(TRAIN, EVALUATION, first_pools(context))
    assert fixed_share(hook.spent) == 0
    assert "total" not in storage.read_table("runs/planted/trials.parquet").column_names


def test_the_plan_counts_all_stages_with_their_own_operations(storage: Storage) -> None:
    context, _ = context_of(storage, trials=STAGED)
    config = context.config
    family = configured_family(config)
    assert trial_samples(config) == 80
    assert trial_samples(config, budget=40) == 100
    assert family.flops(20) == 3200
    assert family.mean_flops(20) == 40


def test_self_tests_are_those_of_the_model(storage: Storage) -> None:
    for name, spoils in (("Early", ("captions",)), ("Filmed", ("captions", "frames"))):
        trials = {**STAGED, "model": {"type": f"staged_family:{name}"}}
        config = context_of(storage, trials=trials)[0].config
        assert spoils_of(config) == spoils
        assert self_tests(config) == 1 + len(spoils)


def test_who_can_show_what_is_spoilt_is_asked_of_the_evaluators(storage: Storage) -> None:
    metrics = [{"type": "retrieval", "k": [1]}, {"type": "staged_family:Unprompted"}]
    shapes = {"type": "shapes", "samples": 10}
    both = context_of(storage, evaluation={"dataset": shapes, "metrics": metrics})[0]
    assert blind_metrics(both.config) == {"captions": ["unprompted/sharp"], "frames": []}
    unnamed = context_of(storage)[0]
    assert blind_metrics(unnamed.config) == {"captions": [], "frames": []}, "it names no metrics"


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

    monkeypatch.setattr("djsandbox_ray.trials.engine.run_trials", trained)
    with take(storage, lease_path("planted"), "the run") as lease, pytest.raises(Lost):
        Conduct(study_of(replace(context, lease=lease))).run()
    assert not storage.exists("trials")
    assert not storage.exists(f"{context.folder}/race")


def test_who_was_taken_over_leaves_the_tables_and_files_of_its_successor(context: Context) -> None:
    storage, left = context.storage, f"{context.folder}/tune-1"
    study = study_of(replace(context, lease=lost_lease(context.storage, "planted")))
    storage.write_bytes(f"{left}/{MARKER}", marker("files of Tune", left).encode())
    with pytest.raises(Lost):
        Conduct(study).run()
    assert storage.exists(left)
    with pytest.raises(Lost):
        Conduct(study).write([TrialRecord(study.specs[0], TrialState.COMPLETED, (REPORT,))])
    assert not storage.exists(f"{context.folder}/trials.parquet")

"""A study says in its records what its trials are named after."""

from __future__ import annotations

from typing import Any

import pytest
from planted_world import EVALUATION, TRAIN, context_of, first_pools

from djsandbox_ray.hooks.results import finished
from djsandbox_ray.hooks.study import study_identity
from djsandbox_ray.hooks.train import Train
from djsandbox_ray.records import TrialRecord
from djsandbox_ray.storage.store import Storage

MODEL = {"type": "planted_world:Planted"}


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

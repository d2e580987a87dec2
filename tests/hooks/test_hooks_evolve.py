"""A chain of trainings: each goes on from what the one before has kept, seed by seed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from damages import DAMAGES
from evolving_world import LEARNT, STAGES, TOLD, TRAINED, hook_of, run
from planted_world import context_of, ranking_of

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.hooks.evolve import Evolve
from djsandbox_ray.hooks.hook import HOOKS
from djsandbox_ray.records import Evolution, EvolutionMetric, EvolutionRow, Scorer
from djsandbox_ray.storage.rows import from_csv
from djsandbox_ray.storage.store import Storage


def rows(storage: Storage, found: Evolution) -> list[EvolutionRow]:
    return from_csv(EvolutionRow, storage.read_bytes(found.path).decode())


def test_each_stage_goes_on_from_the_one_before_within_its_seed(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    hook = hook_of(storage)
    TRAINED.clear()
    found = run(hook)
    assert HOOKS.get("evolve") is Evolve
    assert hook.keep(found)
    assert [seed for seed, _ in TRAINED] == [0, 1] * 3
    levels = [level for _, level in TRAINED]
    for seed in (0, 1):
        chain = levels[seed::2]
        assert chain[0] < chain[1] < chain[2]
        kept = tmp_path / found.models["third"] / str(seed) / LEARNT
        assert json.loads(kept.read_text())["level"] == chain[2]
    told = rows(storage, found)
    assert [(one.stage, one.pool, one.init, one.teacher) for one in told] == [
        ("first", "control/0", "base", "base"),
        ("second", "a/high", "first", "first"),
        ("third", "a/high", "second", "second"),
    ]
    marks = [(one.self_distillation, one.real_loss, one.self_evolution) for one in told]
    assert marks == [(False, False, False), (True, True, False), (True, False, True)]
    assert [one.samples for one in told] == [40, 20, 20]
    metrics = from_csv(EvolutionMetric, storage.read_bytes(found.metrics).decode())
    assert [one.metric for one in metrics] == ["worth"] * 3
    assert metrics[1].value == pytest.approx(sum(levels[2:4]) / 2)
    assert metrics[1].change == pytest.approx((levels[2] - levels[0] + levels[3] - levels[1]) / 2)
    assert "| third | a/high | second | yes | - | yes |" in storage.read_bytes(found.text).decode()
    assert set(storage.names(hook.context.folder)) >= {
        "stage_first_trials.parquet",
        "stage_third_curves.parquet",
    }


def test_nothing_is_trained_twice_and_what_is_gone_is_trained_again(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    first = run(hook_of(storage))
    TRAINED.clear()
    assert run(hook_of(storage)) == first
    assert TRAINED == []
    assert hook_of(storage).broken(first) == {}
    (tmp_path / first.models["second"] / "1" / LEARNT).unlink()
    assert hook_of(storage).broken(first)
    assert run(hook_of(storage)).models == first.models
    assert [seed for seed, _ in TRAINED] == [1]
    TRAINED.clear()
    changed = [STAGES[0], {**STAGES[1], "pool": "b/high"}, STAGES[2]]
    other = run(hook_of(storage, changed))
    assert other.models["first"] == first.models["first"]
    assert other.models["third"] != first.models["third"]  # its teacher is another
    assert len(TRAINED) == 4


@pytest.mark.parametrize("name", [LEARNT, "model.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_every_damage_to_what_a_stage_has_trained_is_mended(
    tmp_path: Path, damage: str, name: str
) -> None:
    storage = Storage(str(tmp_path))
    first = run(hook_of(storage))
    folder = tmp_path / first.models["second"] / "1"
    before = (folder / name).read_bytes()
    DAMAGES[damage](folder / name)
    assert [*hook_of(storage).broken(first)] == [f"{first.models['second']}/1/{name}"]
    TRAINED.clear()
    assert run(hook_of(storage)) == first
    assert [seed for seed, _ in TRAINED] == [1], "the stages behind it have learnt from the same"
    assert (folder / name).read_bytes() == before
    assert hook_of(storage).broken(first) == {}


def test_a_folder_of_one_seed_that_is_gone_is_missed(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    first = run(hook_of(storage))
    storage.remove(f"{first.models['third']}/0")
    assert hook_of(storage).broken(first)
    TRAINED.clear()
    assert run(hook_of(storage)) == first
    assert [seed for seed, _ in TRAINED] == [0]


def test_what_another_run_has_broken_off_in_the_same_folder_is_its_own_affair(
    tmp_path: Path,
) -> None:
    storage = Storage(str(tmp_path))
    first = run(hook_of(storage))
    storage.write_bytes(f"{first.models['third']}/2/{LEARNT}", b"half")
    assert hook_of(storage).broken(first) == {}


def test_a_seed_that_fails_ends_its_chain_alone(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    failing = [STAGES[0], {**STAGES[1], "model": {"diverges": 1}}, STAGES[2]]
    found = run(hook_of(storage, failing))
    assert [one.seeds for one in rows(storage, found)] == [2, 1, 1]
    assert found.seeds == {"first": (0, 1), "second": (0,), "third": (0,)}
    assert hook_of(storage, failing).broken(found) == {}
    lone = [{**STAGES[0], "model": {"diverges": 0}}, {**STAGES[1], "model": {"diverges": 1}}]
    with pytest.raises(SandboxError, match="no trial of the stage 'second' came to its end"):
        run(hook_of(storage, lone))


def test_the_best_pool_is_that_of_a_ranking(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    stages = [{**STAGES[0], "pool": "best"}]
    ranking = ranking_of(storage, ("b/high", 0.1, "better"), ("a/high", 0.3, "better"))
    found = run(hook_of(storage, stages), ranking=ranking)
    assert [one.pool for one in rows(storage, found)] == ["a/high"]
    with pytest.raises(BadInput, match="the workflow has no ranking"):
        run(hook_of(storage, stages))
    nothing = ranking_of(storage, ("b/high", 0.1, "undecided"))
    with pytest.raises(BadInput, match="no pool was called better"):
        run(hook_of(storage, stages), ranking=nothing)
    with pytest.raises(BadInput, match=r"evolution: stage 'first': .*'a/hihg'.*did you mean"):
        run(hook_of(storage, [{**STAGES[0], "pool": "a/hihg"}]))


def test_the_scorer_stands_in_the_settings_of_a_stage(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    hook = hook_of(storage, STAGES[:1], told="${scorer}")
    TOLD.clear()
    run(hook, scorer=Scorer("scorer-1", "models/scorer-1"))
    assert set(TOLD) == {storage.uri("models/scorer-1")}


def test_what_the_table_shows_is_there(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    with pytest.raises(BadInput, match=r"evolution.metrics: no evaluator gives wrth"):
        run(hook_of(storage, metrics=("wrth",)))


def test_a_plan_counts_all_stages(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    planned = hook_of(storage).ahead()
    assert (planned.trials, planned.samples, planned.flops) == (6, 160, 800.0)
    without, _ = context_of(storage)
    with pytest.raises(BadInput, match="evolution: the configuration has no such section"):
        Evolve(without).ahead()


def test_what_decides_a_chain_is_in_its_identity(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    plain = hook_of(storage).identity()
    assert hook_of(storage).identity() == plain
    other = [STAGES[0], STAGES[1], {**STAGES[2], "model": {"gain": 2.0}}]
    assert hook_of(storage, other).identity() != plain

"""What every hook makes of one small world, by its VERSION: when the output changes, so must that.

All of a run that needs no cluster and no data; what does is in ``test_hooks_golden_data``.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import evolving_world
import numpy as np
import pytest
from golden import GOLDEN, check, digest, moment, plain, written
from grounded_world import grounded_context
from planted_world import EVALUATION, ROWS, TRAIN, context_of, first_pools, values

from djsandbox_ray import __version__
from djsandbox_ray.hooks.hook import HOOKS, Context
from djsandbox_ray.records import Cost, Leak, Statistic, Statistics
from djsandbox_ray.stats.parts import PartReport, part, ranges, write_part
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.workflows.language.parameters import parameters

NAMES = {
    "text_len": "text_length_filter",
    "num_words": "words_num_filter",
    "alnum_ratio": "alphanumeric_filter",
}
FOLDER = "datasets/dataset-train/stats/op.parquet"
LATER = {"pools": "pyramid", "ranking": "together", "first": "trials"}
BOTH = {"combinations": "pyramid", "combination_ranking": "together"}
JOBS: list[tuple[str, str, dict[str, str], dict[str, Any]]] = [
    ("pools", "pools", {}, {}),
    ("noise", "noise", {}, {}),
    ("trials", "train", {}, {}),
    ("ranking", "judge", {}, {}),
    ("again", "confirmation_pools", {}, {}),
    ("looks", "train", {"pools": "again"}, {}),
    ("confirmation", "confirmation", {"first": "trials", "pools": "again", "trials": "looks"}, {}),
    ("choice", "top_k", {}, {"only_confirmed": False}),
    ("pyramid", "combine", {}, {"minimum": 100}),
    ("combined", "train", LATER, {}),
    ("together", "judge", {**LATER, "trials": "combined"}, {}),
    ("interactions", "interactions", {**LATER, "trials": "combined"}, {}),
    ("statistic_clusters", "cluster_statistics", {}, {"clusters": 2}),
    ("metric_clusters", "cluster_metrics", {}, {"clusters": 2}),
    ("repetition", "repetition", LATER, {"factors": [1, 2, 4], "unit": 50}),
    ("scaling", "scaling", LATER, {"budgets": [0.5, 1.0, 2.0]}),
    ("learning_rate", "learning_rate", {"first": "trials"}, {}),
    ("thresholds", "refine", BOTH, {}),
    ("ledger", "ledger", {}, {}),
    ("recipe", "recipe", BOTH, {}),
    ("insights", "insights", BOTH, {}),
    ("report", "report", BOTH, {}),
    ("searched", "search", {"first": "trials"}, {"proposals": 6, "only_confirmed": False}),
]
"""Job, hook, where a parameter takes the output of a job of another name, plain parameters."""


def statistics(storage: Storage) -> Statistics:
    for start, stop in ranges(ROWS):
        columns = zip(NAMES, values().values(), strict=True)
        cut = {name: column[start:stop] for name, column in columns}
        report = PartReport(stop - start, {}, 0, (), 0.1)
        write_part(storage, part(FOLDER, start), np.arange(start, stop), cut, report)
    found = [Statistic(name, name, operator, "op-1", FOLDER) for name, operator in NAMES.items()]
    return Statistics("statistics-1", tuple(found))


def make_world(storage: Storage) -> tuple[Context, dict[str, Any]]:
    context, _ = context_of(
        storage,
        operators=list(NAMES.values()),
        trials={"model": {"type": "planted_world:Planted"}, "budget": 20, "seeds": 3},
        learning_rate_check={"learning_rate": 0.1},
        confirm={"top": 3, "controls": 5},
    )
    first_pools(context)  # of which only the evaluation split is of use
    costs = {"ingest": {"hook": "ingest", **asdict(Cost("ingest", 10, 1e9, 2.0, 0.0, 3.0))}}
    storage.write_sealed(f"{context.folder}/costs.json", costs)
    leaks = Leak("leak", "", 0, removed=True)
    given = {"dataset": TRAIN, "evaluation": EVALUATION, "leaks": leaks}
    return context, {**given, "statistics": statistics(storage)}


@pytest.fixture(scope="module")
def digests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Run all jobs; return what is known of each hook's output, by hook."""
    with pytest.MonkeyPatch.context() as patch:
        # As on a cluster with room for so many trials: that decides what a search proposes.
        patch.setattr(Context, "await_room", lambda *_: None)
        patch.setattr("djsandbox_ray.hooks.search.slots", lambda _: 4)
        return _digests(Storage(str(tmp_path_factory.mktemp("golden"))))


def _digests(storage: Storage) -> dict[str, str]:
    context, outputs = make_world(storage)
    folder = Path(storage.uri(context.folder))
    made: dict[str, list[str]] = {}
    for job, hook, takes, settings in JOBS:
        names = {name: takes.get(name, name) for name in parameters(HOOKS.get(hook))}
        given = {name: outputs[source] for name, source in names.items() if source in outputs}
        start = moment()
        outputs[job] = HOOKS.get(hook)(context).run(**given, **settings)
        assert outputs[job] is not None, f"{job}: the world is too small for it"
        output = plain(json.dumps(asdict(outputs[job]), sort_keys=True))
        text = json.dumps([output, written(folder, start)])
        made.setdefault(hook, []).append(text.replace(storage.url, ""))  # it stands in commands
    return {hook: digest("".join(texts)) for hook, texts in made.items()}


@pytest.mark.parametrize("hook", sorted({hook for _, hook, *_ in JOBS}))
def test_the_output_is_that_of_its_version(hook: str, digests: dict[str, str]) -> None:
    check(hook, digests[hook])


def test_what_a_chain_comes_to_is_that_of_its_version(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    hook = evolving_world.hook_of(storage)
    output = plain(json.dumps(asdict(evolving_world.run(hook)), sort_keys=True))
    text = json.dumps([output, written(Path(storage.uri(hook.context.folder)))])
    check("evolve", digest(text.replace(storage.url, "")))


def test_what_trials_start_from_is_that_of_its_version(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of what is ingested, and how, the outputs of other hooks tell."""
    found = HOOKS.get("base")(grounded_context(storage, monkeypatch)).run()
    known = storage.read_sealed(f"{found.base}/base.json")
    made = storage.read_bytes(f"{found.base}/tables.json").decode()
    check("base", digest(plain(json.dumps([asdict(found), known, made], sort_keys=True))))


def test_every_hook_says_which_version_its_own_code_has() -> None:
    for name in HOOKS:
        assert "VERSION" in vars(HOOKS.get(name)), name


def test_of_every_hook_an_output_is_recorded() -> None:
    recorded = json.loads(GOLDEN.read_text())
    assert {name: one["version"] for name, one in recorded.items()} == {
        name: HOOKS.get(name).VERSION for name in HOOKS
    }


def test_a_digest_forgets_what_does_not_matter() -> None:
    ids = f"pools-{'0' * 16} 0.12345678 {__version__}"
    assert plain(ids) == plain(ids.replace("0000", "abcd").replace("678", "671"))
    assert plain("0.1234") != plain("0.1244")


def test_another_seed_is_another_output(tmp_path: Path) -> None:
    """What the digests are made of depends on what a hook computes."""
    storage = Storage(str(tmp_path))
    context, given = make_world(storage)
    folder, found = Path(storage.uri(context.folder)), []
    for seed in (0, 1):
        pools = context.config.pools.model_copy(update={"seed": seed})
        changed = context.config.model_copy(update={"pools": pools})
        hook = HOOKS.get("pools")(replace(context, config=changed))
        hook.run(given["dataset"], given["statistics"], given["leaks"])
        found.append(written(folder)["pools.json"])
    assert found[0] != found[1]

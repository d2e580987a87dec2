"""The hook on the tables that two studies have left: the first one, and the pyramid."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from djsandbox_ray.analysis.verdicts.ranking import rank
from djsandbox_ray.analysis.verdicts.scores import Yardstick
from djsandbox_ray.config import RunConfig
from djsandbox_ray.errors import BadInput, Damaged, StorageFailed
from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.hooks.interactions import FindInteractions
from djsandbox_ray.records import (
    InteractionRow,
    Pool,
    PoolKind,
    Pools,
    RungReport,
    SurrogateRow,
    TrialRecord,
    Trials,
    TrialSpec,
    TrialState,
)
from djsandbox_ray.reporting.progress import Progress
from djsandbox_ray.settings.sections import Component
from djsandbox_ray.storage.rows import from_csv
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.tracking.tracker import NullTracker
from djsandbox_ray.trials.trial_records import curves_table, trials_table

SEEDS, BUDGET = 3, 100
# b helps only within a.
GAINS = {"a": 0.2, "b": 0.0, "c": 0.0, "a&b": 0.8, "a&c": 0.2, "b&c": 0.0, "a&b&c": 0.8}


def pool(name, kind=PoolKind.BUCKET, parts=()):
    return Pool(name, kind, name, 0, 200, name, parts=parts)


def controls(start, count=6):
    return [pool(f"control/{start + i}", PoolKind.CONTROL) for i in range(count)]


def pools_of(*pools):
    return Pools("pools", "none", tuple(pools), size=200, draw_size=100, eligible=2000, seed=0)


PYRAMID = pools_of(*(pool(name, parts=tuple(name.split("&"))) for name in GAINS), *controls(6))
FIRST = pools_of(*controls(0))


@pytest.fixture
def console():
    return StringIO()


@pytest.fixture
def context(tmp_path, console):
    shapes = {"type": "shapes", "samples": 10}
    storage = Storage(str(tmp_path))
    config = RunConfig.model_validate(
        {
            "name": "test",
            "storage": storage.url,
            "dataset": shapes,
            "operators": ["text_length_filter"],
            "trials": {"model": {"type": "clip"}, "budget": BUDGET, "seeds": SEEDS},
            "evaluation": {"dataset": shapes, "metrics": [{"type": "retrieval", "k": [1]}]},
        }
    )
    tracker = NullTracker(Component(type="none"), storage)
    progress = Progress(Console(file=console, width=500))
    return Context(config, storage, "runs/test", tracker, progress)


def records(pools, seed, failing=(), scale=1.0):
    """Completed trials with noise of 0.02 on top of the gains, and a seed effect."""
    rng = np.random.default_rng(seed)
    found = []
    for item in pools.pools:
        for trial in range(SEEDS):
            name = f"{item.id}-{trial}"
            spec = TrialSpec(name, item.id, trial, name, BUDGET)
            value = 0.5 + 0.1 * trial + GAINS.get(item.id, 0.0) + rng.normal(0, 0.02)
            report = RungReport(BUDGET, 1.0, {"recall": scale * value}, 1.0, 1.0, 0)
            if item.id in failing:
                found.append(TrialRecord(spec, TrialState.FAILED, error="diverged", diverged=True))
            else:
                found.append(TrialRecord(spec, TrialState.COMPLETED, (report,)))
    return found


def stored(context, pools, name, seed, **more):
    """The record of a finished study, its tables written."""
    trials = records(pools, seed, **more)
    paths = f"{name}_trials.parquet", f"{name}_curves.parquet"
    by_id = {item.id: item for item in pools.pools}
    context.storage.write_table(paths[0], trials_table(trials, by_id, None))
    context.storage.write_table(paths[1], curves_table(trials))
    states = [trial.state for trial in trials]
    return Trials(name, *paths, states.count(TrialState.COMPLETED), states.count(TrialState.FAILED))


def analysed(context, pyramid=PYRAMID, **more):
    first = stored(context, FIRST, "first", 0)
    trials = stored(context, pyramid, "second", 1, **more)
    return FindInteractions(context).run(pyramid, trials, first)


def test_the_planted_interaction_is_found_and_said(context, console):
    found = analysed(context)
    rows = from_csv(InteractionRow, context.storage.read_bytes(found.path).decode())
    decided = {(row.kind, row.parts): row.verdict for row in rows if row.verdict != "undecided"}
    assert decided["interaction", "a & b"] == "helps"
    assert {parts for kind, parts in decided if kind == "interaction"} == {"a & b"}
    (held_out,) = from_csv(SurrogateRow, context.storage.read_bytes(found.surrogate).decode())
    assert held_out.pool == "a&b&c"
    assert held_out.low < held_out.measured < held_out.high
    said = console.getvalue()
    assert "interactions: The strongest interaction of two pools: a & b help each other." in said
    assert "foresee 1 of 1 held-out combinations" in said


def test_effects_are_in_the_unit_of_the_ranking(context):
    found = analysed(context)
    rows = from_csv(InteractionRow, context.storage.read_bytes(found.path).decode())
    controls = {(t.spec.pool, t.spec.seed): t.final.metrics for t in records(FIRST, 0)}
    aggregate = context.config.evaluation.kind
    unit = Yardstick.from_controls(controls, None, aggregate)
    ranking = rank(
        PYRAMID.pools,
        records(PYRAMID, 1),
        seeds=range(SEEDS),
        aggregate=aggregate,
        draw_share=0.5,
        bucket_share=0.1,
        measured_in=unit,
    )
    shares = [row.effect for row in rows if row.kind == "shapley"]
    (together,) = [row.change for row in ranking if row.pool == "a&b&c"]
    assert sum(shares) == pytest.approx(together)


def test_a_combination_that_failed_is_named(context, console):
    found = analysed(context, failing=["b&c"])
    rows = from_csv(InteractionRow, context.storage.read_bytes(found.path).decode())
    assert "a & b & c" not in {row.parts for row in rows}
    (predicted,) = from_csv(SurrogateRow, context.storage.read_bytes(found.surrogate).decode())
    assert (predicted.pool, predicted.held_out) == ("b&c", False)
    said = console.getvalue()
    assert "Combinations without a result: b & c." in said
    assert "Left out, as they need one of these: interaction a & b & c, shapley a" in said
    assert "Averaged only over the contexts that were trained: main a, main b, main c" in said
    assert "Too few arms to predict a & b & c" in said


def test_nothing_to_analyse(context, console):
    hook, first = FindInteractions(context), stored(context, FIRST, "first", 0)
    assert hook.run(None, None, first) is None
    assert hook.run(PYRAMID, None, first) is None
    assert console.getvalue() == ""
    assert analysed(context, pools_of(pool("a", parts=("a",)), *controls(6))) is None
    assert "a single pool: nothing that could interact" in console.getvalue()
    assert analysed(context, failing=list(GAINS)) is None
    assert "no combination with a completed trial" in console.getvalue()
    assert analysed(context, failing=[f"control/{i}" for i in range(6, 11)]) is None
    assert "cannot be judged: only 1 of 6 control arms" in console.getvalue()
    (kept,) = context.caveats
    assert kept.startswith("interactions: cannot be judged: only 1 of 6")


def test_what_is_no_pyramid_is_refused(context):
    with pytest.raises(BadInput, match="'a/low' is no combination"):
        analysed(context, pools_of(pool("a/low"), *controls(6)))


def test_a_unit_of_another_metric_is_refused(context):
    first = stored(context, FIRST, "first", 0)
    trials = stored(context, PYRAMID, "second", 1)
    curves = context.storage.read_table(trials.curves)
    names = [name.replace("recall", "precision") for name in curves.column_names]
    context.storage.write_table("other.parquet", curves.rename_columns(names))
    other = replace(trials, curves="other.parquet")
    with pytest.raises(BadInput, match="the trials lack the metric 'recall' of the first study"):
        FindInteractions(context).run(PYRAMID, other, first)


@pytest.mark.parametrize("content", [None, b"", b"PAR1 and no more"])
def test_a_damaged_table_is_no_result(context, content):
    """None would be kept for good, and nobody would make the table anew."""
    first, trials = stored(context, FIRST, "first", 0), stored(context, PYRAMID, "second", 1)
    context.storage.remove(trials.trials)
    if content is not None:
        context.storage.write_bytes(trials.trials, content)
    with pytest.raises(Damaged):
        FindInteractions(context).run(PYRAMID, trials, first)


def test_a_storage_that_is_away_is_no_result(context, monkeypatch):
    def away(*_):
        raise StorageFailed("the storage is away")

    first, trials = stored(context, FIRST, "first", 0), stored(context, PYRAMID, "second", 1)
    monkeypatch.setattr(Storage, "read_table", away)
    with pytest.raises(StorageFailed):
        FindInteractions(context).run(PYRAMID, trials, first)

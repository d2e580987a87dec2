from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
from factories import pool, rung_report, trial_record

from djsandbox_ray.analysis.verdicts.ranking import carried_by, control_scores, rank
from djsandbox_ray.analysis.verdicts.shrinkage import standard_error
from djsandbox_ray.analysis.verdicts.verdicts import Verdict, verdicts
from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.records import PoolKind, TrialState

SEEDS = [7, 11, 13]
BUDGET = 1000


POOLS = [
    *(pool(f"control/{i}") for i in range(5)),
    *(pool(f"length/{bucket}") for bucket in ("low", "middle", "high")),
    pool("self_test/shuffled_statistic", expected="undecided"),
    pool("self_test/shuffled_captions", expected="worse"),
]
MEANS = {"length/low": 0.3, "length/high": 0.9, "self_test/shuffled_captions": 0.2}


def trial(pool_id, seed, metrics, state=TrialState.COMPLETED, budget=BUDGET):
    """A trial that was trained for BUDGET samples, whatever its budget."""
    reports = (rung_report(BUDGET, metrics),) if state is TrialState.COMPLETED else ()
    return trial_record(pool_id, seed, state=state, budget=budget, reports=reports)


@pytest.fixture
def trials():
    """One trial per pool and seed: accuracy near 0.5 (see MEANS), recall near 20, seed effects."""
    rng = np.random.default_rng(0)
    result = {}
    for p in POOLS:
        for i, seed in enumerate(SEEDS):
            accuracy = MEANS.get(p.id, 0.5) + 0.05 * i + rng.normal(0, 0.01)
            recall = 40 * MEANS.get(p.id, 0.5) - 3 * i + rng.normal(0, 0.5)
            result[p.id, seed] = trial(p.id, seed, {"accuracy": accuracy, "recall": recall})
    return result


def fail(trials, pool_id, seeds, state=TrialState.FAILED):
    for seed in seeds:
        trials[pool_id, seed] = trial(pool_id, seed, {}, state)


def ranked(trials, aggregate="mean_relative", pools=POOLS, **options):
    return rank(pools, trials.values(), seeds=SEEDS, aggregate=aggregate, **options)


def values(trials, pool_id, metric="accuracy"):
    return np.array([trials[pool_id, seed].final.metrics[metric] for seed in SEEDS])


@pytest.mark.parametrize("aggregate", ["pooled", "mean_relative", "standardized"])
def test_planted_pools_get_their_verdicts(trials, aggregate):
    rows = ranked(trials, aggregate)
    assert [row.rank for row in rows] == [1, 2, 3, 4, 5]
    assert rows[0].pool == "length/high"
    assert rows[-1].pool == "self_test/shuffled_captions"
    assert [row.change for row in rows] == sorted((row.change for row in rows), reverse=True)
    found = {row.pool: row.verdict for row in rows}
    assert found == {
        "length/high": "better",
        "length/middle": "undecided",
        "length/low": "worse",
        "self_test/shuffled_statistic": "undecided",
        "self_test/shuffled_captions": "worse",
    }
    assert not any(row.self_test_failed for row in rows)


def test_a_row_by_hand(trials):
    controls = np.stack([values(trials, f"control/{i}") for i in range(5)])
    baseline = controls.mean()
    scores = {p.id: values(trials, p.id) / baseline - 1 for p in POOLS[5:]}
    expected = {v.pool: v for v in verdicts(scores, controls / baseline - 1, 0.1)}
    for row in ranked(trials, "pooled", metrics=["accuracy"], alpha=0.1):
        verdict = expected[row.pool]
        numbers = (verdict.effect, verdict.low, verdict.high, verdict.p)
        assert (row.change, row.low, row.high, row.p) == pytest.approx(numbers)
        paired = (values(trials, row.pool) - controls.mean(axis=0)) / baseline
        assert row.change == pytest.approx(paired.mean())
        assert row.std == pytest.approx(paired.std(ddof=1))
        assert (row.seeds, row.failed) == (3, 0)
        # Every metric is reported, the aggregated ones and the others.
        assert row.metrics == pytest.approx(
            {m: values(trials, row.pool, m).mean() for m in ("accuracy", "recall")}
        )
    names = {row.pool: (row.kind, row.statistic, row.bucket) for row in ranked(trials)}
    assert names["length/low"] == (PoolKind.BUCKET, "length", "low")
    assert names["self_test/shuffled_captions"] == (PoolKind.SELF_TEST, None, None)


def test_the_noise_of_standardized_leaves_seed_effects_out(trials):
    controls = np.stack([values(trials, f"control/{i}") for i in range(5)])
    noise = math.sqrt(controls.var(axis=0, ddof=1).mean())
    row = ranked(trials, "standardized", metrics=["accuracy"])[0]
    assert row.change == pytest.approx((values(trials, row.pool).mean() - controls.mean()) / noise)


def test_q_values_are_over_the_pools_of_one_kind(trials):
    rows = ranked(trials)
    for kind, count in ((PoolKind.BUCKET, 3), (PoolKind.SELF_TEST, 2)):
        same = sorted((row for row in rows if row.kind is kind), key=lambda row: row.p)
        assert len(same) == count
        assert same[-1].q == pytest.approx(same[-1].p)
        assert same[0].q == pytest.approx(min(row.p * count / i for i, row in enumerate(same, 1)))


def test_failed_trials_are_counted_and_failed_pools_come_last(trials):
    fail(trials, "length/high", SEEDS)
    fail(trials, "length/low", [11])
    rows = ranked(trials)
    last = rows[-1]
    assert (last.pool, last.rank, last.verdict) == ("length/high", 5, "failed")
    assert (last.seeds, last.failed, last.metrics) == (0, 3, {})
    assert all(math.isnan(x) for x in (last.change, last.std, last.low, last.high, last.p, last.q))
    part = next(row for row in rows if row.pool == "length/low")
    assert (part.seeds, part.failed, part.verdict) == (2, 1, "worse")


def test_one_completed_trial_has_no_std(trials):
    fail(trials, "length/low", [7, 13])
    row = next(row for row in ranked(trials) if row.pool == "length/low")
    assert row.seeds == 1
    assert math.isnan(row.std)
    assert math.isfinite(row.change)


def stop(trials, pool_id, samples):
    """Cut trials short, after as many samples as given by seed."""
    for seed, seen in samples.items():
        reports = (rung_report(seen, {"accuracy": 9.0}),) if seen else ()
        plain = trial(pool_id, seed, {}, TrialState.STOPPED)
        trials[pool_id, seed] = dataclasses.replace(plain, reports=reports)


def test_pools_that_were_given_up_come_after_the_judged_and_before_the_failed(trials):
    stop(trials, "length/high", dict.fromkeys(SEEDS, 250))
    stop(trials, "length/middle", {7: 500, 11: 250})
    fail(trials, "length/middle", [13])
    fail(trials, "self_test/shuffled_statistic", SEEDS)
    rows = ranked(trials)
    assert [(row.rank, row.pool) for row in rows] == [
        (1, "length/low"),
        (2, "self_test/shuffled_captions"),
        (3, "length/high"),
        (4, "length/middle"),
        (5, "self_test/shuffled_statistic"),
    ]
    assert [row.stopped_at for row in rows] == [None, None, 250, 250, None]
    for row in rows[2:4]:
        assert (row.verdict, row.seeds, row.metrics) == ("stopped", 0, {})
        numbers = (row.change, row.std, row.low, row.high, row.p, row.q, row.shrunken)
        assert all(math.isnan(number) for number in numbers)
    assert [row.failed for row in rows] == [0, 0, 0, 1, 3]
    stop(trials, "length/high", dict.fromkeys(SEEDS, 500))
    stop(trials, "length/middle", {7: 500, 11: 500})
    assert [row.stopped_at for row in ranked(trials)][2:4] == [500, 500]
    stop(trials, "length/high", {7: 0})
    assert {row.pool: row.stopped_at for row in ranked(trials)}["length/high"] == 0


def test_a_pool_with_one_stopped_trial_is_not_judged(trials):
    stop(trials, "length/high", {11: 250})
    row = next(row for row in ranked(trials) if row.pool == "length/high")
    assert (row.verdict, row.stopped_at, row.seeds, row.metrics) == ("stopped", 250, 2, {})
    assert math.isnan(row.change)


def test_given_up_pools_count_in_the_family_and_in_nothing_else(trials):
    """As if they had never been tried, but for the width of the intervals and the q-values."""
    stop(trials, "length/middle", dict.fromkeys(SEEDS, 250))
    rows = [row for row in ranked(trials) if row.stopped_at is None]
    others = ranked(
        {key: value for key, value in trials.items() if key[0] != "length/middle"},
        pools=[p for p in POOLS if p.id != "length/middle"],
    )
    assert len(rows) == len(others) == 4
    for row, other in zip(rows, others, strict=True):
        same = {"low": other.low, "high": other.high, "verdict": other.verdict, "q": other.q}
        assert row.q == pytest.approx(other.q * (3 / 2 if row.statistic else 1))
        assert as_text([dataclasses.replace(row, **same)]) == as_text([other])
        assert row.low < other.low
        assert row.high > other.high


@pytest.mark.parametrize("pool_id", ["control/0", "self_test/shuffled_captions"])
def test_controls_and_self_tests_are_never_stopped(trials, pool_id):
    stop(trials, pool_id, {7: 250})
    with pytest.raises(BadInput, match=f"pool '{pool_id}', seed 7.*stopped early"):
        ranked(trials)


def test_every_judged_pool_has_a_shrunken_change(trials):
    fail(trials, "length/low", [11])
    for row in ranked(trials):
        if row.kind is PoolKind.SELF_TEST:
            assert math.isnan(row.shrunken)
        else:
            assert abs(row.shrunken) < abs(row.change)
            assert row.shrunken * row.change > 0


def test_the_design_of_the_draws_counts(trials):
    """What the draws say of the noise of buckets makes other intervals, but no other changes."""
    plain = ranked(trials)
    for design in ({"draw_share": 0.2}, {"draw_share": 0.2, "bucket_share": 1 / 12}):
        rows = ranked(trials, **design)
        assert [row.change for row in rows] == [row.change for row in plain]
        assert all(a.high != b.high for a, b in zip(rows, plain, strict=True))
        plain = rows


def test_errors_are_controlled_over_the_pools_that_others_were_chosen_from(trials):
    plain = ranked(trials)
    assert ranked(trials, family=5) == ranked(trials, family=1) == plain
    for row, wide in zip(plain, ranked(trials, family=50), strict=True):
        assert (wide.pool, wide.change, wide.p) == (row.pool, row.change, row.p)
        assert wide.high - wide.low > row.high - row.low


def test_the_metric_that_carries_a_verdict_is_named(trials):
    for seed in SEEDS:
        recall = trials["length/middle", seed].final.metrics["recall"]
        trials["length/high", seed] = trial(
            "length/high", seed, {"accuracy": 0.95, "recall": recall}
        )
    found = {row.pool: (row.verdict, row.carried_by) for row in ranked(trials)}
    assert found["length/high"] == ("better", "accuracy")
    assert found["length/low"] == ("worse", None)
    assert found["length/middle"] == ("undecided", None)
    single = {row.pool: row for row in ranked(trials, metrics=["accuracy"])}
    assert (single["length/high"].verdict, single["length/high"].carried_by) == ("better", None)


def test_a_score_that_cannot_be_formed_without_a_metric_is_carried_by_it(trials):
    for (pool_id, seed), record in list(trials.items()):
        loss = {**record.final.metrics, "loss": -5.0}
        trials[pool_id, seed] = trial(pool_id, seed, loss)
    found = {row.pool: row for row in ranked(trials, "pooled")}
    assert (found["length/high"].verdict, found["length/high"].carried_by) == ("better", "recall")


def test_control_scores_are_those_that_pools_are_compared_with(trials):
    fail(trials, "control/1", [11])
    scores = control_scores(
        POOLS, trials.values(), seeds=SEEDS, metrics=["accuracy"], aggregate="pooled"
    )
    complete = np.stack([values(trials, f"control/{i}") for i in (0, 2, 3, 4)])
    ends = [t.final for (name, _), t in trials.items() if name.startswith("control")]
    baseline = np.mean([final.metrics["accuracy"] for final in ends if final])
    np.testing.assert_allclose(scores, complete / baseline - 1)


def test_every_pool_failed(trials):
    for p in POOLS[5:]:
        fail(trials, p.id, SEEDS)
    rows = ranked(trials)
    assert [row.verdict for row in rows] == ["failed"] * 5
    assert sum(row.self_test_failed for row in rows) == 2


def test_failed_control_trials(trials):
    fail(trials, "control/0", [7])
    fail(trials, "control/1", [11])
    row = ranked(trials, "standardized", metrics=["accuracy"])[0]
    complete = np.stack([values(trials, f"control/{i}") for i in (2, 3, 4)])
    paired = values(trials, row.pool) - complete.mean(axis=0)
    assert (row.pool, row.verdict) == ("length/high", "better")
    assert row.change / row.std == pytest.approx(paired.mean() / paired.std(ddof=1))
    fail(trials, "control/2", SEEDS)
    with pytest.raises(SandboxError, match="only 2 of 5 control arms") as caught:
        ranked(trials)
    assert not isinstance(caught.value, BadInput)


def test_a_self_test_that_fails_is_named(trials):
    for seed in SEEDS:
        trials["self_test/shuffled_captions", seed] = trial(
            "self_test/shuffled_captions", seed, {"accuracy": 0.55, "recall": 20.0}
        )
    assert [row.pool for row in ranked(trials) if row.self_test_failed] == [
        "self_test/shuffled_captions"
    ]


# What a self-test does to samples, and which metrics show it

SPOILT = [
    dataclasses.replace(p, spoil="captions") if p.id == "self_test/shuffled_captions" else p
    for p in POOLS
]


def blinded(trials):
    """Recall does not see captions, and is so much better by luck that the score is better."""
    for seed in SEEDS:
        key = "self_test/shuffled_captions", seed
        metrics = {**trials[key].final.metrics, "recall": 60.0 + seed / 100}
        trials[key] = trial(*key, metrics)


def test_a_spoilt_pool_is_judged_by_the_metrics_that_can_show_it(trials):
    blinded(trials)

    def row(rows):
        (found,) = (row for row in rows if row.pool == "self_test/shuffled_captions")
        return found

    whole = row(ranked(trials, pools=SPOILT))
    assert whole.verdict == "better"
    assert whole.self_test_failed
    seen = row(ranked(trials, pools=SPOILT, blind={"captions": ["recall"]}))
    assert seen.verdict == "worse"
    assert not seen.self_test_failed
    alone = row(ranked(trials, pools=SPOILT, metrics=["accuracy"]))
    assert (seen.change, seen.low, seen.high) == (alone.change, alone.low, alone.high)
    assert seen.metrics.keys() == {"accuracy", "recall"}, "all are shown"


def test_other_pools_are_judged_by_the_whole_score(trials):
    before = {row.pool: row for row in ranked(trials, pools=SPOILT)}
    after = ranked(trials, pools=SPOILT, blind={"captions": ["recall"]})
    for row in after:
        if row.pool != "self_test/shuffled_captions":
            assert dataclasses.replace(row, rank=0, q=0.0) == dataclasses.replace(
                before[row.pool], rank=0, q=0.0
            )
    everything = ranked(trials, pools=SPOILT, blind={"captions": ["fid"]})
    assert everything == ranked(trials, pools=SPOILT)


def test_a_score_that_is_blind_to_what_was_spoilt_is_refused(trials):
    with pytest.raises(BadInput, match="no metric of the score shows that captions were spoilt"):
        ranked(trials, pools=SPOILT, blind={"captions": ["recall", "accuracy"]})


def with_metrics(trials, key, **metrics):
    trials[key] = trial(*key, {k: v for k, v in metrics.items() if v is not None})


@pytest.mark.parametrize("metrics", [None, ["accuracy"]])
@pytest.mark.parametrize("where", ["length/low", "control/3"])
def test_a_missing_metric_names_trial_and_metric(trials, where, metrics):
    with_metrics(trials, (where, 11), accuracy=0.5)
    with pytest.raises(BadInput, match=f"pool '{where}', seed 11.*lacks the metric 'recall'"):
        ranked(trials, metrics=metrics)


def test_a_metric_that_is_not_finite_names_trial_and_metric(trials):
    with_metrics(trials, ("length/low", 7), accuracy=math.nan, recall=1.0)
    with pytest.raises(BadInput, match=r"pool 'length/low', seed 7.*metric 'accuracy' is nan"):
        ranked(trials)


def test_a_score_of_zero_is_a_score(trials):
    with_metrics(trials, ("length/low", 7), accuracy=0.0, recall=0.0)
    row = next(row for row in ranked(trials) if row.pool == "length/low")
    assert row.seeds == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(("length/low", 7)), "1 trials are missing, first: pool 'length/low'"),
        (lambda t: t.update(x=t["length/low", 7]), "a second trial of that pool and seed"),
        (lambda t: t.update(x=trial("other/low", 7, {})), "no pool and seed of this run"),
        (lambda t: t.update(x=trial("length/low", 8, {})), "no pool and seed of this run"),
        (lambda t: fail(t, "length/low", [7], TrialState.RUNNING), "is still running"),
        (
            lambda t: t.update({("length/low", 7): trial("length/low", 7, {}, budget=2000)}),
            "no report at its budget of 2000",
        ),
        (
            lambda t: t.update(
                {("length/low", 7): trial("length/low", 7, {}, TrialState.FAILED, budget=2000)}
            ),
            r"different budgets.*\[1000, 2000\]",
        ),
    ],
)
def test_an_incomplete_or_unknown_grid_of_trials(trials, change, message):
    change(trials)
    with pytest.raises(BadInput, match=message):
        ranked(trials)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": ["acuracy"]}, r"no trial has the metric 'acuracy' \(there are: accuracy"),
        ({"metrics": []}, "at least one is needed"),
        ({"metrics": ["recall", "recall"]}, "each once"),
        ({"aggregate": "median"}, "unknown aggregate 'median'"),
        ({"alpha": 0.0}, "alpha is 0.0"),
        ({"pools": [*POOLS, POOLS[0]]}, "pool ids must be unique"),
    ],
)
def test_bad_options(trials, options, message):
    with pytest.raises(BadInput, match=message):
        ranked(trials, **options)


@pytest.mark.parametrize("seeds", [[], [7, 7, 11]])
def test_bad_seeds(trials, seeds):
    with pytest.raises(BadInput, match="each once"):
        rank(POOLS, trials.values(), seeds=seeds, aggregate="pooled")


def test_too_few_control_pools(trials):
    kept = [p for p in POOLS if p.id not in ("control/0", "control/1", "control/2")]
    few = {key: value for key, value in trials.items() if key[0] in {p.id for p in kept}}
    with pytest.raises(BadInput, match="2 control pools"):
        ranked(few, pools=kept)


@pytest.mark.parametrize(("aggregate", "value"), [("mean_relative", 0.0), ("pooled", -50.0)])
def test_controls_that_the_aggregate_cannot_divide_by(trials, aggregate, value):
    for i in range(5):
        for seed in SEEDS:
            with_metrics(trials, (f"control/{i}", seed), accuracy=5.0 + i, recall=value)
    with pytest.raises(
        BadInput, match=f"'{aggregate}' divides by the control trials' .*recall|sum"
    ):
        ranked(trials, aggregate)
    if aggregate != "pooled":
        assert ranked(trials, aggregate, metrics=["accuracy"])
    # What does not vary among the controls is weighed by what it does in all arms.
    assert ranked(trials, "standardized")


def test_every_judged_pool_has_the_standard_error_of_its_arm(trials):
    fail(trials, "length/low", [7])
    rows = {row.pool: row for row in ranked(trials, draw_share=0.5, bucket_share=0.25)}
    controls = control_scores(
        POOLS, trials.values(), seeds=SEEDS, metrics=None, aggregate="mean_relative"
    )
    error = standard_error(controls, 0.5, 0.25)
    assert rows["length/high"].error == pytest.approx(error)
    # One seed less of three.
    assert rows["length/low"].error == pytest.approx(error * math.sqrt(3 / 2))


def as_text(rows):
    """Rows with NaN in them, comparable."""
    return [repr(dataclasses.asdict(row)) for row in rows]


def verdict(effect, word):
    return Verdict("a/low", effect, effect - 1, effect + 1, 0.01, 0.01, word)


@pytest.mark.parametrize("word", ["better", "worse"])
def test_a_metric_carries_a_verdict_that_falls_without_it(word):
    whole, same, gone = verdict(3.0, word), verdict(2.0, word), verdict(0.5, "undecided")
    assert carried_by(whole, {"x": same, "y": same}) is None
    assert carried_by(whole, {"x": same, "y": gone}) == "y"
    assert carried_by(whole, {}) is None


def test_of_several_the_one_that_changes_the_effect_most():
    whole = verdict(3.0, "better")
    less = {"x": verdict(2.5, "undecided"), "y": verdict(4.0, "undecided")}
    assert carried_by(whole, less) == "y"
    assert carried_by(whole, {**less, "z": verdict(-0.5, "worse")}) == "z"
    assert carried_by(whole, {"z": verdict(-9.0, "worse"), "n": None}) == "n"


def test_nothing_carries_what_is_undecided():
    assert carried_by(verdict(1.0, "undecided"), {"x": verdict(9.0, "better")}) is None


def test_a_trial_that_collapsed_is_named_and_left_out_beside(trials):
    plain = {row.pool: row for row in ranked(trials)}
    assert all(row.collapsed is None and row.without_collapsed is None for row in plain.values())
    pool = next(row.pool for row in plain.values() if row.kind is PoolKind.BUCKET)
    for key in ((pool, SEEDS[1]), ("control/2", SEEDS[0])):
        values_ = trials[key].final.metrics
        with_metrics(trials, key, **{name: 0.01 * value for name, value in values_.items()})
    found = {row.pool: row for row in ranked(trials)}
    control = f"control/2 seed {SEEDS[0]}"
    assert found[pool].collapsed == f"seed {SEEDS[1]}, {control}"
    others = [row for row in found.values() if row.pool != pool and row.kind is PoolKind.BUCKET]
    assert {row.collapsed for row in others} == {control}
    # Left out, the verdicts are those of the rest.
    assert found[pool].verdict == "undecided"
    assert all(row.without_collapsed == plain[row.pool].verdict for row in others)

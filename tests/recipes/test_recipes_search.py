from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import search_world
from factories import confirmation_row, pool, pools, ranking_row
from hypothesis import given, settings
from hypothesis import strategies as st

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.hooks.plans import scaling_seeds
from djsandbox_ray.hooks.search import SearchThresholds
from djsandbox_ray.pools.arms import second_look
from djsandbox_ray.recipes.search.outcome import SearchReport
from djsandbox_ray.recipes.search.proposals import confirmation_arms, proposed_arm, start
from djsandbox_ray.recipes.search.search import Proposal, ProposalState, SearchPlan, best, search
from djsandbox_ray.recipes.search.space import EDGE, SearchSpace, Window
from djsandbox_ray.records import Choice, ConfirmationRow, Pool, PoolKind, Range
from djsandbox_ray.storage.rows import from_csv
from djsandbox_ray.storage.store import Storage

TEN = np.arange(10) / 10 + 0.05


def space(least: int = 2, **columns: Any) -> SearchSpace:
    return SearchSpace({k: np.asarray(v, dtype=float) for k, v in columns.items()}, least)


# Windows, ranges and rows.


def test_bounds_lie_between_the_values_on_either_side_of_a_cut() -> None:
    made = space(a=TEN)
    assert made.ranges({"a": Window(0.3, 0.7)}) == (
        Range("a", pytest.approx(0.3), pytest.approx(0.7)),
    )
    assert (
        made.inside(made.ranges({"a": Window(0.3, 0.7)})).tolist()
        == [False] * 3 + [True] * 4 + [False] * 3
    )


def test_an_open_end_has_no_bound_and_an_open_window_no_range() -> None:
    made = space(a=TEN, b=TEN)
    (found,) = made.ranges({"a": Window(0.5, 1), "b": Window()})
    assert (found.statistic, found.high) == ("a", None)
    assert made.ranges({}) == ()
    assert made.inside(()).all()


def test_whole_numbers_have_whole_bounds() -> None:
    made = space(a=np.arange(10))
    assert made.ranges({"a": Window(0.3, 0.7)}) == (Range("a", 3.0, 6.0),)


def test_all_rows_of_a_value_at_an_end_are_inside() -> None:
    made = space(a=[0.5, 1.5, 1.5, 1.5, 2.5, 3.5])
    ranges = made.ranges({"a": Window(1 / 3, 0.5)})
    assert made.inside(ranges).tolist() == [False, True, True, True, False, False]


def test_a_row_without_a_finite_value_is_outside_every_range_of_it() -> None:
    made = space(a=[0.1, np.nan, 0.3, np.inf, 0.5, -np.inf, 0.7], b=np.arange(7))
    assert made.inside([Range("a", 0.2, None)]).tolist() == [
        *(False, False, True, False),
        *(True, False, True),
    ]
    assert made.inside([Range("b", None, 9.0)]).all()


def test_rows_are_inside_all_ranges() -> None:
    made = space(a=TEN, b=TEN[::-1])
    ranges = made.ranges({"a": Window(0.4, 1), "b": Window(0.3, 1)})
    assert np.flatnonzero(made.inside(ranges)).tolist() == [4, 5, 6]


def test_a_window_that_cuts_off_hardly_anything_is_open_there() -> None:
    made = space(a=np.random.default_rng(0).normal(size=100))
    assert made.windows({"low_0": EDGE / 2, "high_0": 0.6}) == {"a": Window(0, 0.6)}
    assert made.windows({"low_0": 0.4, "high_0": 1 - EDGE / 2}) == {"a": Window(0.4, 1)}


def test_ends_in_the_other_order_are_exchanged() -> None:
    assert space(a=TEN).windows({"low_0": 0.8, "high_0": 0.3}) == {"a": Window(0.3, 0.8)}


def test_windows_become_points_and_windows_again() -> None:
    made = space(a=TEN, b=TEN)
    windows = {"a": Window(1 / 3, 2 / 3)}
    point = made.point(windows)
    assert made.windows(point) == {**windows, "b": Window()}
    assert all(low <= point[name] <= high for name, (low, high) in made.bounds().items())
    # Narrower than a draw: the nearest point.
    assert made.point({"a": Window(0.95, 1)})["low_0"] == 0.8


@settings(deadline=None, max_examples=60)
@given(
    st.lists(
        st.floats(-1e6, 1e6) | st.just(float("nan")) | st.sampled_from([0.0, 1.0]),
        min_size=4,
        max_size=40,
    ),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_a_range_keeps_the_ranks_of_its_window_and_their_ties(
    values: list[float], one: float, other: float
) -> None:
    array = np.array(values)
    present = np.sort(array[~np.isnan(array)])
    if len(present) < 2 or present[0] == present[-1]:
        return
    low, high = sorted((one, other))
    made = space(1, a=array)
    kept = np.sort(array[made.inside(made.ranges({"a": Window(low, high)}))])
    first = min(round(low * len(present)), len(present) - 1)
    last = max(round(high * len(present)) - 1, first)
    wanted = present[(present >= present[first]) & (present <= present[last])]
    if (first, last) == (0, len(present) - 1):
        assert len(kept) == len(array)  # open: rows without a value, too
    elif wanted[0] == present[0] and wanted[-1] == present[-1]:
        assert len(kept) in (len(wanted), len(array))
    else:
        assert kept.tolist() == wanted.tolist()


@pytest.mark.parametrize(
    ("columns", "least", "words"),
    [
        ({}, 1, "at least one statistic"),
        ({"a": TEN, "b": TEN[:5]}, 1, r"'b' has shape \(5,\), but 'a' has 10 rows"),
        ({"a": [1, 2, np.nan, np.nan]}, 3, "'a' has 2 values: too few"),
        ({"a": [1, 1, 1, np.nan]}, 2, "'a' has one value only"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    columns: dict[str, Any], least: int, words: str
) -> None:
    with pytest.raises(BadInput, match=words):
        space(least, **columns)


def test_what_is_no_window_is_refused() -> None:
    for low, high in ((0.6, 0.5), (-0.1, 1), (0, 1.1), (float("nan"), 1)):
        with pytest.raises(BadInput, match="0 <= low <= high <= 1"):
            Window(low, high)
    with pytest.raises(BadInput, match="no statistic 'z' is searched"):
        space(a=TEN).point({"z": Window()})


# The search.


def surface(
    made: SearchSpace, quality: np.ndarray, noise: float = 0.0
) -> tuple[Any, list[list[int]]]:
    """Return a measure, the mean quality of the rows of a proposal, and its batches."""
    rng, batches = np.random.default_rng(0), []

    def measure(batch: Sequence[Proposal]) -> list[float | None]:
        batches.append([item.number for item in batch])
        inside = [made.inside(item.ranges) for item in batch]
        return [float(quality[rows].mean() + rng.normal(0, noise)) for rows in inside]

    return measure, batches


def two_statistics(seed: int = 0) -> tuple[SearchSpace, np.ndarray]:
    """Rows are good in a band of ``a``, and get better with ``b``."""
    rng = np.random.default_rng(seed)
    a, b = rng.permutation(600) / 600, rng.permutation(600) / 600
    quality = ((a > 0.45) & (a < 0.85)) + b
    return space(100, a=a, b=b), quality - quality.mean()


def test_the_search_is_the_same_again_and_trains_what_was_asked_for() -> None:
    made, quality = two_statistics()
    runs = []
    for _ in range(2):
        measure, batches = surface(made, quality, noise=0.05)
        runs.append((search(made, SearchPlan(9, batch=2, seed=3), measure), batches))
    assert runs[0] == runs[1]
    found, batches = runs[0]
    assert [len(batch) for batch in batches] == [2, 2, 2, 2, 1]
    states = [item.state for item in found]
    assert states.count(ProposalState.TRAINED) == 9
    assert [item.number for item in found] == list(range(len(found)))
    other = search(made, SearchPlan(9, batch=2, seed=4), surface(made, quality)[0])
    assert [item.windows for item in other] != [item.windows for item in found]


def test_more_proposals_go_on_where_fewer_ended() -> None:
    made, quality = two_statistics()
    short, long = (
        search(made, SearchPlan(count, batch=2), surface(made, quality)[0]) for count in (6, 12)
    )
    assert long[: len(short)] == short


def test_the_search_finds_better_windows_than_any_bucket_or_random_windows() -> None:
    thirds = [Window(0, 1 / 3), Window(1 / 3, 2 / 3), Window(2 / 3, 1)]
    against_bucket, against_random = [], []
    for seed in range(6):
        made, quality = two_statistics(seed)
        measure, _ = surface(made, quality)
        effects = {
            (name, window): float(quality[made.inside(made.ranges({name: window}))].mean())
            for name in "ab"
            for window in thirds
        }
        known = [({name: window}, effect) for (name, window), effect in effects.items()]
        found = best(search(made, SearchPlan(20, batch=2, seed=seed), measure, known=known))
        assert found is not None
        assert found.score is not None
        rng, random = np.random.default_rng(seed), []
        while len(random) < 20:
            point = {name: rng.uniform(*bound) for name, bound in made.bounds().items()}
            inside = made.inside(made.ranges(made.windows(point)))
            random += [float(quality[inside].mean())] if inside.sum() >= made.least else []
        against_bucket.append(found.score / max(effects.values()))
        against_random.append(found.score - max(random))
    assert min(against_bucket) > 1
    assert np.mean(against_random) > 0


def test_what_is_to_be_tried_first_is() -> None:
    made, quality = two_statistics()
    first = [{"a": Window(1 / 3, 2 / 3), "b": Window(2 / 3, 1)}, {"b": Window(2 / 3, 1)}]
    found = search(made, SearchPlan(3), surface(made, quality)[0], first=first)
    assert found[0].windows == first[0]
    assert found[1].windows == {"a": Window(), **first[1]}


def test_infeasible_proposals_cost_nothing_and_are_listed() -> None:
    made = space(5, a=TEN, b=TEN[::-1])
    tight = {"a": Window(0, 0.5), "b": Window(0, 0.5)}  # no row is in both
    trained: list[int] = []

    def measure(batch: Sequence[Proposal]) -> list[float | None]:
        trained.extend(item.rows for item in batch)
        return [1.0] * len(batch)

    found = search(made, SearchPlan(4), measure, first=[tight])
    assert found[0].state is ProposalState.INFEASIBLE
    assert (found[0].rows, found[0].score, found[0].feasible) == (0, None, False)
    assert len(trained) == 4
    assert min(trained) >= 5


def test_equal_rows_are_trained_once_and_all_rows_never() -> None:
    made = space(5, a=TEN)
    trained: list[Proposal] = []

    def measure(batch: Sequence[Proposal]) -> list[float | None]:
        trained.extend(batch)
        return [float(len(trained))] * len(batch)

    again = {"a": Window(0.2, 0.8)}
    found = search(made, SearchPlan(500), measure, first=[{}, again, again])
    assert [item.state for item in found[:3]] == ["everything", "trained", "repeated"]
    assert [item.score for item in found[:3]] == [0.0, 1.0, 1.0]
    pools = [item.pool for item in trained]
    assert len(pools) == len(set(pools))
    # There are 20 windows of at least 5 of 10 ranks that are not all of them.
    assert len(pools) <= 20


def test_failed_proposals_are_told_from_bad_ones() -> None:
    made, quality = two_statistics()
    measure, _ = surface(made, quality)
    calls = 0

    def flaky(batch: Sequence[Proposal]) -> list[float | None]:
        nonlocal calls
        calls += 1
        return [None] * len(batch) if calls <= 2 else measure(batch)

    found = search(made, SearchPlan(6), flaky)
    assert [item.state for item in found if item.feasible][:2] == ["failed", "failed"]
    chosen = best(found)
    assert chosen is not None
    assert chosen.score == max(item.score for item in found if item.score is not None)
    assert best(search(made, SearchPlan(2), lambda batch: [None] * len(batch))) is None


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"proposals": 0}, "proposals is 0"),
        ({"proposals": 1, "batch": 0}, "batch is 0"),
        ({"proposals": 1, "seed": -1}, "seed is -1"),
    ],
)
def test_a_plan_needs_numbers_that_can_be_used(numbers: dict[str, int], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        SearchPlan(**numbers)


# Where it starts, and what is trained.


POOLS = pools(
    [pool(f"{name}/{part}", size=4) for name in "ab" for part in ("low", "middle", "high")]
)
RANKING = [
    ranking_row("a/high", 0.5),
    ranking_row("b/low", 0.3, "undecided"),
    ranking_row("a/middle", 0.1, "undecided"),
    ranking_row("b/high", math.nan, "stopped"),
]


def test_the_start_is_what_is_known_of_the_chosen_statistics() -> None:
    high, low = {"a": Window(2 / 3, 1)}, {"b": Window(0, 1 / 3)}
    found = start(Choice("", ("a/high", "b/low"), ""), RANKING, POOLS)
    assert found is not None
    assert found.names == ("a", "b")
    assert found.known == ((high, 0.5), (low, 0.3), ({"a": Window(1 / 3, 2 / 3)}, 0.1))
    assert found.first == ({**high, **low}, high)


def test_without_a_choice_it_is_what_was_called_better() -> None:
    found = start(None, RANKING, POOLS)
    assert found is not None
    assert (found.names, found.first) == (("a",), ({"a": Window(2 / 3, 1)},))
    assert start(None, RANKING[1:], POOLS) is None
    with pytest.raises(BadInput, match=r"search: unknown bucket 'c/high'.*known: a/low"):
        start(Choice("", ("c/high",), ""), RANKING, POOLS)


def test_the_pool_of_a_proposal_has_its_rows_and_no_excluded_ones() -> None:
    ids, eligible = np.arange(100, 112), np.arange(12) >= 2
    made = space(2, a=TEN)
    ranges = made.ranges({"a": Window(0.5, 1)})
    proposal = Proposal(0, {}, ranges, 5, "search/x", ProposalState.PROPOSED)
    pool, codes = proposed_arm(proposal, made, ids, eligible)
    assert ids[codes == pool.code].tolist() == [107, 108, 109, 110, 111]
    assert (codes[:2] == -3).all()
    assert (codes[2:7] == -2).all()


# What is handed on.


def second(verdict: str, effect: float) -> ConfirmationRow:
    ends = {"low": effect - 0.1, "high": effect + 0.1}
    return confirmation_row("search/x", effect, verdict, seeds=2, **ends)


CONFIRMED = second("better", 0.3)
REFUSED = [second("worse", -0.3), second("undecided", 0.05), second("failed", math.nan), None]


def report(confirmed: ConfirmationRow | None, score: float = 0.4, **more: Any) -> SearchReport:
    ranges = (Range("a", 0.5, None),)
    found = Proposal(0, {}, ranges, 5, "search/x", ProposalState.TRAINED, score)
    return SearchReport(SearchPlan(1), (found,), found, confirmed, **more)


def test_what_is_not_confirmed_is_not_handed_on() -> None:
    assert report(CONFIRMED).accepted
    assert report(CONFIRMED).summary.endswith("+0.3 [+0.2, +0.4], better")
    for look in REFUSED:
        assert not report(look).accepted
        assert "; not confirmed" in report(look).summary
        assert report(look).summary.endswith(": there are no thresholds (only_confirmed)")
        asked = report(look, only_confirmed=False)
        assert asked.accepted
        assert "no thresholds" not in asked.summary
    assert not report(None, score=-0.1, only_confirmed=False).accepted


@pytest.mark.parametrize("look", REFUSED)
def test_the_search_writes_no_thresholds_that_its_second_look_refused(
    look: ConfirmationRow | None, storage: Storage
) -> None:
    made, out = search_world.context(storage)
    hook, path = SearchThresholds(made), f"{made.folder}/search_thresholds.json"
    found = hook._report(POOLS, report(CONFIRMED))
    assert found is not None
    assert (found.path, found.pool) == (path, "search/x")
    assert hook._report(POOLS, report(look)) is None
    assert not storage.exists(path), "those of the search before"
    assert storage.read_sealed(f"{made.folder}/search.json")["accepted"] is False
    assert "there are no thresholds (only_confirmed)" in out.getvalue()
    assert hook._report(POOLS, report(look, only_confirmed=False)) is not None


def test_the_second_look_shares_nothing_with_the_studies_that_chose(storage: Storage) -> None:
    made, _ = search_world.context(storage)
    seeds = SearchThresholds(made)._fresh_seeds
    assert len(seeds) == 2
    assert seeds.start > 1000 + scaling_seeds(made.config, 1000).stop
    codes = np.zeros(400, np.int8)
    pool = Pool("search/x", PoolKind.BUCKET, "search/x", 0, 150, "")
    first = replace(POOLS, draw_size=100)
    look = confirmation_arms(first, (pool, codes), 3)
    before = second_look(first, ["a/low"], codes, 20).pools[1:]
    assert len(look.pools) == 4
    assert not {p.id for p in look.pools[1:]} & {p.id for p in before}
    assert {p.size for p in look.pools} == {150}
    assert all((codes == 0).sum() == 150 for codes in look.assignments.values())
    # Draws that take all of the pool: the controls alone measure the noise.
    whole = replace(pool, size=100)
    assert len(confirmation_arms(first, (whole, codes), 3).pools) == 9


# The whole of it on Ray.


def run(made: Any, given: search_world.Given, study: Any, **numbers: int) -> Any:
    hook = SearchThresholds(made)
    choice = Choice("choice", ("depth/high", "noise/low"), "")
    return hook, hook.run(*given, choice, study[1], study[0], **numbers)


@pytest.fixture(scope="module")
def studied(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """What a search starts from: a first study."""
    storage = Storage(str(tmp_path_factory.mktemp("searched") / "storage"))
    made, out = search_world.context(storage)
    given = search_world.inputs(made)
    return made, out, given, search_world.first_study(made, given)


@pytest.fixture(scope="module")
def searched(studied: tuple[Any, ...]) -> tuple[Any, ...]:
    """That, and a search."""
    made, _, given, study = studied
    return (*studied, *run(made, given, study, proposals=10))


def trial_files(storage: Storage) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in Path(storage.url, "trials").glob("*.json")}


@pytest.mark.integration
@pytest.mark.slow
def test_the_search_beats_the_best_bucket_and_is_confirmed(searched: tuple[Any, ...]) -> None:
    made, out, _, study, hook, found = searched
    ranking = pd.read_csv(made.storage.uri(study[1].path), index_col="pool")
    assert ranking["change"].idxmax() == "depth/high"
    columns = search_world.columns()
    rows = np.ones(search_world.ROWS, dtype=bool)
    for item in found.ranges:
        rows &= columns[item.statistic] >= (-np.inf if item.low is None else item.low)
        rows &= columns[item.statistic] <= (np.inf if item.high is None else item.high)
    assert search_world.good(np.flatnonzero(rows)).mean() > 0.75, "the high bucket has 0.7"
    text = made.storage.read_bytes(f"{made.folder}/search_confirmation.csv").decode()
    (second,) = from_csv(ConfirmationRow, text)
    assert second.pool == found.pool
    assert second.verdict == "better"
    assert second.seeds == 2
    assert second.confirmed > ranking.loc["depth/high", "change"]
    assert "best of 10 proposals" in found.source
    assert f"confirmed with fresh seeds and controls: {second.confirmed:+.3g}" in found.source
    assert found.source in out.getvalue()
    # 10 proposals, then the best and 5 controls with two fresh seeds each.
    assert hook.spent.samples == 100 * (10 + 6 * 2)
    assert hook.keep(found)
    # Where draws take whole pools, the second look has at least 8 controls.
    planned = hook.ahead(proposals=10)
    assert (planned.trials, planned.samples) == (10 + 9 * 2, 100 * (10 + 9 * 2))


@pytest.mark.integration
@pytest.mark.slow
def test_everything_that_was_tried_is_written(searched: tuple[Any, ...]) -> None:
    made, _, given, _, _, found = searched
    report = made.storage.read_sealed(f"{made.folder}/search.json")
    table = pd.read_csv(made.storage.uri(f"{made.folder}/search.csv"))
    assert table["number"].tolist() == [item["number"] for item in report["proposals"]]
    trained = table[table["state"] == "trained"]
    assert len(trained) == report["states"]["trained"] == 10
    assert (trained["rows"] >= given.pools.draw_size).all()
    assert trained.loc[trained["score"].idxmax(), "pool"] == found.pool
    assert report["plan"] == {"proposals": 10, "batch": 2, "seed": 0}
    kept = made.storage.read_sealed(found.path)
    assert [Range(**item) for item in kept["ranges"]] == list(found.ranges)
    assert kept["confirmed"]["verdict"] == "better"
    trials = pd.read_parquet(made.storage.uri(f"{made.folder}/search_trials.parquet"))
    assert set(trials["pool"]) == set(trained["pool"])
    assert set(trials["seed"]) == {0}
    second = made.storage.read_table(f"{made.folder}/search_confirmation_trials.parquet")
    assert set(second["seed"].to_pylist()) == {2**20, 2**20 + 1}, "no other study has these"
    own = {name for name in second["pool"].to_pylist() if name.startswith("control/")}
    assert own == {f"control/search/{i}" for i in range(5)}
    assert report["accepted"]


@pytest.mark.integration
@pytest.mark.slow
def test_the_same_again_trains_nothing(
    searched: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, _, given, study, hook, found = searched
    before = trial_files(made.storage)
    report = made.storage.read_sealed(f"{made.folder}/search.json")
    # What is proposed must not depend on the cluster of the day.
    monkeypatch.setattr("djsandbox_ray.hooks.search.slots", lambda group: 5)
    replay, again = run(made, given, study, proposals=10)
    assert again == found
    assert trial_files(made.storage) == before
    assert made.storage.read_sealed(f"{made.folder}/search.json") == report
    assert replay.spent.samples == hook.spent.samples, "a search that is resumed has its whole cost"


@pytest.mark.integration
@pytest.mark.slow
def test_a_killed_search_goes_on_with_what_is_missing(searched: tuple[Any, ...]) -> None:
    made, _, given, study, _, found = searched
    table = pd.read_parquet(made.storage.uri(f"{made.folder}/search_trials.parquet"))
    lost = [Path(made.storage.url, "trials", f"{trial}.json") for trial in table["trial"][-2:]]
    before = trial_files(made.storage)
    for path in lost:
        path.unlink()
    assert run(made, given, study, proposals=10)[1].ranges == found.ranges
    after = trial_files(made.storage)
    assert after.keys() == before.keys()
    assert {path for path in before if after[path] != before[path]} == set(lost)


@pytest.mark.integration
def test_wrong_numbers_and_no_start_cost_nothing(studied: tuple[Any, ...]) -> None:
    made, out, given, study = studied
    for numbers, words in (
        ({"seeds": 3}, r"seeds is 3; 1 to 2 \(trials.seeds\)"),
        ({"seeds": 0}, "seeds is 0"),
        ({"proposals": 0}, "proposals is 0"),
    ):
        with pytest.raises(BadInput, match=words):
            run(made, given, study, **numbers)
    text = made.storage.read_bytes(study[1].path).decode().replace("better", "undecided")
    made.storage.write_bytes("nothing.csv", text.encode())
    nothing = type(study[1])("ranking", "nothing.csv")
    assert SearchThresholds(made).run(*given, None, nothing, study[0]) is None
    assert "no pool was called better" in out.getvalue()


@pytest.mark.integration
def test_crashed_trials_are_tried_again(studied: tuple[Any, ...], tmp_path: Path) -> None:
    first, _, given, study = studied
    # A world of its own: another search in the same run would be the one that is resumed.
    storage = Storage(shutil.copytree(first.storage.url, tmp_path / "storage").as_posix())
    made, _ = search_world.context(storage, "Fragile")
    Path(storage.url).with_name("broken").touch()
    hook = SearchThresholds(made)
    choice = Choice("choice", ("depth/high",), "")
    with pytest.raises(SandboxError, match=r"no trial was completed; the last: .*broken"):
        hook.run(*given, choice, study[1], study[0], proposals=2)
    assert not hook.keep(None)
    assert json.loads(made.storage.read_bytes(f"{made.folder}/search_plan.json"))["batch"] == 2

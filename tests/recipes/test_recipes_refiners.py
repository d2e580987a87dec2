from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import refined_world as world
from pydantic import ValidationError

from djsandbox_ray.errors import BadInput
from djsandbox_ray.recipes.ranges import kept
from djsandbox_ray.recipes.refiner import REFINERS, Evidence, ProposedRange, Refiner
from djsandbox_ray.storage.store import Storage

LOW, MIDDLE, LONG = "special_char_ratio/low", "special_char_ratio/middle", "text_len/high"


def propose(evidence: Evidence, type: str, **settings: Any) -> tuple[ProposedRange, ...]:
    refiner = REFINERS.get(type)
    return refiner(refiner.Config(type=type, **settings)).propose(evidence)


@pytest.fixture
def evidence(storage: Storage) -> Any:
    def make(*chosen: str, **more: Any) -> Evidence:
        given = {"ranking": world.RANKING, **more}
        return Evidence(world.columns(), world.pools(storage), chosen=chosen, **given)

    return make


def test_neighbours_that_were_better_are_kept_too(evidence: Any) -> None:
    (found,) = propose(evidence(LOW), "model_feedback")
    assert (found.statistic, found.low) == ("special_char_ratio", None)
    values = world.columns()["special_char_ratio"]
    assert np.sum(values <= found.high) == round(2 / 3 * np.sum(~np.isnan(values)))
    assert found.high not in values
    assert found.origin == (
        "buckets special_char_ratio/low (better), special_char_ratio/middle (better)"
    )


def test_a_confirmation_replaces_the_first_verdict(evidence: Any) -> None:
    rows = [world.again(LOW, 0.1, "better"), world.again(MIDDLE, 0.01, "undecided")]
    (found,) = propose(evidence(LOW, confirmation=rows), "model_feedback")
    assert np.sum(world.columns()["special_char_ratio"] <= found.high) == 297
    assert found.origin == "buckets special_char_ratio/low (better in the confirmation)"
    (wider,) = propose(evidence(LOW, confirmation=rows), "model_feedback", keep="not_worse")
    assert np.sum(world.columns()["special_char_ratio"] <= wider.high) == 594


def test_a_combination_has_the_ranges_of_all_parts(evidence: Any) -> None:
    ratio, length = propose(evidence(LOW, LONG), "model_feedback", keep="not_worse")
    assert ratio.high is not None
    assert (length.high, length.low) == (None, round(length.low))
    # The failed bucket was not seen: it is not kept.
    assert np.sum(world.columns()["text_len"] < length.low) == pytest.approx(300, abs=20)


def test_rows_that_no_pool_is_made_of_have_no_part_in_the_cuts(evidence: Any) -> None:
    values = world.columns()["special_char_ratio"]
    eligible = ~(values > 0.25)
    (found,) = propose(evidence(LOW, eligible=eligible), "model_feedback")
    kept_rows = np.sum(values[eligible] <= found.high)
    assert kept_rows == round(2 / 3 * np.sum(~np.isnan(values[eligible])))


def test_no_range_where_everything_is_kept(evidence: Any) -> None:
    rows = [world.again(f"special_char_ratio/{b}", 0.1, "better") for b in ("middle", "high")]
    assert propose(evidence(LOW, confirmation=rows), "model_feedback") == ()


def test_percentiles_keep_their_share(evidence: Any) -> None:
    ratio, length = propose(evidence(LOW, LONG), "percentile", low=10, high=90)
    columns = world.columns()
    for found, slack in ((ratio, 2), (length, 40)):
        share = np.sum(kept(columns, [found]))
        assert share == pytest.approx(0.8 * np.sum(~np.isnan(columns[found.statistic])), abs=slack)
    own = {"text_len": {"low": 25}}
    (found,) = propose(Evidence(columns), "percentile", statistics=own)
    assert found.high is None
    assert found.origin == "percentiles 25 to 100 of 900 values"


def test_k_sigma_ignores_missing_values() -> None:
    column = np.array([*[0.0, 0.5] * 50, 40.5, np.nan])
    (found,) = propose(Evidence({"a": column}), "k_sigma", statistics=["a"])
    mean, sd = np.nanmean(column), np.nanstd(column)
    assert found.low == pytest.approx(mean - 3 * sd)
    assert found.high == pytest.approx((0.5 + 40.5) / 2)  # midway between the values around it
    (wide,) = propose(Evidence({"a": column}), "k_sigma", statistics=["a"], k=100)
    assert np.sum(kept({"a": column}, [wide])) == 101


@pytest.mark.parametrize("type", ["percentile", "k_sigma", "model_feedback"])
def test_nothing_chosen(type: str, evidence: Any) -> None:
    with pytest.raises(BadInput, match=f"{type}: "):
        propose(evidence(), type)


def test_without_any_trial_every_statistic_is_bounded() -> None:
    without = Evidence(world.columns())
    for type, settings in (("percentile", {"low": 10, "high": 90}), ("k_sigma", {"k": 1})):
        found = propose(without, type, **settings)
        assert [item.statistic for item in found] == list(world.columns())
    with pytest.raises(BadInput, match="model_feedback: "):
        propose(without, "model_feedback")


def test_bad_input(evidence: Any) -> None:
    with pytest.raises(BadInput, match="'control/0' is not a bucket"):
        propose(evidence("control/0"), "model_feedback")
    with pytest.raises(BadInput, match="are of one statistic"):
        propose(evidence(LOW, MIDDLE), "model_feedback")
    with pytest.raises(BadInput, match="unknown statistic 'text_length'; did you mean 'text_len'"):
        propose(evidence(), "k_sigma", statistics=["text_length"])
    for type, settings in (
        ("percentile", {"low": 60, "high": 40}),
        ("percentile", {"high": 101}),
        ("k_sigma", {"k": 0}),
        ("model_feedback", {"keep": "best"}),
    ):
        with pytest.raises(ValidationError):
            REFINERS.get(type).Config(type=type, **settings)


class Halves(Refiner):
    def propose(self, evidence: Evidence) -> tuple[ProposedRange, ...]:
        names = evidence.statistics
        return tuple(ProposedRange(n, None, float(np.nanmedian(evidence.column(n)))) for n in names)


def test_a_refiner_of_ones_own(evidence: Any) -> None:
    (found,) = propose(evidence(LOW), "test_recipes_refiners:Halves")
    assert found.high == pytest.approx(np.nanmedian(world.columns()["special_char_ratio"]))

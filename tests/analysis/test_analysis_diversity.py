"""Measures against their definitions, and the coverage of their intervals in simulations."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from simulations import mostly_slow

from djsandbox_ray.analysis.scale.diversity import (
    Captions,
    embedding_diversity,
    rank_correlation,
    words,
)
from djsandbox_ray.errors import BadInput


def captions(texts: list[str]) -> Captions:
    found = Captions()
    found.add(texts)
    return found


def by_definition(texts: list[str]) -> dict[str, float]:
    """Count with plain Python, as the papers define the measures."""
    found = {"word_entropy": math.nan}
    for n in (1, 2, 3):
        split = [words(text) for text in texts]
        grams = Counter(tuple(s[i : i + n]) for s in split for i in range(len(s) - n + 1))
        total = sum(grams.values())
        found[f"distinct_{n}"] = len(grams) / total if total else math.nan
        if n == 1 and total:
            found["word_entropy"] = -sum(c / total * math.log2(c / total) for c in grams.values())
    return found


def jackknife(texts: list[str], measure: str) -> float:
    """Return the standard error by leaving out every caption in turn, the slow way."""
    without = [by_definition(texts[:i] + texts[i + 1 :])[measure] for i in range(len(texts))]
    n = len(texts)
    return math.sqrt((n - 1) / n * sum((value - np.mean(without)) ** 2 for value in without))


TEXTS = st.lists(st.text(alphabet="ab c", max_size=12), max_size=8)


@settings(max_examples=80, deadline=None)
@given(texts=TEXTS)
def test_measures_are_those_of_the_papers(texts: list[str]) -> None:
    found = {name: measure.value for name, measure in captions(texts).measures()}
    expected = by_definition(texts)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=1e-12, nan_ok=True)


@settings(max_examples=20, deadline=None)
@given(
    texts=st.lists(
        st.lists(st.sampled_from("abcde"), min_size=3, max_size=6).map(" ".join),
        min_size=3,
        max_size=7,
    )
)
def test_closed_form_jackknife_is_the_slow_one(texts: list[str]) -> None:
    from scipy import stats

    t = stats.t.ppf(0.975, len(texts) - 1)
    for name, found in captions(texts).measures():
        if found.value < 1 or name == "word_entropy":
            reach = t * jackknife(texts, name)
            assert found.low == pytest.approx(max(found.value - reach, 0), abs=1e-9)
            highest = math.inf if name == "word_entropy" else 1.0
            assert found.high == pytest.approx(min(found.value + reach, highest), abs=1e-9)


def test_words() -> None:
    assert words("A red-and-RED  Bus, no. 42_b!") == ["a", "red", "and", "red", "bus", "no", "42_b"]
    assert words("  ...  ") == []
    assert words("Élan naïf") == ["élan", "naïf"]


def test_known_values() -> None:
    found = captions(["red", "Blue!", "red", "blue"])
    assert found.word_entropy().value == 1.0
    assert found.distinct(1).value == 0.5
    assert math.isnan(found.distinct(2).value)
    same = captions(["red bus"] * 5).word_entropy()
    assert (same.value, same.low, same.high) == (1.0, 1.0, 1.0)


def test_runs_do_not_cross_captions_and_chunks_do_not_matter() -> None:
    whole = captions(["a b", "b a", "", "a b c"])
    assert whole.distinct(2).value == 3 / 4  # a b, b a, a b, b c
    parts = Captions()
    for text in ["a b", "b a", "", "a b c"]:
        parts.add([text])
    assert list(parts.measures()) == list(whole.measures())
    assert parts.rows == 4


def test_what_cannot_be_measured_is_nan() -> None:
    for texts in ([], [""], ["", "..."]):
        assert math.isnan(captions(texts).word_entropy().value)
    alone = captions(["one caption", ""]).word_entropy()  # without the first nothing is left
    assert alone.value == 1
    assert math.isnan(alone.low)


def zipf_captions(rng: np.random.Generator, rows: int, order: np.ndarray) -> list[str]:
    """Captions of one of eight topics each: words of a caption are alike, as in life."""
    share = 1 / np.arange(1, order.shape[1] + 1) ** 1.05
    drawn = rng.choice(order.shape[1], size=(rows, 10), p=share / share.sum())
    topics = rng.integers(0, len(order), rows)
    drawn[:, ::2] = order[topics[:, None], drawn[:, ::2]]
    return [" ".join(f"w{word}" for word in row) for row in drawn]


def test_intervals_cover_the_expected_value() -> None:
    rng = np.random.default_rng(0)
    order = np.stack([rng.permutation(2_000) for _ in range(8)])
    runs = [dict(captions(zipf_captions(rng, 100, order)).measures()) for _ in range(150)]
    for name in runs[0]:
        truth = np.mean([run[name].value for run in runs])
        cover = np.mean([run[name].low <= truth <= run[name].high for run in runs])
        width = np.mean([run[name].high - run[name].low for run in runs]) / 2
        spread = np.std([run[name].value for run in runs])
        assert cover >= 0.9, name
        # The jackknife errs on the wide side, but not by much; nearly 1, a ratio is cut at 1.
        if name in ("word_entropy", "distinct_1"):
            assert width < 1.5 * 1.98 * spread, name


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(2, 12))
def test_embedding_diversity_is_the_mean_over_pairs(seed: int, n: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(n, 4)) + 0.5
    units = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def mean(part: np.ndarray) -> float:
        cosines = part @ part.T
        return float(1 - cosines[~np.eye(len(part), dtype=bool)].mean())

    found = embedding_diversity(vectors)
    assert found.value == pytest.approx(mean(units), abs=1e-12)
    if n > 2:
        from scipy import stats

        without = np.array([mean(np.delete(units, i, axis=0)) for i in range(n)])
        error = math.sqrt((n - 1) / n * ((without - without.mean()) ** 2).sum())
        reach = stats.t.ppf(0.975, n - 1) * error
        assert found.low == pytest.approx(max(found.value - reach, 0), abs=1e-9)
        assert found.high == pytest.approx(min(found.value + reach, 2), abs=1e-9)


def test_embedding_intervals_cover_the_true_value() -> None:
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(5, 16))

    def sample(rows: int) -> np.ndarray:
        return centres[rng.integers(0, 5, rows)] + 0.8 * rng.normal(size=(rows, 16))

    truth = embedding_diversity(sample(200_000)).value
    runs = [embedding_diversity(sample(200)) for _ in range(300)]
    cover = np.mean([run.low <= truth <= run.high for run in runs])
    assert 0.9 <= cover <= 0.99
    assert np.mean([run.value for run in runs]) == pytest.approx(truth, abs=0.005)


def test_embedding_edges() -> None:
    assert math.isnan(embedding_diversity(np.ones((1, 3))).value)
    two = embedding_diversity(np.eye(2))
    assert two.value == pytest.approx(1)
    assert math.isnan(two.low)
    same = embedding_diversity(np.ones((9, 3)))
    assert same.value == pytest.approx(0, abs=1e-12)
    with pytest.raises(BadInput, match="vector of row 1 is zero or not finite"):
        embedding_diversity(np.array([[1.0, 0], [0, 0]]))
    with pytest.raises(BadInput, match="row 0"):
        embedding_diversity(np.array([[np.nan, 0], [1, 0]]))


GROUPS, STUDIES = 6, 300


def test_rho_is_scipys() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 12))
    found = rank_correlation(x.tolist(), y.tolist())
    assert found is not None
    assert found.rho == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found.low < found.rho < found.high


def test_the_interval_holds_the_truth() -> None:
    rng = np.random.default_rng(1)
    r = 0.6
    truth = 6 / np.pi * np.arcsin(r / 2)  # Spearman's rho of a bivariate normal
    hits = []
    for _ in range(300):
        x = rng.normal(size=15)
        y = r * x + np.sqrt(1 - r**2) * rng.normal(size=15)
        found = rank_correlation(x.tolist(), y.tolist())
        assert found is not None
        hits.append(found.low <= truth <= found.high)
    assert 0.92 <= np.mean(hits) <= 0.98


@pytest.mark.parametrize("sign", [1, -1])
def test_a_perfect_order_of_few_points_is_not_certain(sign: int) -> None:
    found = rank_correlation([1, 2, 3, 4, 5], [sign * v for v in (1, 2, 3, 4, 5)])
    assert found is not None
    assert found.rho == pytest.approx(sign)
    assert found.high - found.low > 0.3


def test_too_few_points_or_none_that_vary_say_nothing() -> None:
    assert rank_correlation([1, 2, 3, 4], [1, 2, 3, 4]) is None
    assert rank_correlation([1, 1, 1, 1, 1], [1, 2, 3, 4, 5]) is None
    with pytest.raises(ValueError, match="2 and 1 numbers"):
        rank_correlation([1, 2], [1])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_what_has_no_rank_is_refused(bad: float) -> None:
    for x, y in (([1, 2, 3, 4, bad], [1, 2, 3, 4, 5]), ([1, 2, 3, 4, 5], [1, bad, 3, 4, 5])):
        with pytest.raises(ValueError, match="not finite"):
            rank_correlation(x, y)


def halves(rng: np.random.Generator) -> Any:
    high = rng.normal(size=(GROUPS, 1))
    return np.concatenate([-high, high], axis=1) + 0.02 * rng.normal(size=(GROUPS, 2))


def thirds(rng: np.random.Generator) -> Any:
    values = rng.normal(size=(GROUPS, 3))
    return values - values.mean(axis=1, keepdims=True)


def slopes(rng: np.random.Generator) -> Any:
    high = rng.normal(size=(GROUPS, 1))
    return np.concatenate([-high, 0 * high, high], axis=1) + 0.02 * rng.normal(size=(GROUPS, 3))


@pytest.mark.parametrize("parts", mostly_slow([halves, thirds, slopes], slopes))
def test_parts_of_statistics_that_have_nothing_to_do_with_the_effect(parts: Any) -> None:
    rng = np.random.default_rng(2)
    false = {"dependent": 0, "as if independent": 0}
    for _ in range(STUDIES):
        x, y = parts(rng), parts(rng)
        groups = np.repeat(np.arange(GROUPS).astype(str), x.shape[1]).tolist()
        for name, own in (("dependent", groups), ("as if independent", None)):
            found = rank_correlation(x.ravel().tolist(), y.ravel().tolist(), own)
            assert found is not None
            false[name] += found.low > 0 or found.high < 0
    most = stats.binom.isf(0.001, STUDIES, 0.05)
    assert false["dependent"] <= most
    if parts is not thirds:
        assert false["as if independent"] > most, "the simulation must be able to fail"


def test_groups_count_once() -> None:
    x, groups = list(range(8)), list("aabbccdd")
    assert rank_correlation(x, x, groups) is None
    assert rank_correlation(x, x, [*groups[:-1], "e"]) is not None

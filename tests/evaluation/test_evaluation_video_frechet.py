"""Distances of features: closed forms, another way to compute them, and what has none."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import sqrtm

from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.video.frechet import (
    LEAST,
    checked,
    frechet_distance,
    kernel_distance,
)


def drawn(seed: int, count: int, dimensions: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, dimensions))


def test_two_gaussians_whose_distance_is_known() -> None:
    rng = np.random.default_rng(0)
    real, made = rng.normal(size=(4000, 3)), 1 + 2 * rng.normal(size=(4000, 3))
    # In closed form |1|^2 + tr(I) + tr(4 I) - 2 tr(2 I) = 6; of this draw:
    assert frechet_distance(real, made) == pytest.approx(5.919, abs=5e-4)
    # Moved and scaled until mean and covariance are exactly those of the closed form.
    exact = real - real.mean(axis=0)
    exact = exact @ np.linalg.inv(np.linalg.cholesky(np.cov(exact.T))).T
    assert frechet_distance(exact, 1 + 2 * exact) == pytest.approx(6, abs=1e-12)


def test_eigenvalues_give_what_the_root_of_the_product_gives() -> None:
    mixed = drawn(1, 5, 5)
    real, made = drawn(2, 400, 5), drawn(3, 300, 5) @ mixed + 0.3
    first, second = np.cov(real.T), np.cov(made.T)
    mean = np.square(real.mean(axis=0) - made.mean(axis=0)).sum()
    known = mean + np.trace(first + second - 2 * sqrtm(first @ second).real)
    assert frechet_distance(real, made) == pytest.approx(known, abs=1e-10)
    assert frechet_distance(made, real) == pytest.approx(known, abs=1e-10)
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-10)


def test_without_full_rank_there_still_is_a_distance() -> None:
    real, made = drawn(4, 6, 20), drawn(5, 7, 20)
    assert frechet_distance(real, made) > 0
    assert frechet_distance(real, real) == pytest.approx(0, abs=1e-6)


def test_the_kernel_distance_is_the_mean_over_pairs() -> None:
    real, made = drawn(6, 7, 2), drawn(7, 5, 2) + 1

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 2 + 1) ** 3)

    def inside(some: np.ndarray) -> float:
        pairs = [(a, b) for a in range(len(some)) for b in range(len(some)) if a != b]
        return sum(kernel(some[a], some[b]) for a, b in pairs) / len(pairs)

    across = np.mean([kernel(x, y) for x in real for y in made])
    known = inside(real) + inside(made) - 2 * across
    assert kernel_distance(real, made) == pytest.approx(known, abs=1e-12)


def test_the_kernel_distance_of_one_world_is_about_zero_and_may_be_negative() -> None:
    found = [kernel_distance(drawn(seed, 256), drawn(seed + 100, 256)) for seed in range(8)]
    assert min(found) < 0 < max(found)
    assert abs(np.mean(found)) < 0.2 < kernel_distance(drawn(0, 256), drawn(1, 256) + 1)


def test_few_videos_are_refused_unless_forced() -> None:
    few = drawn(0, LEAST - 1)
    with pytest.raises(BadInput, match=r"the made videos: 255 videos; at least 256 are needed \("):
        checked(few, "the made videos")
    assert checked(few, "the made videos", force=True).dtype == np.float64
    with pytest.raises(BadInput, match=r"1 videos; at least 2 are needed$"):
        checked(few[:1], "the made videos", force=True)


def test_more_features_than_videos_have_no_covariance() -> None:
    wide = drawn(0, 300, 300)
    with pytest.raises(BadInput, match="covariance of 300 features has no full rank with 300"):
        checked(wide, "real videos")
    assert checked(wide, "real videos", force=True) is not None
    assert checked(wide[:, :299].astype(np.float32), "real videos").dtype == np.float64


@pytest.mark.parametrize(
    ("features", "what"),
    [
        (np.full((300, 2), np.nan), "not finite"),
        (np.ones((300, 2)), "all 300 videos have the same features"),
        (np.ones(300), r"features of shape \(videos, dimensions\), not \(300,\)"),
    ],
)
def test_what_are_no_features(features: np.ndarray, what: str) -> None:
    with pytest.raises(BadInput, match=what):
        checked(features, "real videos", force=True)


def test_features_of_two_models_are_not_compared() -> None:
    for distance in (frechet_distance, kernel_distance):
        with pytest.raises(BadInput, match="of 3 and of 4 dimensions cannot be compared"):
            distance(drawn(0, 10, 3), drawn(0, 10, 4))

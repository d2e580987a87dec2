from __future__ import annotations

import math

import numpy as np
import pytest
from table_encoder import TableEncoder, split_of, unit

from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.contrastive_nll import ContrastiveNll, ContrastiveNllConfig

NAME = "contrastive_nll/pair"


def loss(encoder: TableEncoder, captions: list[str], **settings: int) -> float:
    config = ContrastiveNllConfig(type="contrastive_nll", **settings)
    return ContrastiveNll(config).evaluate(encoder, split_of(captions))[NAME]


def mixed(captions: list[str], share: float, seed: int = 0) -> TableEncoder:
    """Images are their captions and noise: ``share`` of the former."""
    rng = np.random.default_rng(seed)
    texts = {text: unit(rng.normal(size=16)) for text in sorted(set(captions))}
    own = np.stack([texts[text] for text in captions])
    noise = unit(rng.normal(size=own.shape))
    return TableEncoder(unit(share * own + (1 - share) * noise), texts)


PAIRS = [f"caption {number}" for number in range(40)]


def by_definition(similarity: np.ndarray, factor: float) -> float:
    """CLIP's loss: cross entropy over rows and over columns."""
    total = 0.0
    for table in (similarity, similarity.T):
        chances = np.exp(factor * table)
        chances /= chances.sum(axis=1, keepdims=True)
        total -= np.log(np.diag(chances)).mean()
    return float(total / 2)


def test_it_is_the_loss_of_clip_at_the_best_temperature() -> None:
    encoder = mixed(PAIRS, 0.4)
    similarity = encoder.images(split_of(PAIRS)) @ encoder.texts(PAIRS).T
    best = min(by_definition(similarity.astype(float), factor) for factor in range(1, 40))
    assert best - 1e-2 < loss(encoder, PAIRS) <= best + 1e-6


def test_a_model_that_knows_nothing_has_the_logarithm_of_the_candidates() -> None:
    flat = TableEncoder(np.tile([1.0, 0.0], (40, 1)), dict.fromkeys(PAIRS, (1.0, 0.0)))
    assert loss(flat, PAIRS) == pytest.approx(math.log(40))
    assert loss(flat, PAIRS, candidates=10) == pytest.approx(math.log(10))
    wrong = mixed(PAIRS, 0.0)
    assert loss(wrong, PAIRS) <= math.log(40) + 1e-3


def test_better_models_have_less() -> None:
    losses = [loss(mixed(PAIRS, share), PAIRS) for share in (0.1, 0.3, 0.5, 0.9)]
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.01


def test_how_sharp_a_model_is_does_not_count() -> None:
    encoder = mixed(PAIRS, 0.4)
    images, texts = encoder.images(split_of(PAIRS)), encoder.texts(PAIRS)
    blunt = TableEncoder(0.3 * images, dict(zip(PAIRS, texts, strict=True)))
    assert loss(blunt, PAIRS) == pytest.approx(loss(encoder, PAIRS), rel=1e-4)


def test_another_pair_with_the_same_caption_is_neither_right_nor_wrong() -> None:
    once, twice = ["a", "b"], ["a", "b", "a"]
    vectors = {"a": unit([1.0, 0.2]), "b": unit([0.1, 1.0])}
    images = unit([[1.0, 0.0], [0.0, 1.0], [0.9, 0.1]])
    assert loss(TableEncoder(images[:2], vectors), once) < 1e-3
    assert loss(TableEncoder(images, vectors), twice) < 1e-3


def test_pairs_that_cannot_be_told_apart_are_bad_input() -> None:
    config = ContrastiveNllConfig(type="contrastive_nll", candidates=2)
    ContrastiveNll(config).check(split_of(["a", "b"]))
    with pytest.raises(BadInput, match="all have one caption; more 'candidates' are needed"):
        ContrastiveNll(config).check(split_of(["a"] * 6))
    with pytest.raises(BadInput, match="1 pairs cannot be told apart"):
        ContrastiveNll(config).check(split_of(["a"]))

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from table_encoder import TableEncoder, split_of, unit

from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.retrieval import Retrieval, RetrievalConfig, first_hit


def make(*k: int) -> Retrieval:
    return Retrieval(RetrievalConfig(type="retrieval", k=list(k)))


def test_numbers_computed_by_hand() -> None:
    """Image 0 finds its text first, image 1 second, image 2 last; texts likewise by columns."""
    similarity = np.array([[0.9, 0.1, 0.2], [0.8, 0.7, 0.1], [0.3, 0.4, 0.2]])
    encoder = TableEncoder(similarity, dict(zip("abc", np.eye(3), strict=True)))
    found = make(1, 2).evaluate(encoder, split_of("abc"))
    assert found == pytest.approx(
        {
            "retrieval/image_to_text_r1": 1 / 3,
            "retrieval/image_to_text_r2": 2 / 3,
            "retrieval/text_to_image_r1": 2 / 3,  # column 2: images 0 and 2 tie, which counts
            "retrieval/text_to_image_r2": 1.0,  # against the model
        }
    )


def recall(similarity: Any, truth: list[int], texts: int, k: int) -> tuple[float, float]:
    """Recall both ways from the definition: sort, wrong answers first among equals, look at k."""
    to_text = to_image = 0
    for image, true in enumerate(truth):
        order = sorted(range(texts), key=lambda text: (-similarity[image][text], text == true))
        to_text += true in order[:k]
    for text in range(texts):
        order = sorted(
            range(len(truth)), key=lambda image: (-similarity[image][text], truth[image] == text)
        )
        to_image += any(truth[image] == text for image in order[:k])
    return to_text / len(truth), to_image / texts


@given(
    truth=st.lists(st.integers(0, 7), min_size=1, max_size=20),
    seed=st.integers(0, 10_000),
    levels=st.sampled_from([1, 2, 3, 1000]),
    k=st.integers(1, 8),
)
def test_against_the_definition_with_ties_and_repeated_captions(
    truth: list[int], seed: int, levels: int, k: int
) -> None:
    names = sorted(set(truth))
    truth = [names.index(number) for number in truth]
    rng = np.random.default_rng(seed)
    similarity = rng.integers(0, levels, (len(truth), len(names))).astype(np.float32)
    captions = [f"caption {number}" for number in range(len(names))]
    encoder = TableEncoder(similarity, dict(zip(captions, np.eye(len(names)), strict=True)))
    found = make(k).evaluate(encoder, split_of([captions[number] for number in truth]))
    assert list(found.values()) == pytest.approx(recall(similarity, truth, len(names), k))


def test_a_perfect_model_finds_everything() -> None:
    captions = ["a", "b", "a", "c", "b"]
    vectors = dict(zip("abc", unit(np.eye(3)), strict=True))
    encoder = TableEncoder([vectors[caption] for caption in captions], vectors)
    found = make(1, 2).evaluate(encoder, split_of(captions))
    assert set(found.values()) == {1.0}


@pytest.mark.parametrize("value", [0.5, float("nan")])
def test_a_collapsed_model_scores_zero(value: float) -> None:
    captions = [f"caption {number}" for number in range(30)]
    encoder = TableEncoder(np.full((30, 4), value), dict.fromkeys(captions, np.full(4, value)))
    found = make(1, 5, 10).evaluate(encoder, split_of(captions))
    assert len(found) == 6
    assert set(found.values()) == {0.0}


def test_one_row_of_nan_finds_nothing_and_is_found_by_nothing() -> None:
    similarity = np.eye(4, dtype=np.float32)
    similarity[2] = np.nan
    assert first_hit(similarity, np.eye(4, dtype=bool)).tolist() == [0, 0, 3, 0]
    assert first_hit(similarity.T, np.eye(4, dtype=bool)).tolist() == [1, 1, 3, 1]


def test_a_repeated_caption_is_one_text_with_several_images() -> None:
    """One of its images among the first k is a hit; its other images are no mistakes."""
    captions = ["a", "a", "b"]
    encoder = TableEncoder([(0.1, 0.0), (0.9, 0.5), (0.8, 0.6)], {"a": (1, 0), "b": (0, 1)})
    assert make(1).evaluate(encoder, split_of(captions)) == pytest.approx(
        {
            "retrieval/image_to_text_r1": 2 / 3,  # image 2 is nearer to a
            "retrieval/text_to_image_r1": 1.0,  # image 1 for a, image 2 for b
        }
    )


def test_more_may_be_looked_at_only_finds_more() -> None:
    rng = np.random.default_rng(0)
    captions = [f"{number}" for number in range(40)]
    table = dict(zip(captions, unit(rng.normal(size=(40, 3))), strict=True))
    found = make(1, 5, 10, 39).evaluate(
        TableEncoder(unit(rng.normal(size=(40, 3))), table), split_of(captions)
    )
    for way in ("image_to_text", "text_to_image"):
        recalls = [found[f"retrieval/{way}_r{k}"] for k in (1, 5, 10, 39)]
        assert recalls == sorted(recalls)
        assert 0 < recalls[1] < 1


def test_the_names_are_known_beforehand() -> None:
    captions = [f"{number}" for number in range(12)]
    encoder = TableEncoder(np.eye(12), dict(zip(captions, np.eye(12), strict=True)))
    evaluator = Retrieval(RetrievalConfig(type="retrieval"))
    evaluator.check(split_of(captions))
    names = tuple(metric.name for metric in evaluator.metrics())
    assert tuple(evaluator.evaluate(encoder, split_of(captions))) == names
    assert names[2] == "retrieval/image_to_text_r10"


@pytest.mark.parametrize("captions", [["a", "b", "c"], ["a", "b", "c", "a", "a"]])
def test_a_k_that_finds_everything_is_bad_input(captions: list[str]) -> None:
    make(1, 2).check(split_of(captions))
    with pytest.raises(BadInput, match="k = 3 finds everything among the 3 different texts"):
        make(1, 3).check(split_of(captions))


@pytest.mark.parametrize("k", [[], [0], [-1], [1, 1], [1.5], ["one"]])
def test_bad_ks(k: list[Any]) -> None:
    with pytest.raises(ValidationError):
        RetrievalConfig(type="retrieval", k=k)

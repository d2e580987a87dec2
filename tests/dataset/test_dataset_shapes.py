from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from djsandbox_ray.dataset.images import decode
from djsandbox_ray.dataset.source import Sample, Source
from djsandbox_ray.dataset.world import (
    BACKGROUNDS,
    BLOCK,
    CLEAN,
    COLOURS,
    DEFECTS,
    SHAPES,
    plan_defects,
)

ALL = {
    "mismatched": 0.4,
    "blur": 0.07,
    "low_contrast": 0.05,
    "boilerplate": 0.1,
    "repeated_words": 0.03,
    "special_characters": 0.05,
    "odd_size": 0.1,
}


def samples(source: Source) -> list[Sample]:
    return [item for shard in source.shards() for item in shard.read()]  # type: ignore[misc]


@pytest.fixture(scope="module")
def world(open_source) -> list[Sample]:
    return samples(open_source("shapes", samples=1200, seed=5, defects=ALL))


def test_every_defect_has_its_exact_number(world) -> None:
    counts = Counter(sample.meta["defect"] for sample in world)
    expected = {name: round(1200 * fraction) for name, fraction in ALL.items()}
    assert counts == {**expected, CLEAN: 1200 - sum(expected.values())}


@given(
    percents=st.dictionaries(st.sampled_from(DEFECTS), st.integers(0, 14), min_size=1),
    seed=st.integers(0, 100),
    block=st.integers(0, 1000),
)
def test_every_block_holds_the_exact_numbers(
    percents: dict[str, int], seed: int, block: int
) -> None:
    planned = plan_defects({name: value / 100 for name, value in percents.items()}, seed, block)
    counts = Counter(planned)
    clean = BLOCK - sum(percents.values())
    assert counts == +Counter({**{(name,): count for name, count in percents.items()}, (): clean})


@given(
    percents=st.dictionaries(st.sampled_from(DEFECTS), st.integers(0, 100), min_size=1),
    seed=st.integers(0, 100),
    block=st.integers(0, 1000),
)
def test_independent_defects_have_their_exact_numbers_each(
    percents: dict[str, int], seed: int, block: int
) -> None:
    fractions = {name: value / 100 for name, value in percents.items()}
    planned = plan_defects(fractions, seed, block, independent=True)
    assert len(planned) == BLOCK
    for name, count in percents.items():
        assert sum(name in defects for defects in planned) == count
    assert all(list(defects) == sorted(defects, key=DEFECTS.index) for defects in planned)


def test_independent_defects_occur_together(open_source) -> None:
    fractions = {"mismatched": 0.5, "low_contrast": 0.5}
    source = open_source("shapes", samples=2000, defects=fractions, independent=True)
    counts = Counter(sample.meta["defect"] for sample in samples(source))
    assert set(counts) == {CLEAN, "mismatched", "low_contrast", "mismatched+low_contrast"}
    assert all(abs(count - 500) < 60 for count in counts.values())


def test_a_full_set_of_fractions_leaves_none_clean(open_source) -> None:
    fractions = {"mismatched": 0.1, "blur": 0.2, "odd_size": 0.7}
    source = open_source("shapes", samples=300, defects=fractions)
    counts = Counter(sample.meta["defect"] for sample in samples(source))
    assert counts == {"mismatched": 30, "blur": 60, "odd_size": 210}


def test_a_sample_does_not_depend_on_how_many_there_are(open_source, world) -> None:
    fewer = samples(open_source("shapes", samples=730, seed=5, defects=ALL))
    assert fewer == world[:730]


def test_the_order_of_defects_in_the_config_does_not_matter(open_source, world) -> None:
    turned = dict(reversed(ALL.items()))
    assert samples(open_source("shapes", samples=100, seed=5, defects=turned)) == world[:100]


def test_other_seeds_give_other_samples_and_none_occurs_twice(open_source, world) -> None:
    other = samples(open_source("shapes", samples=500, seed=6))
    images = [sample.image for sample in [*world, *other]]
    assert len(set(images)) == len(images)


def test_clean_captions_name_what_the_image_shows(world) -> None:
    clean = [sample for sample in world if sample.meta["defect"] == CLEAN]
    for sample in clean:
        words = sample.text.replace(",", "").split()
        assert {sample.meta["colour"], sample.meta["shape"], sample.meta["background"]} < {*words}
        assert len(words) <= 12
    for key, values in (("colour", COLOURS), ("shape", SHAPES), ("background", BACKGROUNDS)):
        assert {sample.meta[key] for sample in clean} == set(values)


def test_colour_and_background_are_those_of_the_pixels(world) -> None:
    def nearest(pixel, names) -> str:
        return min(names, key=lambda name: float(np.abs(np.subtract(pixel, names[name])).sum()))

    def right(sample: Sample) -> tuple[bool, bool]:
        pixels = np.asarray(decode(sample.image)).astype(float)
        edge = np.concatenate([pixels[:2].reshape(-1, 3), pixels[-2:].reshape(-1, 3)])
        background = np.median(edge, axis=0)
        distance = np.abs(pixels - background).sum(-1)
        # The brightest part of the shape is not darkened by its texture.
        inside = pixels[distance > 0.6 * distance.max()]
        shape = np.percentile(inside, 75, axis=0)
        return (
            nearest(background, BACKGROUNDS) == sample.meta["background"],
            nearest(shape, COLOURS) == sample.meta["colour"],
        )

    clean = [sample for sample in world if sample.meta["defect"] == CLEAN]
    backgrounds, colours = np.mean([right(sample) for sample in clean], axis=0)
    assert backgrounds > 0.95
    assert colours > 0.8  # chance is 1 in 8


def test_mismatched_captions_contradict_colour_and_background(world) -> None:
    for sample in world:
        if sample.meta["defect"] == "mismatched":
            words = sample.text.replace(",", "").split()
            assert sample.meta["colour"] not in words
            assert sample.meta["background"] not in words


def test_image_defects_show_in_the_pixels(world) -> None:
    def of(defect: str, measure) -> np.ndarray:
        chosen = [sample for sample in world if sample.meta["defect"] == defect]
        return np.array([measure(np.asarray(decode(item.image)).astype(float)) for item in chosen])

    def spread(pixels) -> float:
        return float(pixels.std(axis=(0, 1)).max())

    def ratio(pixels) -> float:
        return pixels.shape[1] / pixels.shape[0]

    def edges(pixels) -> float:
        return float(np.abs(np.diff(pixels, axis=1)).max())

    assert of("low_contrast", spread).max() < of(CLEAN, spread).min()
    assert set(of("odd_size", ratio)) == {4.0, 0.25}
    assert set(of(CLEAN, ratio)) == {1.0}
    assert np.quantile(of("blur", edges), 0.95) < np.quantile(of(CLEAN, edges), 0.05)


def test_text_defects_show_in_their_own_statistics(world) -> None:
    def of(defect: str, measure) -> list[float]:
        return [measure(sample.text) for sample in world if sample.meta["defect"] == defect]

    def special(text: str) -> float:
        return sum(not (letter.isalnum() or letter in " ,") for letter in text) / len(text)

    def repeated(text: str) -> float:
        return max(Counter(text.split()).values()) / len(text.split())

    assert min(of("boilerplate", len)) > max(of(CLEAN, len))
    assert min(of("special_characters", special)) > 0.4 > max(of(CLEAN, special))
    assert min(of("repeated_words", repeated)) == 1.0 > max(of(CLEAN, repeated))


def test_the_image_size_is_that_of_the_config(open_source) -> None:
    (sample,) = samples(open_source("shapes", samples=1, image_size=48))
    assert decode(sample.image).size == (48, 48)


@pytest.mark.parametrize(
    ("defects", "message"),
    [
        ({"blurr": 0.1}, r"unknown defect 'blurr'; did you mean 'blur'\? .known: mismatched"),
        ({"blur": 1.5}, "not a fraction"),
        ({"blur": 0.125}, "not a whole number of percent"),
        ({"blur": 0.6, "odd_size": 0.6}, "add up to 1.2, more than 1"),
    ],
)
def test_bad_fractions_are_refused(open_source, defects, message) -> None:
    with pytest.raises(ValidationError, match=message):
        open_source("shapes", samples=10, defects=defects)

"""What a recipe decides of rows, by every medium and by the mean, from the sizes of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tiny_models
import yaml
from acceptance_world import picture, write_documents, write_table

from djsandbox_ray.dataset.media import Media
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.dataset.source import Sample
from djsandbox_ray.errors import BadInput
from djsandbox_ray.recipes.decisions import decisions
from djsandbox_ray.recipes.recipe_file import RecipeFile, read_recipe
from djsandbox_ray.records import Range
from djsandbox_ray.storage.store import Storage

WIDTHS = ((50,), (10,), (20, 80), (45, 55), (10, 20), ())
"""Of the pictures of each sample; 40 to 60 are kept."""


def recipe_of(folder: Path, *process: object) -> RecipeFile:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump({"process": list(process)}))
    return read_recipe(path)


@pytest.fixture
def table(storage: Storage) -> SampleTable:
    samples = [
        Sample(
            b"",
            f"sample {number}",
            "",
            media=tuple(Media("image", picture(width, 50, number)) for width in widths),
        )
        for number, widths in enumerate(WIDTHS)
    ]
    return SampleTable(storage.uri(write_documents(storage, samples).table))


@pytest.mark.parametrize("strategy", ["any", "all"])
def test_each_picture_is_compared_and_so_is_the_mean(
    table: SampleTable, tmp_path: Path, strategy: str
) -> None:
    bounds = {"min_width": 40, "max_width": 60, "any_or_all": strategy}
    recipe = recipe_of(tmp_path, {"image_shape_filter": bounds})
    rows = np.arange(len(WIDTHS))
    found = decisions(recipe, table, rows, pairs=False)
    assert np.flatnonzero(found.data_juicer).tolist() == [0, 3, 5]
    assert np.flatnonzero(found.statistics).tolist() == [0, 2, 3]
    # Only some rows, in the order that is asked for.
    some = decisions(recipe, table, np.array([5, 2, 0]), pairs=False)
    assert some.data_juicer.tolist() == [True, False, True]
    assert some.statistics.tolist() == [False, True, True]


@pytest.mark.parametrize(("strategy", "kept"), [("any", True), ("all", False)])
def test_of_several_pictures_any_or_all_must_pass(
    table: SampleTable, tmp_path: Path, strategy: str, kept: bool
) -> None:
    bounds = {"min_width": 70, "max_width": 90, "any_or_all": strategy}
    recipe = recipe_of(tmp_path, {"image_shape_filter": bounds})
    found = decisions(recipe, table, np.array([2]), pairs=False)
    assert (found.data_juicer.tolist(), found.statistics.tolist()) == ([kept], [False])


def test_means_are_compared_with_what_was_promised(table: SampleTable, tmp_path: Path) -> None:
    """A mean may lie between the last whole number that a filter keeps and the promised bound."""
    recipe = recipe_of(tmp_path, {"image_shape_filter": {"max_width": 49, "any_or_all": "all"}})
    (mean,) = {float(np.mean(WIDTHS[2]))}
    assert mean > 49
    rows = np.array([2])
    plain = decisions(recipe, table, rows, pairs=False)
    promised = [Range("image_width", None, mean)]
    found = decisions(recipe, table, rows, pairs=False, promised=promised)
    assert (plain.statistics.tolist(), found.statistics.tolist()) == ([False], [True])
    assert plain.data_juicer.tolist() == found.data_juicer.tolist() == [False]


def test_every_operator_has_its_say(table: SampleTable, tmp_path: Path) -> None:
    """One stands there twice, with columns of its own: which these are does not matter here."""
    sizes = {"image_shape_filter": {"min_width": 40, "image_key": "pictures"}}
    texts = [{"text_length_filter": {"min_len": 8, "text_key": "plain"}}]
    texts += [{"text_length_filter": {"max_len": 8}}]
    found = decisions(recipe_of(tmp_path, sizes, *texts), table, np.arange(6), pairs=False)
    assert np.flatnonzero(found.data_juicer).tolist() == [0, 2, 3, 5]
    assert np.flatnonzero(found.statistics).tolist() == [0, 2, 3]
    more = [{"text_length_filter": {"min_len": 9, "max_len": 99}}]
    found = decisions(recipe_of(tmp_path, sizes, *texts, *more), table, np.arange(6), pairs=False)
    assert not found.data_juicer.any()


def test_a_text_without_a_second_one_is_kept_and_has_no_value(
    storage: Storage, tmp_path: Path
) -> None:
    texts = ["a red dog", "a red dog"]
    metas = [{"title": "a red dog"}, {}]
    table = SampleTable(
        storage.uri(write_table(storage, texts, [picture(8, 8, 0)] * 2, metas).table)
    )
    tried = "a photo of a small dog"  # what operators are tried out with
    params = {
        "hf_clip": str(tiny_models.clip_for([*texts, tried], tmp_path)),
        "text_key_second": "meta.title",
        "min_score": 0.5,
    }
    recipe = recipe_of(tmp_path, {"text_pair_similarity_filter": params})
    found = decisions(recipe, table, np.arange(2), pairs=True)
    assert found.data_juicer.tolist() == [True, True]
    assert found.statistics.tolist() == [True, False]


def test_what_keeps_two_ranges_has_no_statistics_to_stand_for(
    table: SampleTable, tmp_path: Path
) -> None:
    bounds = {"min_len": 3, "max_len": 7, "reversed_range": True}
    with pytest.raises(BadInput, match="two ranges of text_len"):
        decisions(
            recipe_of(tmp_path, {"text_length_filter": bounds}), table, np.arange(6), pairs=False
        )

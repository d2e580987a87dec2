"""What evidence says of samples of several media: against Data-Juicer's own decisions."""

from __future__ import annotations

import numpy as np
import pytest

from djsandbox_ray.recipes.evidence import about_second, about_several
from djsandbox_ray.recipes.ranges import kept, to_process
from djsandbox_ray.records import Range
from djsandbox_ray.stats.datajuicer import load
from djsandbox_ray.stats.operators import parse_process

ASPECT = Range("aspect_ratios", 1.0, 2.0)


@pytest.mark.parametrize("strategy", ["any", "all"])
def test_operators_that_compare_every_medium_are_named(strategy: str) -> None:
    process = [{"image_aspect_ratio_filter": {"any_or_all": strategy}}, "text_length_filter"]
    operators = parse_process(process)
    (said,) = about_several(operators, ["aspect_ratios", "text_len"])
    assert said.startswith("image_aspect_ratio_filter holds every image")
    assert f"if {strategy} of them pass, or if there is none" in said
    assert about_several(operators, ["text_len"]) == []


def test_the_one_value_of_two_images_is_no_mean() -> None:
    operators = parse_process(["image_pair_similarity_filter"])
    assert about_several(operators, ["image_pair_similarity"]) == []


def test_operators_that_compare_with_a_second_text_are_named() -> None:
    field = {"text_key_second": "meta.title"}
    operators = parse_process([{"text_pair_similarity_filter": field}, "text_length_filter"])
    (said,) = about_second(operators, ["text_pair_similarity", "text_len"])
    assert said.startswith("text_pair_similarity_filter keeps a sample that has no text in meta.ti")
    assert about_second(operators, ["text_len"]) == []


def test_data_juicer_keeps_what_has_no_second_text() -> None:
    from data_juicer.ops.filter.text_pair_similarity_filter import TextPairSimilarityFilter

    # Deciding needs no model: it is not built.
    operator = TextPairSimilarityFilter.__new__(TextPairSimilarityFilter)
    assert operator.process_single({load().stats_field: {"text_pair_similarity": []}})


def test_data_juicer_compares_every_medium_and_keeps_what_has_none() -> None:
    operators = parse_process(["image_aspect_ratio_filter"])
    (entry,) = to_process(operators, [ASPECT])
    name, params = next(iter(entry.items()))
    operator = load().filters[name](**params)
    ratios = [[0.5, 4.0, 1.5], [0.5, 2.5], []]
    stats = {load().stats_field: [{"aspect_ratios": values} for values in ratios]}
    assert list(map(bool, operator.process_batched(stats))) == [True, False, True]
    means = np.array([np.mean(values) if values else np.nan for values in ratios])
    assert kept({"aspect_ratios": means}, [ASPECT]).tolist() == [True, True, False]

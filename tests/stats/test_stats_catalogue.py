from __future__ import annotations

from pathlib import Path

import pytest

from djsandbox_ray.errors import BadInput
from djsandbox_ray.stats.catalogue import OperatorInfo, catalogue
from djsandbox_ray.stats.datajuicer import load
from djsandbox_ray.stats.inspection import parameters
from djsandbox_ray.stats.needs import check_needs
from djsandbox_ray.stats.operators import OperatorSpec, _parameter_problem


@pytest.fixture(scope="module")
def listed() -> dict[str, OperatorInfo]:
    return {info.name: info for info in catalogue()}


def test_every_filter_module_of_the_installed_package_is_listed(
    listed: dict[str, OperatorInfo],
) -> None:
    import data_juicer.ops.filter

    folder = Path(str(data_juicer.ops.filter.__file__)).parent
    assert {path.stem for path in folder.glob("*_filter.py")} <= set(listed)


@pytest.mark.parametrize(
    ("name", "statistics", "modality"),
    [
        ("text_length_filter", ("text_len",), "text"),
        ("words_num_filter", ("num_words",), "text"),
        ("image_shape_filter", ("image_height", "image_width"), "image"),
        ("image_text_similarity_filter", ("image_text_similarity",), "multimodal"),
        ("language_id_score_filter", ("lang_score",), "text"),
        ("video_motion_score_raft_filter", ("video_motion_score",), "video"),
        ("llm_quality_score_filter", ("llm_quality_score",), "text"),
        ("audio_size_filter", ("audio_sizes",), "audio"),
        ("suffix_filter", (), "text"),
    ],
)
def test_statistics_and_modality(
    listed: dict[str, OperatorInfo], name: str, statistics: tuple[str, ...], modality: str
) -> None:
    assert (listed[name].statistics, listed[name].modality) == (statistics, modality)


def test_what_is_missing_is_named(listed: dict[str, OperatorInfo]) -> None:
    assert listed["text_length_filter"].available
    clip = listed["image_text_similarity_filter"]
    assert not clip.available
    assert "hf_clip: a local model folder" in clip.missing[0]
    assert any("'kenlm' (extra 'language')" in need for need in listed["perplexity_filter"].needs)
    assert any("en.sp.model" in need for need in listed["perplexity_filter"].needs)
    assert any("(extra 'spacy')" in need for need in listed["text_action_filter"].needs)
    assert any("(extra 'video')" in need for need in listed["image_face_count_filter"].needs)
    assert any("stopwords.json" in need for need in listed["stopwords_filter"].needs)
    assert listed["video_duration_filter"].obstacle is not None


def test_thresholds_are_told_from_what_changes_statistics(listed: dict[str, OperatorInfo]) -> None:
    assert listed["word_repetition_filter"].thresholds == ("min_ratio", "max_ratio")
    assert listed["image_watermark_filter"].thresholds == ("prob_threshold", "any_or_all")
    assert "min_confidence" not in listed["image_subplot_filter"].thresholds


def test_every_default_of_data_juicer_passes_our_checks() -> None:
    for name, cls in load().filters.items():
        for key, parameter in parameters(cls).items():
            assert _parameter_problem(cls, key, parameter.default) is None, (name, key)


def test_missing_needs_are_all_reported_with_their_position(tokenizer_folder: Path) -> None:
    fine = OperatorSpec("token_num_filter", {"hf_tokenizer": str(tokenizer_folder)})
    check_needs([fine, OperatorSpec("text_length_filter")])
    with pytest.raises(BadInput) as caught:
        check_needs(
            [
                fine,
                OperatorSpec("token_num_filter", {"hf_tokenizer": "/no/such/folder"}),
                OperatorSpec("stopwords_filter", {"stopwords_dir": "/no/such/folder"}),
            ]
        )
    first, second = str(caught.value).splitlines()
    assert first.startswith("operators[1].token_num_filter: needs hf_tokenizer")
    assert second.startswith("operators[2].stopwords_filter: needs stopwords_dir")

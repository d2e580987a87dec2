from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import pytest

from djsandbox_ray.errors import BadInput
from djsandbox_ray.stats.catalogue import OperatorInfo, catalogue
from djsandbox_ray.stats.datajuicer import load
from djsandbox_ray.stats.inspection import parameters
from djsandbox_ray.stats.needs import check_needs
from djsandbox_ray.stats.operators import (
    BadProcess,
    OperatorSpec,
    operator_id,
    parse_process,
    resolve_paths,
    statistic_names,
)


def problems(process: object) -> dict[str, str]:
    with pytest.raises(BadProcess) as caught:
        parse_process(process)
    assert pickle.loads(pickle.dumps(caught.value)).problems == caught.value.problems
    return dict(caught.value.problems)


def test_names_and_mappings_are_read() -> None:
    specs = parse_process(
        [
            "text_length_filter",
            {"words_num_filter": None},
            {"word_repetition_filter": {"rep_len": 2}},
        ]
    )
    assert specs == (
        OperatorSpec("text_length_filter"),
        OperatorSpec("words_num_filter"),
        OperatorSpec("word_repetition_filter", {"rep_len": 2}),
    )


def test_all_errors_are_reported_at_once_with_their_positions() -> None:
    found = problems(
        [
            "text_lenght_filter",
            "words_num_filter",
            {"image_text_similarity_filter": {"hf_clipp": "./m", "reduce_mode": 3}},
            {"word_repetition_filter": {"rep_len": -3, "batch_size": 10}},
            "clean_links_mapper",
            {"a": {}, "b": {}},
            {"text_length_filter": [1]},
            "audio_duration_filter",
            "suffix_filter",
            "in_context_influence_filter",
            {"words_num_filter": {"min_num": 3, "reversed_range": "yes"}},
            7,
        ]
    )
    assert "did you mean 'text_length_filter'" in found["operators[0]"]
    clip = "operators[2].image_text_similarity_filter"
    assert "did you mean 'hf_clip'" in found[f"{clip}.hf_clipp"]
    assert "string" in found[f"{clip}.reduce_mode"]
    assert "greater than 0" in found["operators[3].word_repetition_filter.rep_len"]
    assert "'statistics'" in found["operators[3].word_repetition_filter.batch_size"]
    assert "not a filter" in found["operators[4]"]
    assert "name" in found["operators[5]"]
    assert "mapping" in found["operators[6].text_length_filter"]
    assert "reads audio" in found["operators[7]"]
    assert "no statistic" in found["operators[8]"]
    assert "validation set" in found["operators[9]"]
    assert "true or false" in found["operators[10].words_num_filter.reversed_range"]
    assert "operators[11]" in found
    assert len(found) == 13


@pytest.mark.parametrize("process", [None, [], "text_length_filter", {"text_length_filter": {}}])
def test_the_list_itself_is_checked(process: object) -> None:
    assert "at least one" in problems(process)["operators"]


def test_two_operators_that_differ_in_thresholds_only_are_one() -> None:
    found = problems(["text_length_filter", {"text_length_filter": {"min_len": 3}}])
    assert "same statistics as operators[0]" in found["operators[1].text_length_filter"]


def test_thresholds_and_defaults_are_not_part_of_an_id() -> None:
    plain = operator_id(OperatorSpec("word_repetition_filter"))
    assert plain == operator_id(OperatorSpec("word_repetition_filter", {"rep_len": 10}))
    assert plain == operator_id(OperatorSpec("word_repetition_filter", {"max_ratio": 0.9}))
    assert plain != operator_id(OperatorSpec("word_repetition_filter", {"rep_len": 2}))
    assert plain != operator_id(OperatorSpec("character_repetition_filter"))
    shape = OperatorSpec("image_shape_filter", {"any_or_all": "all", "min_width": 3})
    assert operator_id(shape) == operator_id(OperatorSpec("image_shape_filter"))


def test_a_threshold_that_a_statistic_depends_on_stays_in_the_id() -> None:
    # image_subplot_filter computes `subplot_detected` from min_confidence.
    changed = OperatorSpec("image_subplot_filter", {"min_confidence": 0.9})
    assert operator_id(changed) != operator_id(OperatorSpec("image_subplot_filter"))


def test_a_model_counts_by_its_content_not_by_its_place(tmp_path: Path) -> None:
    first, second = tmp_path / "a" / "model", tmp_path / "b" / "copy"
    first.mkdir(parents=True)
    (first / "config.json").write_text("{}")
    (first / "weights").write_bytes(b"123")
    shutil.copytree(first, second)
    (second / ".downloaded").write_text("today")
    ids = [
        operator_id(OperatorSpec("token_num_filter", {"hf_tokenizer": str(p)}))
        for p in (first, second)
    ]
    assert ids[0] == ids[1]
    (second / "weights").write_bytes(b"124")
    assert operator_id(OperatorSpec("token_num_filter", {"hf_tokenizer": str(second)})) != ids[0]


def test_paths_are_made_absolute_for_other_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    spec = resolve_paths(OperatorSpec("token_num_filter", {"hf_tokenizer": "model", "min_num": 3}))
    assert spec.params == {"hf_tokenizer": str(tmp_path / "model"), "min_num": 3}


def test_statistics_of_one_key_are_told_apart() -> None:
    specs = parse_process(
        [
            "text_length_filter",
            {"word_repetition_filter": {"rep_len": 2, "max_ratio": 0.3}},
            "word_repetition_filter",
            {"image_text_similarity_filter": {"hf_clip": "models/a"}},
            {"image_text_similarity_filter": {"hf_clip": "models/b"}},
            "image_shape_filter",
        ]
    )
    assert statistic_names(specs) == (
        ("text_len",),
        ("word_rep_ratio[rep_len=2]",),
        ("word_rep_ratio[rep_len=10]",),
        ("image_text_similarity[hf_clip=a]",),
        ("image_text_similarity[hf_clip=b]",),
        ("image_height", "image_width"),
    )


def test_paths_that_end_alike_are_shown_whole() -> None:
    specs = parse_process(
        [{"image_text_similarity_filter": {"hf_clip": f"{parent}/clip"}} for parent in "ab"]
    )
    assert statistic_names(specs)[0] == ("image_text_similarity[hf_clip=a/clip]",)


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
    assert listed["audio_duration_filter"].obstacle is not None


def test_thresholds_are_told_from_what_changes_statistics(listed: dict[str, OperatorInfo]) -> None:
    assert listed["word_repetition_filter"].thresholds == ("min_ratio", "max_ratio")
    assert listed["image_watermark_filter"].thresholds == ("prob_threshold", "any_or_all")
    assert "min_confidence" not in listed["image_subplot_filter"].thresholds


def test_every_default_of_data_juicer_passes_our_checks() -> None:
    process = [
        {
            name: {
                key: one.default for key, one in parameters(cls).items() if one.default != one.empty
            }
        }
        for name, cls in load().filters.items()
    ]
    found = problems(process)  # some filters cannot be used at all, or need more than defaults
    for index, item in enumerate(process):
        ((name, defaults),) = item.items()
        wrong = {f"operators[{index}].{name}.{key}" for key in defaults} & found.keys()
        assert wrong <= {f"operators[{index}].{name}.text_key_second"}


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

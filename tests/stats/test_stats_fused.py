"""Values must be those of Data-Juicer's own runner, for operators alone and all at once."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest_stats import captions, picture, pictures

from djsandbox_ray.errors import BadInput, MissingExtra, SandboxError
from djsandbox_ray.stats.datajuicer import load
from djsandbox_ray.stats.fused import FusedOperators, count_flops, only_looks_at_text, to_number
from djsandbox_ray.stats.operators import OperatorSpec

ROWS = 40


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("images")
    made = {"texts": captions(ROWS), "images": pictures(ROWS), "paths": []}
    for index, image in enumerate(made["images"]):
        path = folder / f"{index}.{'jpg' if index % 2 else 'png'}"
        path.write_bytes(image)
        made["paths"].append(str(path))
    return made


@pytest.fixture(scope="module")
def operators(tokenizer_folder: Path, clip_folder: Path, words_folder: Path) -> list[OperatorSpec]:
    return [
        OperatorSpec("alphanumeric_filter"),
        OperatorSpec("character_repetition_filter", {"rep_len": 5}),
        OperatorSpec("word_repetition_filter", {"rep_len": 2}),
        OperatorSpec("word_repetition_filter", {"rep_len": 3}),
        OperatorSpec("special_characters_filter"),
        OperatorSpec("text_length_filter"),
        OperatorSpec("words_num_filter"),
        OperatorSpec("stopwords_filter", {"stopwords_dir": str(words_folder)}),
        OperatorSpec("average_line_length_filter"),
        OperatorSpec("token_num_filter", {"hf_tokenizer": str(tokenizer_folder)}),
        OperatorSpec("image_aspect_ratio_filter"),
        OperatorSpec("image_shape_filter"),
        OperatorSpec("image_size_filter"),
        OperatorSpec("image_text_similarity_filter", {"hf_clip": str(clip_folder)}),
        OperatorSpec(
            "image_text_similarity_filter", {"hf_clip": str(clip_folder), "horizontal_flip": True}
        ),
    ]


@pytest.fixture(scope="module")
def words_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("words")
    (folder / "stopwords.json").write_text(json.dumps({"en": ["the", "a", "of", "on"]}))
    return folder


def reference(spec: OperatorSpec, samples: dict[str, Any]) -> list[dict[str, Any]]:
    """Run one operator as Data-Juicer does: its own dataset, its own ``run``, images from files."""
    from data_juicer.core.data import NestedDataset

    dj = load()
    tagged = "similarity" in spec.name
    rows = [
        {
            "text": f"{dj.image_token} {text} {dj.end_token}" if tagged else text,
            "images": [path],
        }
        for text, path in zip(samples["texts"], samples["paths"], strict=True)
    ]
    operator = spec.filter_class(auto_op_parallelism=False, **spec.params)
    done = operator.run(NestedDataset.from_list(rows), reduce=False)
    return [row[dj.stats_field] for row in done]


def test_values_are_those_of_data_juicers_own_run(
    operators: list[OperatorSpec], samples: dict[str, Any]
) -> None:
    fused = FusedOperators(operators)
    together = fused(samples["texts"], samples["images"], range(len(operators)))
    for spec, computed in zip(operators, together, strict=True):
        theirs = reference(spec, samples)
        assert computed.failures == []
        for key, column in computed.columns.items():
            expected = [np.mean(row[key]) for row in theirs]
            # Its dataset keeps statistics to ten decimals; CLIP differs by how it is batched.
            tolerance = 1e-6 if key == "image_text_similarity" else 1e-10
            np.testing.assert_allclose(column, expected, rtol=0, atol=tolerance, err_msg=key)
            assert np.ptp(column) > 0, key  # an operator that says nothing would agree too


def test_fused_equals_alone(operators: list[OperatorSpec], samples: dict[str, Any]) -> None:
    together = FusedOperators(operators)
    everything = together(samples["texts"], samples["images"], range(len(operators)))
    for index, spec in enumerate(operators):
        alone = FusedOperators([spec])
        images = samples["images"] if alone.reads_images([0]) else None
        computed = alone(samples["texts"], images, [0])[0]
        for key, column in computed.columns.items():
            np.testing.assert_array_equal(column, everything[index].columns[key], err_msg=key)


def test_a_text_operator_does_not_see_the_special_tokens(clip_folder: Path) -> None:
    specs = [
        OperatorSpec("image_text_similarity_filter", {"hf_clip": str(clip_folder)}),
        OperatorSpec("text_length_filter"),
    ]
    computed = FusedOperators(specs)(["a dog"], pictures(1), [0, 1])
    assert computed[1].columns["text_len"].tolist() == [5.0]
    assert np.isfinite(computed[0].columns["image_text_similarity"]).all()


def test_a_token_in_the_caption_of_a_pair_stands_for_no_image(clip_folder: Path) -> None:
    similarity = OperatorSpec("image_text_similarity_filter", {"hf_clip": str(clip_folder)})
    specs = [similarity, OperatorSpec("text_length_filter")]
    texts, images = ["a dog", "a dog <__dj__image>", "<|__dj__eoc|> a dog"], pictures(1) * 3
    score, length = FusedOperators(specs, pairs=True)(texts, images, [0, 1])
    assert length.columns["text_len"].tolist() == [*map(len, texts)]
    found = score.columns["image_text_similarity"]
    np.testing.assert_allclose(found, found[0], rtol=0, atol=1e-6)


def test_only_the_rows_that_fail_lose_their_values(clip_folder: Path) -> None:
    specs = [
        OperatorSpec("image_shape_filter"),
        OperatorSpec("image_text_similarity_filter", {"hf_clip": str(clip_folder)}),
        OperatorSpec("text_length_filter"),
    ]
    texts: list[Any] = captions(8)
    images = pictures(8)
    clean = FusedOperators(specs)(texts, images, [0, 1, 2])
    images[2] = b"this is not an image"
    images[5] = images[5][: len(images[5]) // 2]  # truncated: must not pass as grey pixels
    texts[6] = None
    shape, similarity, length = FusedOperators(specs)(texts, images, [0, 1, 2])
    assert [failure.row for failure in shape.failures] == [2, 5]
    assert [failure.row for failure in similarity.failures] == [2, 5, 6]
    assert [failure.row for failure in length.failures] == [6]
    assert "identify image" in shape.failures[0].reason
    for computed, before in zip((shape, similarity, length), clean, strict=True):
        lost = {failure.row for failure in computed.failures}
        for key, column in computed.columns.items():
            kept = [row for row in range(8) if row not in lost]
            assert np.isnan(column[sorted(lost)]).all()
            np.testing.assert_allclose(column[kept], before.columns[key][kept], rtol=0, atol=1e-6)


def failing(monkeypatch: pytest.MonkeyPatch, errors: dict[int, Exception]) -> FusedOperators:
    """Return an operator to which something happens, by the number of the call."""
    fused = FusedOperators([OperatorSpec("text_length_filter")])
    operator = fused._runners[0]._operator
    real, calls = operator.compute_stats_batched, iter(range(99))

    def compute(batch: dict[str, Any]) -> None:
        if error := errors.get(next(calls)):
            raise error
        real(batch)

    monkeypatch.setattr(operator, "compute_stats_batched", compute)
    return fused


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ESTALE, "stale file handle"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total of ..."),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes"),
    ],
    ids=["memory", "disk", "device memory", "device", "memory of torch"],
)
def test_a_failing_machine_costs_no_row_its_value(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A value that is missing stays missing: the row would leave all pools for good."""
    texts = captions(4)
    lasting = failing(monkeypatch, {0: error, 2: error})  # the whole batch, and its second row
    with pytest.raises(SandboxError, match="text_length_filter cannot go on") as caught:
        lasting(texts, None, [0])
    assert str(error) in str(caught.value)
    assert caught.value.exit_code == 1  # not the user's
    passing = failing(monkeypatch, {0: error})  # one row at a time there is room
    (computed,) = passing(texts, None, [0])
    assert computed.columns["text_len"].tolist() == [len(text) for text in texts]
    assert computed.failures == []


def test_torch_words_its_lack_of_memory_as_is_known_here(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 50)
    lasting = failing(monkeypatch, {0: caught.value, 1: caught.value})
    with pytest.raises(SandboxError, match="cannot go on"):
        lasting(captions(1), None, [0])


def test_what_was_put_in_words_already_is_told_in_these(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SandboxError, match=r"^the model server is away$"):
        failing(monkeypatch, {0: SandboxError("the model server is away")})(["a"], None, [0])


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3.0),
        (True, 1.0),
        ([1, 2], 1.5),
        (np.array([[0.5]]), 0.5),
        ([], np.nan),
        (None, np.nan),
        (float("inf"), np.nan),
        ([1.0, float("nan")], np.nan),
    ],
)
def test_values_are_reduced_to_one_number(value: Any, expected: float) -> None:
    np.testing.assert_equal(to_number(value), expected)


@pytest.mark.parametrize("value", ["en", ["en"], {"a": 1}, "1.5"])
def test_texts_are_not_numbers(value: Any) -> None:
    with pytest.raises(TypeError):
        to_number(value)


def test_an_operator_that_cannot_be_built_says_why() -> None:
    with pytest.raises(
        BadInput, match=r"image_shape_filter cannot be built.*any_or_all|Keep strat"
    ):
        FusedOperators([OperatorSpec("image_shape_filter", {"any_or_all": "some"})])


def test_an_operator_without_its_model_is_found_before_any_data(tmp_path: Path) -> None:
    empty = OperatorSpec("token_num_filter", {"hf_tokenizer": str(tmp_path)})
    with pytest.raises(BadInput, match="token_num_filter cannot"):
        FusedOperators([empty])


def test_a_missing_package_names_the_extra_and_nothing_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import importlib
    import subprocess

    monkeypatch.setattr(subprocess, "check_call", lambda *_: pytest.fail("something was installed"))
    real = importlib.import_module

    def absent(name: str, package: str | None = None) -> Any:
        if name == "fasttext":
            raise ImportError("No module named 'fasttext'")
        return real(name, package)

    monkeypatch.setattr(importlib, "import_module", absent)
    load()
    from data_juicer.utils import model_utils

    monkeypatch.setattr(model_utils.fasttext, "_module", None)
    with pytest.raises((BadInput, MissingExtra), match=r"djsandbox-ray\[language\]"):
        FusedOperators([OperatorSpec("language_id_score_filter")])


# Operations, against those that follow from the shape of the model

BATCH = 4
HIDDEN, INNER, LAYERS, PROJECTED = 32, 64, 2, 16
IMAGE_TOKENS, PATCH = 17, 8 * 8 * 3
"""The CLIP of the fixture: 32 x 32 pixels in patches of 8 x 8, and a class token."""


def transformer(tokens: int) -> int:
    """Multiply-adds, two operations each: q, k, v, out; the inner layers; attention twice."""
    matrices = tokens * (4 * HIDDEN * HIDDEN + 2 * HIDDEN * INNER)
    return LAYERS * 2 * (matrices + 2 * tokens * tokens * HIDDEN)


@pytest.fixture
def similarity(clip_folder: Path) -> OperatorSpec:
    return OperatorSpec("image_text_similarity_filter", {"hf_clip": str(clip_folder)})


def test_a_clip_is_counted_whole_attention_included(
    similarity: OperatorSpec, clip_folder: Path
) -> None:
    from transformers import AutoTokenizer

    caption = "a photo of a small red dog"
    tokens = len(AutoTokenizer.from_pretrained(clip_folder)(caption)["input_ids"])
    fused = FusedOperators([similarity])
    counted = fused.flops_per_sample([caption] * BATCH, [picture(32, 32, 1)] * BATCH, 0)
    patches = 2 * (IMAGE_TOKENS - 1) * PATCH * HIDDEN
    projections = 2 * 2 * HIDDEN * PROJECTED
    logits = 2 * BATCH * PROJECTED  # every text with every image of the batch
    assert counted == (
        transformer(IMAGE_TOKENS) + transformer(tokens) + patches + projections + logits
    )


def test_counting_changes_no_statistic_and_leaves_no_trace(similarity: OperatorSpec) -> None:
    import torch

    fused = FusedOperators([similarity])
    batch = ["a small dog", "a tree"], [picture(32, 32, 1), picture(48, 32, 2)]
    before = fused(*batch, [0])[0].columns["image_text_similarity"]
    assert fused.flops_per_sample(*batch, 0)
    after = fused(*batch, [0])[0].columns["image_text_similarity"]
    np.testing.assert_array_equal(before, after)
    assert torch.backends.mha.get_fastpath_enabled()
    assert torch.backends.cuda.flash_sdp_enabled()


@pytest.mark.parametrize(
    ("name", "params", "expected"),
    [
        ("text_length_filter", {}, 0.0),
        ("perplexity_filter", {}, 0.0),
        ("language_id_score_filter", {}, None),
        ("llm_quality_score_filter", {}, None),
        ("llm_quality_score_filter", {"is_hf_model": False}, None),
    ],
)
def test_what_torch_does_not_calculate_is_not_run(
    name: str, params: dict[str, Any], expected: float | None
) -> None:
    assert count_flops(OperatorSpec(name, params), lambda: pytest.fail("was run")) == expected


@pytest.mark.parametrize(
    ("name", "params", "expected"),
    [
        ("text_length_filter", {}, True),
        ("alphanumeric_filter", {}, True),
        ("alphanumeric_filter", {"tokenization": True}, False),
        ("stopwords_filter", {"tokenization": True}, False),
        ("perplexity_filter", {}, False),
        ("llm_quality_score_filter", {}, False),
        ("image_shape_filter", {}, False),
    ],
)
def test_an_operator_with_a_model_does_not_only_look_at_text(
    name: str, params: dict[str, Any], expected: bool
) -> None:
    assert only_looks_at_text(OperatorSpec(name, params)) is expected


def test_an_operator_that_only_looks_up_has_none(tokenizer_folder: Path) -> None:
    spec = OperatorSpec("token_num_filter", {"hf_tokenizer": str(tokenizer_folder)})
    assert FusedOperators([spec]).flops_per_sample(["a dog"], None, 0) == 0


def test_a_model_that_cannot_be_counted_is_not_counted(similarity: OperatorSpec) -> None:
    import torch

    def fail() -> None:
        assert not torch.backends.mha.get_fastpath_enabled()
        raise RuntimeError("no decomposition")

    assert count_flops(similarity, fail) is None
    assert torch.backends.mha.get_fastpath_enabled()

"""Counted operations against those that follow from the shape of the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest_stats import picture

from djsandbox_ray.stats.fused import FusedOperators, count_flops
from djsandbox_ray.stats.operators import OperatorSpec

ROWS = 4
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
    counted = fused.flops_per_sample([caption] * ROWS, [picture(32, 32, 1)] * ROWS, 0)
    patches = 2 * (IMAGE_TOKENS - 1) * PATCH * HIDDEN
    projections = 2 * 2 * HIDDEN * PROJECTED
    logits = 2 * ROWS * PROJECTED  # every text with every image of the batch
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

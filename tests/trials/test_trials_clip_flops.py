"""Operations of an evaluation: what evaluators ask for, times what a tower costs."""

from __future__ import annotations

import pytest

from djsandbox_ray.evaluation.evaluator import Split
from djsandbox_ray.evaluation.retrieval import RetrievalConfig
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.evaluation.zero_shot import ZeroShotConfig
from djsandbox_ray.settings.sections import Component
from djsandbox_ray.trials.clip.arch import encoding_flops, load_arch, training_flops
from djsandbox_ray.trials.clip.family import Clip, ClipConfig
from djsandbox_ray.trials.family import FAMILIES, ModelFamily


def test_towers_cost_what_is_published() -> None:
    # open_clip's docs/model_profile.csv for ViT-B-32: 8.82 and 5.96 GFLOPs for image and text.
    image, text = encoding_flops(load_arch("ViT-B-32"))
    assert image == pytest.approx(8.82e9, rel=0.02)
    assert text == pytest.approx(5.96e9, rel=0.02)


def test_a_training_step_costs_a_forward_and_at_most_twice_as_much_back() -> None:
    arch = load_arch("tiny")
    # Less than three times: nobody needs the gradient of the pixels.
    assert 2 < training_flops(arch) / sum(encoding_flops(arch)) <= 3


def test_images_are_embedded_once_and_texts_whenever_asked() -> None:
    texts = tuple(f"{number} dots" for number in range(20))
    metadata = tuple({"shape": "round" if number % 2 else "square"} for number in range(20))
    split = Split("split", "", texts, metadata)
    templates = ["a {}", "the {}", "one {}"]
    configs: list[Component] = [
        RetrievalConfig(type="retrieval", k=[5]),
        ZeroShotConfig(type="zero_shot", label="shape", templates=templates),
    ]
    image, text = encoding_flops(load_arch("tiny"))
    counted = Clip(ClipConfig(type="clip")).evaluation_flops(Suite(configs, split))
    assert counted == 20 * image + (20 + 2 * len(templates)) * text


def test_other_families_need_not_count() -> None:
    assert issubclass(FAMILIES.get("clip"), ModelFamily)
    split = Split("split", "", (), ())
    assert ModelFamily.evaluation_flops(Clip(ClipConfig(type="clip")), Suite([], split)) is None

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch

from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.retrieval import RetrievalConfig
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.evaluation.zero_shot import ZeroShotConfig
from djsandbox_ray.settings.sections import Component
from djsandbox_ray.trials.clip import arch as architectures
from djsandbox_ray.trials.clip.arch import (
    Tokenizer,
    build_model,
    encoding_flops,
    image_size,
    load_arch,
    training_flops,
)
from djsandbox_ray.trials.clip.family import Clip, ClipConfig
from djsandbox_ray.trials.family import FAMILIES, ModelFamily


@pytest.mark.parametrize("name", ["tiny", "small", "ViT-B-32", "ViT-B-16"])
def test_named_architectures_load(name: str) -> None:
    arch = load_arch(name)
    assert {"embed_dim", "vision_cfg", "text_cfg"} <= set(arch)
    assert image_size(arch) == (32 if name in {"tiny", "small"} else 224)


def test_open_clip_architecture_is_open_clips_own() -> None:
    ours = build_model(load_arch("RN50-quickgelu"), seed=0)
    theirs = open_clip.create_model("RN50-quickgelu")
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }


def test_a_file_is_an_architecture(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({**load_arch("tiny"), "embed_dim": 32}))
    model = build_model(load_arch(str(path)), seed=0)
    assert model.text_projection.shape[1] == 32


def test_the_file_of_a_model_of_the_hub_is_an_architecture(tmp_path: Path) -> None:
    path = tmp_path / "open_clip_config.json"
    whole = {"model_cfg": load_arch("tiny"), "preprocess_cfg": {"mean": [0, 0, 0]}}
    path.write_text(json.dumps(whole))
    assert load_arch(str(path)) == load_arch("tiny")


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_what_is_known_of_shipped_architectures_is_what_torch_counts(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = training_flops(load_arch(name))
    monkeypatch.setattr(architectures, "_COUNTED", {})
    assert training_flops(load_arch(name)) == known


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tinny", "did you mean 'tiny'"),
        ("ViT-B-33", "did you mean 'ViT-B-32'"),
        ("nowhere/none.json", "architecture file nowhere/none.json"),
        ("hf-hub:laion/CLIP-ViT-B-32", "name its file open_clip_config.json"),
        ("local-dir:/models/clip", "name its file open_clip_config.json"),
    ],
)
def test_unknown_architectures_say_what_is_known(name: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        load_arch(name)


def test_a_file_without_towers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text("{}")
    with pytest.raises(BadInput, match="lacks some of embed_dim, text_cfg, vision_cfg"):
        load_arch(str(path))


def test_whole_vocabulary_gives_open_clips_tokens() -> None:
    texts = ["a photo of a red circle", "Don't panic!! 42 éè", ""]
    ours = Tokenizer(load_arch("ViT-B-32"))(texts)
    assert np.array_equal(ours, open_clip.get_tokenizer("ViT-B-32")(texts).numpy())


def test_small_vocabulary_stays_inside_and_loses_nothing() -> None:
    arch = load_arch("tiny")
    tokenizer = Tokenizer(arch)
    text = "a zyzzyva & a ☃"
    tokens = tokenizer([text])[0]
    assert tokens.max() < arch["text_cfg"]["vocab_size"]
    inverse = {index: token for token, index in tokenizer.encoder.items()}
    end = tokenizer.encoder["<end_of_text>"]
    assert tokens.max() == end, "the end must stay the largest id: CLIP pools there"
    said = "".join(inverse[token] for token in tokens[1 : list(tokens).index(end)])
    assert "zyzzyva" in said.replace("</w>", "")


@pytest.mark.parametrize("vocabulary", [100, 60000])
def test_impossible_vocabularies_are_refused(vocabulary: int) -> None:
    arch = load_arch("tiny")
    arch["text_cfg"]["vocab_size"] = vocabulary
    with pytest.raises(BadInput, match=r"vocab_size must lie in 514\.\.49408"):
        Tokenizer(arch)


def test_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = build_model(load_arch("tiny"), seed=7).state_dict()
    torch.manual_seed(2)
    state = torch.random.get_rng_state()
    second = build_model(load_arch("tiny"), seed=7).state_dict()
    assert torch.equal(torch.random.get_rng_state(), state), "the global generator was touched"
    other = build_model(load_arch("tiny"), seed=8).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not torch.equal(first["visual.proj"], other["visual.proj"])


def test_flops_count_three_times_the_forward_pass_of_matrices() -> None:
    # Published for ViT-B-32 at 224 pixels with 77 tokens: 14.78 GFLOPs forward, counted as
    # multiply-adds twice; backward costs twice the forward.
    assert training_flops(load_arch("ViT-B-32")) == pytest.approx(3 * 14.78e9, rel=0.02)


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
    split = EvaluationSet("split", "", len(texts), texts, metadata)
    templates = ["a {}", "the {}", "one {}"]
    configs: list[Component] = [
        RetrievalConfig(type="retrieval", k=[5]),
        ZeroShotConfig(type="zero_shot", label="shape", templates=templates),
    ]
    image, text = encoding_flops(load_arch("tiny"))
    counted = Clip(ClipConfig(type="clip")).evaluation_flops(Suite(configs, [split, split]))
    assert counted == 20 * image + (20 + 2 * len(templates)) * text


def test_other_families_need_not_count() -> None:
    assert issubclass(FAMILIES.get("clip"), ModelFamily)
    assert ModelFamily.evaluation_flops(Clip(ClipConfig(type="clip")), Suite([], [])) is None


@pytest.mark.parametrize("name", ["tiny", "ViT-B-32"])
def test_a_caption_is_cut_far_behind_the_context(name: str, monkeypatch) -> None:
    tokenizer = Tokenizer(load_arch(name))
    lines = ["a photo of a small dog &amp; a cat\n", "caf\u00e9, na\u00efve \u6f22\u5b57 ", "word"]
    ordinary = [text * times for text in lines for times in (1, 5, 40)]
    long = "".join(np.random.default_rng(0).choice(list("abcdefghij"), 1600))
    ours = tokenizer([*ordinary, *(text * 5_000 for text in lines[:2]), long])
    endless = tokenizer([long * 300])  # would take hours
    monkeypatch.setattr("djsandbox_ray.trials.clip.arch.within", lambda text, *_, **__: text)
    plain = tokenizer([*ordinary, *(text * 200 for text in lines[:2]), long])
    assert np.array_equal(ours, plain)
    assert np.array_equal(endless[0], plain[-1])

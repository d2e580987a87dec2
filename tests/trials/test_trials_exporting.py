"""Models as folders: each is loaded by its own library, and is the model that was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import llava_world
import numpy as np
import pytest
import torch
import vlm_world
from PIL import Image

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.evaluation.evaluator import Artefact
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.answering import _Together
from djsandbox_ray.trials.clip.arch import Tokenizer, build_model, load_arch
from djsandbox_ray.trials.clip.family import Clip, ClipConfig, ClipEncoder
from djsandbox_ray.trials.clip.training import normalise
from djsandbox_ray.trials.exporting import EXPORTED, export_model
from djsandbox_ray.trials.llava.family import Llava
from djsandbox_ray.trials.lora import merged_weights, put_adapters
from djsandbox_ray.trials.strategies.strategy import Group
from djsandbox_ray.trials.vlm.family import Vlm


def loaded(code: str, folder: Path) -> dict[str, Any]:
    """Run what the card says, and return what it has loaded."""
    known: dict[str, Any] = {"folder": str(folder)}
    exec(code, known)
    return known


def randomised(model: Any, seed: int = 0) -> Any:
    """Return a model whose adapters add something."""
    with torch.no_grad():
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


TEXTS = ["a red circle", "Two naïve blue squares, 漢字!", ""]


@pytest.mark.parametrize("shareable", [True, False])
def test_a_clip_is_loaded_by_open_clip(tmp_path: Path, shareable: bool) -> None:
    arch = load_arch("tiny")
    model = build_model(arch, 3, shareable=shareable)
    encoder = ClipEncoder(model, arch, {}, "cpu")
    assert Clip(ClipConfig(type="clip")).unexportable() == ""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    exported = encoder.export(tmp_path)
    assert exported.library == "open_clip"
    found = loaded(exported.loading, tmp_path)
    tokens = found["tokenizer"](TEXTS)
    assert np.array_equal(tokens.numpy(), Tokenizer(arch)(TEXTS))
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    seen = found["transform"](Image.fromarray(pixels))[None]
    ours = normalise(torch.from_numpy(pixels).permute(2, 0, 1)[None])
    assert torch.allclose(seen, ours, atol=1e-5)
    with torch.no_grad():
        texts = found["model"].encode_text(tokens, normalize=True).numpy()
        images = found["model"].encode_image(seen, normalize=True).numpy()
        assert np.allclose(texts, encoder.texts(TEXTS), atol=1e-5)
        assert np.allclose(images, model.eval().encode_image(ours, normalize=True), atol=1e-4)
    assert found["model"].logit_scale.shape == ()
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_whole_vocabulary_is_open_clips_own(tmp_path: Path) -> None:
    arch = load_arch("tiny")
    arch = {**arch, "text_cfg": {**arch["text_cfg"], "vocab_size": 49408}}
    exported = ClipEncoder(build_model(arch, 0), arch, {}, "cpu").export(tmp_path)
    assert not list(tmp_path.glob("bpe*"))
    found = loaded(exported.loading, tmp_path)
    assert np.array_equal(found["tokenizer"](TEXTS).numpy(), Tokenizer(arch)(TEXTS))


def test_adapters_are_added_to_the_matrices_and_the_model_stays() -> None:
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 4))
    shared = plain[0].weight.clone()
    model = torch.nn.Sequential(*plain)
    model.requires_grad_(False)
    put_adapters(model, 2, 8, ["0", "2"], 0, "here")
    randomised(model)
    weights = merged_weights(model)
    assert set(weights) == {"0.weight", "0.bias", "2.weight", "2.bias"}
    fresh = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 4))
    fresh.load_state_dict(weights)
    given = torch.randn(3, 6)
    assert torch.allclose(fresh(given), model(given), atol=1e-5)
    assert not torch.allclose(weights["0.weight"], shared)
    assert torch.equal(model[0].base_layer.weight, shared)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=torch.tensor([[5, 6, 7, 8]])).logits
    return found


@pytest.mark.parametrize("train", ["full", "lora"])
def test_a_llava_is_loaded_by_transformers(tmp_path: Path, train: str) -> None:
    tables = llava_world.Tables.write(tmp_path / "world")
    lora = {"lora": {"rank": 2, "alpha": 8}} if train == "lora" else {}
    settings = llava_world.config(tables, {"train": train, **lora})
    kept: dict[str, Any] = {}

    def evaluate(model: Any, samples: int) -> dict[str, float]:
        if not kept:
            randomised(model._model)
            (tmp_path / "out").mkdir()
            kept["exported"] = model.export(tmp_path / "out")
            kept["logits"] = logits(model._model.llava)
            projector = model._model.llava.model.multi_modal_projector.state_dict()
            kept["projector"] = {name: value.clone() for name, value in projector.items()}
        return {"samples": float(samples)}

    family = Llava(settings).resolved(0)
    assert family.unexportable() == ""
    list(family.train(llava_world.task(tables, tmp_path, evaluate), tables.data()))
    found = loaded(kept["exported"].loading, tmp_path / "out")
    assert torch.allclose(logits(found["model"]), kept["logits"], atol=1e-4)
    projector = found["model"].model.multi_modal_projector.state_dict()
    assert {*projector} == {*kept["projector"]}
    assert all(torch.equal(value, projector[name]) for name, value in kept["projector"].items())
    assert found["images"].crop_size["height"] == llava_world.PIXELS.side


def test_a_projector_that_transformers_does_not_have_is_said_before_training(
    tmp_path: Path,
) -> None:
    tables = llava_world.Tables.write(tmp_path / "world")
    family = Llava(llava_world.config(tables, projector="linear")).resolved(0)
    assert "no projector of the kind 'linear'" in family.unexportable()

    def evaluate(model: Any, samples: int) -> dict[str, float]:
        (tmp_path / "out").mkdir()
        with pytest.raises(BadInput, match="LlavaForConditionalGeneration has no counterpart"):
            model.export(tmp_path / "out")
        return {}

    list(family.train(llava_world.task(tables, tmp_path, evaluate), tables.data()))


@pytest.fixture(scope="module")
def speakers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, vlm_world.VlmTables]:
    return vlm_world.VlmTables.write(tmp_path_factory.mktemp("vlm"))


@pytest.mark.parametrize("kind", vlm_world.KINDS)
def test_any_model_of_transformers_is_loaded_again(
    speakers: dict[str, vlm_world.VlmTables], tmp_path: Path, kind: str
) -> None:
    tables = speakers[kind]
    kept: dict[str, Any] = {}

    def evaluate(model: Any, samples: int) -> dict[str, float]:
        randomised(model._model)
        (tmp_path / "out").mkdir()
        kept["exported"] = model.export(tmp_path / "out")
        kept["logits"] = logits(model._model.vlm)
        return {}

    family = Vlm(vlm_world.config(tables, train="lora")).resolved(0)
    assert family.unexportable() == ""
    list(family.train(vlm_world.task(tables, tmp_path, evaluate), tables.data()))
    found = loaded(kept["exported"].loading, tmp_path / "out")
    assert torch.allclose(logits(found["model"]), kept["logits"], atol=1e-4)
    assert type(found["processor"]).__name__ == type(vlm_world.KINDS[kind]()[1]).__name__


def test_a_transformer_of_videos_is_loaded_by_diffusers(tmp_path: Path) -> None:
    from t2v_world import wan, wan_vae

    from djsandbox_ray.trials.t2v.codec import DiffusersCodec
    from djsandbox_ray.trials.t2v.denoisers import Surroundings, adapter_class
    from djsandbox_ray.trials.t2v.evaluated import VideoDenoiser

    model = wan().requires_grad_(False)
    around = Surroundings(DiffusersCodec(wan_vae().eval()).ratios)
    adapter = adapter_class(type(model).__name__)(model.config, around)
    put_adapters(model, 2, 8, adapter.TARGETS, 0, "here")
    randomised(model)
    nothing: Any = None
    denoiser = VideoDenoiser(model, adapter, nothing, nothing, nothing, "cpu", 1)
    exported = denoiser.export(tmp_path)
    found = loaded(exported.loading, tmp_path)["transformer"].state_dict()
    wanted = merged_weights(model)
    assert {*found} == {*wanted}
    assert all(torch.allclose(value, found[name]) for name, value in wanted.items())
    assert exported.library == "diffusers"


class Plain:
    """Has no way to be saved."""


def test_what_a_program_has_left_is_taken_as_it_is(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "weights").write_bytes(b"1")
    for content in (b"1", b"2"):  # the second one takes the place of the first
        (tmp_path / "sub" / "weights").write_bytes(content)
        export_model(Artefact(tmp_path, 1, 0), storage, "runs/a/models/b")
        assert storage.read_bytes("runs/a/models/b/sub/weights") == content
    assert json.loads(storage.read_bytes(f"runs/a/models/b/{EXPORTED}"))["library"] == ""
    for model in (Plain(), _Together(Group(), Plain())):  # type: ignore[arg-type]
        with pytest.raises(SandboxError, match="a Plain has no way to be saved"):
            export_model(model, storage, "runs/a/models/c")

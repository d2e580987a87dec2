"""Features against VBench's own chain of transforms, on real models: small, and untrained."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_models
from PIL import Image

from djsandbox_ray.dataset.moving_world import draw_frames, random_scene
from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.evaluation.video.features import (
    ClipFrames,
    DinoFrames,
    VideoMaeClips,
    aesthetic_head,
)

torch = pytest.importorskip("torch")
transforms = pytest.importorskip("torchvision.transforms")
functional = torch.nn.functional

TEXTS = ["a red circle", "oil painting", "a blue square moves up on white"]
OPENAI = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LAYERS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}


def world(size: int = 40, count: int = 5) -> np.ndarray:
    rng = np.random.default_rng(3)
    noise = rng.integers(0, 60, (count, size, size, 3))
    return np.clip(draw_frames(random_scene(rng), rng, size, count) + noise, 0, 255).astype("uint8")


@pytest.fixture(scope="module")
def dino(tmp_path_factory: pytest.TempPathFactory) -> str:
    from transformers import ViTConfig, ViTModel

    folder = tmp_path_factory.mktemp("dino")
    torch.manual_seed(0)
    config = ViTConfig(**LAYERS, intermediate_size=64, image_size=32, patch_size=8)
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_models.clip_for(TEXTS, tmp_path_factory.mktemp("models")))


@pytest.fixture(scope="module")
def videomae(tmp_path_factory: pytest.TempPathFactory) -> str:
    from transformers import VideoMAEConfig, VideoMAEModel

    folder = tmp_path_factory.mktemp("videomae")
    torch.manual_seed(0)
    sizes = {"image_size": 32, "patch_size": 8, "num_frames": 4, "tubelet_size": 2}
    VideoMAEModel(VideoMAEConfig(**LAYERS, intermediate_size=64, **sizes)).save_pretrained(folder)
    return str(folder)


def as_vbench_loads(frames: np.ndarray) -> Any:
    return torch.Tensor(frames).permute(0, 3, 1, 2)


def as_dino_has_it(model: Any, pixels: Any) -> Any:
    """DINO's ``prepare_tokens`` (vision_transformer.py) before the layers of transformers."""
    embeddings, known = model.embeddings, model.embeddings.position_embeddings
    tokens = embeddings.patch_embeddings(pixels)
    places, size = known.shape[1] - 1, embeddings.patch_size
    positions = known
    if tokens.shape[1] != places or pixels.shape[2] != pixels.shape[3]:
        side = int(math.sqrt(places))
        nudged = [pixels.shape[axis] // size + 0.1 for axis in (2, 3)]
        square = known[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        factors = tuple(one / math.sqrt(places) for one in nudged)
        square = functional.interpolate(square, scale_factor=factors, mode="bicubic")
        square = square.permute(0, 2, 3, 1).reshape(1, -1, known.shape[-1])
        positions = torch.cat([known[:, :1], square], dim=1)
    start = embeddings.cls_token.expand(len(tokens), -1, -1)
    embeddings.forward = lambda *_, **__: torch.cat([start, tokens], dim=1) + positions
    return model(pixels).last_hidden_state[:, 0]


@pytest.mark.parametrize(("height", "width"), [(40, 40), (32, 32), (24, 40), (40, 23)])
def test_dino_sees_the_whole_picture(dino: str, height: int, width: int) -> None:
    from transformers import ViTModel

    frames = world()[:, :height, :width]
    chain = transforms.Compose(
        [
            transforms.Resize(size=32, antialias=False),
            transforms.Lambda(lambda x: x.float().div(255.0)),
            transforms.Normalize(*IMAGENET),
        ]
    )
    model = ViTModel.from_pretrained(dino, add_pooling_layer=False).eval()
    with torch.no_grad():
        known = as_dino_has_it(model, chain(as_vbench_loads(frames)))
    found = DinoFrames(dino)(frames)
    np.testing.assert_allclose(found, known.numpy(), atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(40, 40), (24, 40), (40, 23)])
def test_clip_sees_the_middle_without_smoothing_or_with_it(
    clip: str, height: int, width: int
) -> None:
    from transformers import CLIPModel

    frames = world()[:, :height, :width]
    cut = [transforms.CenterCrop(32)]
    scaled = transforms.Resize(32, interpolation=transforms.InterpolationMode.BICUBIC,
                               antialias=False)  # fmt: skip
    tensors = transforms.Compose(
        [
            scaled,
            *cut,
            transforms.Lambda(lambda x: x.float().div(255.0)),
            transforms.Normalize(*OPENAI),
        ]
    )
    images = transforms.Compose(
        [scaled, *cut, transforms.ToTensor(), transforms.Normalize(*OPENAI)]
    )
    model, ours = CLIPModel.from_pretrained(clip).eval(), ClipFrames(clip)
    drawn = torch.stack([images(Image.fromarray(frame)) for frame in frames])
    with torch.no_grad():
        known = [
            model.get_image_features(pixel_values=pixels).pooler_output.numpy()
            for pixels in (tensors(as_vbench_loads(frames)), drawn)
        ]
    np.testing.assert_allclose(ours(frames), known[0], atol=1e-5)
    np.testing.assert_allclose(ours.smoothed(frames), known[1], atol=1e-5)
    assert np.abs(known[0] - known[1]).max() > 1e-4  # they are not the same pictures


def test_the_logits_are_those_of_clip(clip: str) -> None:
    from transformers import AutoTokenizer, CLIPModel

    from djsandbox_ray.evaluation.video.dimensions import appearance_style

    frames, ours = world(32), ClipFrames(clip)
    model = CLIPModel.from_pretrained(clip).eval()
    tokens = AutoTokenizer.from_pretrained(clip)(["oil painting"], return_tensors="pt")
    pixels = torch.from_numpy(frames).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        logits = model(
            pixel_values=transforms.Normalize(*OPENAI)(pixels),
            input_ids=tokens["input_ids"],
            attention_mask=tokens["attention_mask"],
        ).logits_per_text
    found = appearance_style(ours.smoothed(frames), ours.text("oil painting"), ours.scale)
    assert found.value == pytest.approx(float(logits.mean()) / 100, abs=1e-6)
    with pytest.raises(BadInput, match="tokens; the CLIP in"):
        ours.text("a red circle " * 20)


def test_a_videomae_sees_the_first_frames(videomae: str) -> None:
    from transformers import VideoMAEModel

    frames, ours = world(32), VideoMaeClips(videomae)
    model = VideoMAEModel.from_pretrained(videomae).eval()
    pixels = transforms.Normalize(*IMAGENET)(torch.from_numpy(frames[:4]).permute(0, 3, 1, 2) / 255)
    with torch.no_grad():
        known = model(pixels[None]).last_hidden_state.mean(dim=1)[0]
    np.testing.assert_allclose(ours(frames), known.numpy(), atol=1e-5)
    assert ours.frames == 4
    assert ours(world(48)).shape == (32,)
    with pytest.raises(SandboxError, match="a video of 3 frames: the VideoMAE looks at 4"):
        ours(frames[:3])


def test_a_folder_of_something_else_is_refused(dino: str, clip: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no folder of a model"):
        DinoFrames(str(tmp_path))
    with pytest.raises(BadInput, match="of the type 'clip'; 'vit' is needed"):
        DinoFrames(clip)
    with pytest.raises(BadInput, match="of the type 'vit'; 'clip' is needed"):
        ClipFrames(dino)


def test_a_model_without_some_weights_is_refused(dino: str, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(f"{dino}/model.safetensors")
    lost = sorted(weights)[-1]
    del weights[lost]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_bytes(Path(dino, "config.json").read_bytes())
    with pytest.raises(BadInput, match="1 weights of a vit are not there"):
        DinoFrames(str(tmp_path))


def test_the_head_of_the_aesthetic_predictor(tmp_path: Path) -> None:
    path = tmp_path / "head.pth"
    torch.save(torch.nn.Linear(16, 1).state_dict(), path)
    weight, bias = aesthetic_head(str(path))
    assert weight.shape == (16,)
    assert isinstance(bias, float)
    torch.save(torch.nn.Linear(16, 2).state_dict(), path)
    with pytest.raises(BadInput, match="one output is needed"):
        aesthetic_head(str(path))
    path.write_bytes(b"something else")
    with pytest.raises(BadInput, match="no weight and bias"):
        aesthetic_head(str(path))

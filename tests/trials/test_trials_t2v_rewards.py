"""Rewards: what a CLIP thinks of frames, with gradients that go back into them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from djsandbox_ray.errors import BadInput
from djsandbox_ray.trials.clip.arch import build_model, load_arch
from djsandbox_ray.trials.clip.export import export_hugging_face
from djsandbox_ray.trials.t2v.rewards import (
    REWARDS,
    ClipReward,
    ClipRewardConfig,
    VideoClipReward,
    identity_of_reward,
)

transformers = pytest.importorskip("transformers")
PROMPTS = ("a red circle moves left on white", "a blue square")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    arch, path = load_arch("tiny"), tmp_path_factory.mktemp("clip")
    export_hugging_face(build_model(arch, 3).eval(), arch, path)
    return path


def made(kind: type[ClipReward], **settings: Any) -> ClipReward:
    name = "clip" if kind is ClipReward else "video_clip"
    reward = kind(ClipRewardConfig(type=name, **settings))
    reward.prepare("cpu")
    return reward


def clips(frames: int = 3, height: int = 32, width: int = 32) -> torch.Tensor:
    random = np.random.default_rng(0).random((len(PROMPTS), frames, 3, height, width))
    return torch.from_numpy(random.astype(np.float32)).requires_grad_()


def test_frames_are_liked_as_the_clip_itself_likes_them(folder: Path) -> None:
    frames = clips()
    found = made(ClipReward, path=str(folder))(frames, PROMPTS)
    assert found.shape == (2,)
    model = transformers.CLIPModel.from_pretrained(folder, local_files_only=True).eval()
    processor = transformers.CLIPProcessor.from_pretrained(folder, local_files_only=True)
    given = [one.detach().permute(1, 2, 0).numpy() for one in frames.flatten(0, 1)]
    inputs = processor(
        text=list(PROMPTS), images=given, do_rescale=False, padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        scores = model(**inputs).logits_per_image / model.logit_scale.exp()
    wanted = torch.stack([scores[:3, 0].mean(), scores[3:, 1].mean()])
    assert torch.allclose(found.detach(), wanted, atol=1e-5)


@pytest.mark.parametrize("kind", [ClipReward, VideoClipReward])
def test_gradients_go_back_into_every_frame(kind: type[ClipReward], folder: Path) -> None:
    frames = clips(frames=2, height=40, width=56)
    reward = made(kind, path=str(folder))
    reward(frames, PROMPTS).sum().backward()
    assert frames.grad is not None
    assert frames.grad.flatten(2).abs().sum(dim=-1).all()
    alone = reward(frames[1:], PROMPTS[1:])
    assert alone[0].item() == pytest.approx(reward(frames, PROMPTS)[1].item(), abs=1e-5)


def test_a_clip_of_equal_frames_is_as_its_frame(folder: Path) -> None:
    frame = clips(frames=1)
    still = frame.expand(-1, 4, -1, -1, -1)
    one = made(ClipReward, path=str(folder))(frame, PROMPTS)
    assert torch.allclose(made(VideoClipReward, path=str(folder))(still, PROMPTS), one, atol=1e-5)


def test_open_clips_own_files_are_read(tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip")
    arch = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 64,
            "heads": 1,
            "layers": 1,
        },
    }
    (tmp_path / "minute.json").write_text(json.dumps(arch))
    open_clip.add_model_config(tmp_path)
    model = open_clip.create_model("minute", pretrained=None).eval()
    file = tmp_path / "weights.pt"
    torch.save({"state_dict": model.state_dict()}, file)
    frames = clips(frames=1)
    reward = made(ClipReward, arch="minute", weights=str(file))
    found = reward(frames, PROMPTS)
    tokens = open_clip.get_tokenizer("minute")(list(PROMPTS))
    mean, std = (
        torch.tensor(v).reshape(3, 1, 1) for v in (model.visual.image_mean, model.visual.image_std)
    )
    with torch.no_grad():
        seen = model.encode_image((frames[:, 0] - mean) / std, normalize=True)
        said = model.encode_text(tokens, normalize=True)
    assert torch.allclose(found.detach(), (seen * said).sum(dim=1), atol=1e-5)
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"no weights")
    with pytest.raises(BadInput, match="no weights of minute"):
        made(ClipReward, arch="minute", weights=str(broken))
    with pytest.raises(BadInput, match="open_clip has no 'none-such'"):
        made(ClipReward, arch="none-such", weights=str(file))


def test_what_is_no_clip_is_said(tmp_path: Path) -> None:
    for wrong in ({}, {"path": "x", "arch": "y", "weights": "z"}, {"arch": "ViT-H-14"}):
        with pytest.raises(ValidationError):
            ClipRewardConfig(type="clip", **wrong)
    with pytest.raises(BadInput, match="there is no folder"):
        made(ClipReward, path=str(tmp_path / "none"))
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    with pytest.raises(BadInput, match="no CLIP that can be loaded"):
        made(ClipReward, path=str(tmp_path / "empty"))
    with pytest.raises(BadInput, match="is known in the stages of an evolution"):
        made(ClipReward, path="${scorer}")
    with pytest.raises(BadInput, match="unknown reward 'clop'"):
        REWARDS.get("clop")


def test_rewards_are_known_by_their_content(folder: Path) -> None:
    found = identity_of_reward(ClipRewardConfig(type="clip", path=str(folder)))
    assert "model.safetensors" in found["path"]
    scorer = identity_of_reward(ClipRewardConfig(type="clip", path="${scorer}"))
    assert scorer == {"type": "clip", "path": "${scorer}"}
    with pytest.raises(BadInput, match="cannot be read"):
        identity_of_reward(ClipRewardConfig(type="clip", arch="ViT-H-14", weights="/nowhere.pt"))

"""Frames become latents and frames again: components of patches, and diffusers' autoencoders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from t2v_world import (
    cogvideox_vae,
    diffusers,
    hunyuan_vae,
    ltx_vae,
    magvit_vae,
    moving,
    wan_vae,
)

from djsandbox_ray.errors import BadInput
from djsandbox_ray.trials.t2v.codec import (
    DiffusersCodec,
    Ratios,
    as_pixels,
    codec_class,
    load_codec,
    scaled,
)
from djsandbox_ray.trials.t2v.patches import PatchCodec

# Patches


def test_patches_keep_what_there_is_to_see() -> None:
    codec, kept = PatchCodec.fitted(moving(200))
    assert 0.95 < kept < 1
    assert codec.ratios == Ratios(4, 4, 12)
    seen = torch.from_numpy(moving(40, seed=1))
    latents = codec.encode(seen)
    assert latents.shape == (40, *codec.ratios.shape(9, 32, 32)) == (40, 12, 3, 8, 8)
    assert latents.dtype == torch.float32
    deviations = latents.transpose(0, 1).flatten(1).std(dim=1)
    assert bool((deviations > 0.6).all() and (deviations < 1.5).all())
    again = codec.decode(latents)
    assert again.shape == seen.shape
    whole = scaled(seen).permute(0, 2, 3, 4, 1)
    lost = float(((again - whole) ** 2).mean() / ((whole - whole.mean()) ** 2).mean())
    assert lost < 0.05
    assert as_pixels(again).dtype == torch.uint8
    assert as_pixels(whole).equal(seen)
    # Each clip by itself, the same.
    assert torch.allclose(codec.encode(seen[3:4]), latents[3:4], atol=1e-5)


def test_all_components_lose_nothing() -> None:
    seen = torch.from_numpy(moving(20, frames=5, size=16))
    codec, kept = PatchCodec.fitted(seen.numpy(), channels=24, side=2)
    assert kept == pytest.approx(1)
    latents = codec.encode(seen)
    assert latents.shape == (20, 24, 3, 8, 8)
    assert as_pixels(codec.decode(latents)).equal(seen)


def test_the_same_clips_give_the_same_codec(tmp_path: Path) -> None:
    codec, _ = PatchCodec.fitted(moving(60))
    codec.save(tmp_path)
    other, _ = PatchCodec.fitted(iter(moving(60)))
    loaded = load_codec(tmp_path, "cpu")
    assert isinstance(loaded, PatchCodec)
    assert codec_class(json.loads((tmp_path / "config.json").read_text())) is PatchCodec
    seen = torch.from_numpy(moving(3, seed=4))
    assert codec.encode(seen).equal(other.encode(seen))
    assert codec.encode(seen).equal(loaded.encode(seen))
    greatest = np.abs(codec._kept["components"]).argmax(axis=1)
    assert (codec._kept["components"][np.arange(12), greatest] > 0).all()


def test_gradients_pass_through_the_decoder() -> None:
    codec, _ = PatchCodec.fitted(moving(20))
    latents = torch.zeros(1, 12, 3, 8, 8, requires_grad=True)
    codec.decode(latents)[0, -1].sum().backward()
    assert bool(latents.grad[:, :, -1].any())
    assert not bool(latents.grad[:, :, 0].any())


def test_clips_of_one_colour_have_a_codec_too() -> None:
    gray = np.full((2, 5, 8, 8, 3), 128, np.uint8)
    codec, kept = PatchCodec.fitted(gray)
    assert kept == 1
    assert as_pixels(codec.decode(codec.encode(torch.from_numpy(gray)))).numpy() == pytest.approx(
        gray
    )


def test_what_cannot_be_fitted_or_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no clips to fit"):
        PatchCodec.fitted([])
    with pytest.raises(BadInput, match="193 components of 192 numbers"):
        PatchCodec.fitted(moving(1), channels=193)
    with pytest.raises(BadInput, match=r"config\.json cannot be read"):
        load_codec(tmp_path, "cpu")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(BadInput, match="does not say a _class_name"):
        load_codec(tmp_path, "cpu")
    (tmp_path / "config.json").write_text('{"_class_name": "patches", "side": 4, "channels": 12}')
    with pytest.raises(BadInput, match=r"patches\.safetensors cannot be read"):
        load_codec(tmp_path, "cpu")
    (tmp_path / "config.json").write_text('{"_class_name": "AutoencoderKLMochi"}')
    with pytest.raises(BadInput, match="AutoencoderKLMochi is not supported; AutoencoderKLCogV"):
        load_codec(tmp_path, "cpu")
    (tmp_path / "config.json").write_text('{"_class_name": "UNet"}')
    with pytest.raises(BadInput, match="unknown codec 'UNet'"):
        load_codec(tmp_path, "cpu")


def test_which_clips_have_latents() -> None:
    ratios = Ratios(4, 8, 16)
    assert ratios.shape(17, 256, 128) == (16, 5, 32, 16)
    assert ratios.shape(1, 8, 8) == (16, 1, 1, 1)
    with pytest.raises(BadInput, match=r"frames: 16 is not a multiple of 4 and 1 more.*: 13, 17"):
        ratios.shape(16, 256, 256)
    with pytest.raises(BadInput, match="size: 100 pixels are no multiple of 8"):
        ratios.shape(17, 256, 100)


# Autoencoders of diffusers


@pytest.mark.parametrize("make", [magvit_vae, cogvideox_vae, wan_vae, ltx_vae, hunyuan_vae])
def test_autoencoders_are_normalised_as_their_pipelines_do(make: Any, tmp_path: Path) -> None:
    """By the formulas of the five pipelines: what they do to latents before they decode them."""
    torch.manual_seed(0)
    make().save_pretrained(tmp_path)
    codec = load_codec(tmp_path, "cpu")
    assert isinstance(codec, DiffusersCodec)
    vae, config = codec.vae, codec.vae.config
    seen = torch.from_numpy(moving(2, frames=9, size=32))
    latents = codec.encode(seen)
    assert latents.shape == (2, *codec.ratios.shape(9, 32, 32))
    with torch.no_grad():
        plain = torch.cat([vae.encode(scaled(one[None])).latent_dist.mode() for one in seen])
    if make is wan_vae:
        mean, std = (
            torch.tensor(config[f"latents_{n}"]).view(1, -1, 1, 1, 1) for n in ("mean", "std")
        )
        back = latents * std + mean
    elif make is ltx_vae:
        back = diffusers.LTXPipeline._denormalize_latents(
            latents, vae.latents_mean, vae.latents_std, config.scaling_factor
        )
    else:
        back = latents / config.scaling_factor
    assert torch.allclose(back, plain, atol=1e-5)
    video = codec.decode(latents)
    assert video.shape == seen.shape
    with torch.no_grad():
        whole = vae.decode(back, return_dict=False)[0]
    assert torch.allclose(video, whole.permute(0, 2, 3, 4, 1), atol=1e-4)
    assert not any(parameter.requires_grad for parameter in vae.parameters())
    # Read without the weights, the ratios are the same.
    settings = json.loads((tmp_path / "config.json").read_text())
    assert DiffusersCodec.ratios_of(settings) == codec.ratios


def test_a_damaged_autoencoder_is_said(tmp_path: Path) -> None:
    wan_vae().save_pretrained(tmp_path)
    for file in tmp_path.glob("*.safetensors"):
        file.unlink()
    with pytest.raises(BadInput, match=str(tmp_path)):
        load_codec(tmp_path, "cpu")

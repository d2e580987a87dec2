"""Text to video in a few thousand parameters: autoencoders, transformers, pipelines, clips."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from written_tables import written

from djsandbox_ray.dataset.clips import ClipsConfig, ClipsSource
from djsandbox_ray.dataset.moving_world import draw_frames, random_scene
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.trials.model_folders import shipped_arch
from djsandbox_ray.trials.t2v.base_folder import CODEC, TRANSFORMER
from djsandbox_ray.trials.t2v.patches import PatchCodec
from djsandbox_ray.trials.t2v.small import write_parts

diffusers = pytest.importorskip("diffusers")

TOKENS, TEXT, POOLED = 8, 24, 8
"""Of a prompt; the width of its embeddings, and of the vector for it as a whole."""


def moving(count: int, seed: int = 0, frames: int = 9, size: int = 32) -> np.ndarray:
    """Return clips of the moving world; (count, frames, size, size, 3)."""
    found = []
    for index in range(count):
        rng = np.random.default_rng([seed, index])
        found.append(draw_frames(random_scene(rng), rng, size, frames))
    return np.stack(found)


def write_clips(
    folder: Path, rows: int, seed: int = 0, defects: Sequence[str] = (), **config: Any
) -> SampleTable:
    """Write clips of the moving world, all with the same defects."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = ClipsConfig(type="clips", samples=rows, seed=seed, **config)
    samples = [ClipsSource.sample(settings, index, defects) for index in range(rows)]
    return written(list(samples), folder)[0]


def random_base(folder: Path, captions: Sequence[str], size: int = 16) -> Path:
    """Write a small pipeline with random weights, whose transformer says something.

    Args:
        folder: a new one.
        captions: whose words it knows.
        size: of the clips that its codec is fitted on.
    """
    folder.mkdir(parents=True)
    write_parts(folder, shipped_arch("djsandbox_ray.trials.t2v", "tiny"), captions, seed=0)
    transformer = diffusers.WanTransformer3DModel.from_pretrained(folder / TRANSFORMER)
    randomised(transformer).save_pretrained(folder / TRANSFORMER)
    (folder / CODEC).mkdir()
    PatchCodec.fitted(moving(40, seed=9, size=size))[0].save(folder / CODEC)
    return folder


def magvit_vae() -> Any:
    return diffusers.AutoencoderKLMagvit(
        latent_channels=4,
        block_out_channels=(8, 8, 8, 8),
        down_block_types=["SpatialDownBlock3D", *["SpatialTemporalDownBlock3D"] * 3],
        up_block_types=["SpatialUpBlock3D", *["SpatialTemporalUpBlock3D"] * 3],
        layers_per_block=1,
        norm_num_groups=2,
    )


def cogvideox_vae() -> Any:
    return diffusers.AutoencoderKLCogVideoX(
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2
    )


def wan_vae() -> Any:
    return diffusers.AutoencoderKLWan(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        latents_mean=[0.5, -1.0, 0.0, 2.0],
        latents_std=[1.0, 2.0, 0.5, 4.0],
    )


def ltx_vae() -> Any:
    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        patch_size=2,
    )
    vae.latents_mean = torch.linspace(-1, 1, 8)
    vae.latents_std = torch.linspace(0.5, 2, 8)
    return vae


def hunyuan_vae() -> Any:
    return diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=2,
        mid_block_add_attention=False,
    )


def easyanimate() -> Any:
    return diffusers.EasyAnimateTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        patch_size=2,
        num_layers=2,
        mmdit_layers=2,
        time_embed_dim=8,
        text_embed_dim=TEXT,
    )


def cogvideox(rotary: bool = False) -> Any:
    return diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=16,
        in_channels=4,
        out_channels=4,
        time_embed_dim=8,
        text_embed_dim=TEXT,
        num_layers=2,
        sample_width=8 if rotary else 4,
        sample_height=6 if rotary else 4,
        sample_frames=9,
        max_text_seq_length=TOKENS,
        use_rotary_positional_embeddings=rotary,
    )


def rotary_cogvideox() -> Any:
    return cogvideox(rotary=True)


def wan(channels: int = 4, layers: int = 2) -> Any:
    return diffusers.WanTransformer3DModel(
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=channels,
        out_channels=channels,
        text_dim=TEXT,
        freq_dim=16,
        ffn_dim=32,
        num_layers=layers,
        rope_max_seq_len=32,
    )


def ltx() -> Any:
    return diffusers.LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=8,
        cross_attention_dim=16,
        num_layers=2,
        caption_channels=TEXT,
    )


def hunyuan() -> Any:
    return diffusers.HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        text_embed_dim=TEXT,
        pooled_projection_dim=POOLED,
        rope_axes_dim=(2, 4, 4),
    )


ALL = {
    "easyanimate": (easyanimate, magvit_vae),
    "cogvideox": (cogvideox, cogvideox_vae),
    "cogvideox rotary": (rotary_cogvideox, cogvideox_vae),
    "wan": (wan, wan_vae),
    "ltx": (ltx, ltx_vae),
    "hunyuan": (hunyuan, hunyuan_vae),
}
"""Transformers with the autoencoders that go with them."""


def randomised(model: Any, seed: int = 0) -> Any:
    """Give a model random weights: some begin with zeros, and say nothing."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            drawn = torch.randn(parameter.shape, generator=generator)
            width = parameter[0].numel() if parameter.ndim > 1 else 10
            parameter.copy_(drawn / width**0.5 + (parameter.ndim == 1) * 0.5)
    return model.eval()

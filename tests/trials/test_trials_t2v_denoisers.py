"""Transformers of diffusers are called as their own pipelines do it, argument by argument."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from t2v_world import ALL, POOLED, TEXT, TOKENS, diffusers, randomised, wan

from djsandbox_ray.errors import BadInput
from djsandbox_ray.trials.lora import put_adapters
from djsandbox_ray.trials.t2v.codec import DiffusersCodec
from djsandbox_ray.trials.t2v.denoisers import (
    ADAPTERS,
    CogVideoX,
    LtxVideo,
    Prompts,
    Surroundings,
    TransformerAdapter,
    adapter_class,
)

FPS, GUIDANCE = 12.0, 3.5


def prompts(rows: int = 1) -> Prompts:
    random = torch.Generator().manual_seed(5)
    mask = torch.ones(rows, TOKENS, dtype=torch.int64)
    mask[:, 5:] = 0
    return Prompts(
        torch.randn(rows, TOKENS, TEXT, generator=random),
        mask,
        torch.randn(rows, POOLED, generator=random),
    )


def adapter(transformer: Any, vae: Any) -> TransformerAdapter:
    around = Surroundings(DiffusersCodec(vae.eval()).ratios, FPS, GUIDANCE)
    return adapter_class(type(transformer).__name__)(transformer.config, around)


def pipeline(transformer: Any, vae: Any, kind: str) -> Any:
    scheduler = (
        diffusers.CogVideoXDDIMScheduler(prediction_type="v_prediction")
        if kind == "CogVideoXPipeline"
        else diffusers.FlowMatchEulerDiscreteScheduler()
    )
    parts = {"vae": vae, "transformer": transformer, "scheduler": scheduler}
    lacking = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
    wanted = inspect.signature(getattr(diffusers, kind).__init__).parameters
    none = dict.fromkeys((name for name in lacking if name in wanted), None)
    made = getattr(diffusers, kind)(**parts, **none)
    made.set_progress_bar_config(disable=True)
    return made


def first_call(made: Any, given: Prompts) -> tuple[dict[str, Any], Any]:
    """Return the arguments of the pipeline's first call of its transformer, and what came out."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any], Any]] = []
    handle = made.transformer.register_forward_hook(
        lambda _, args, kwargs, out: calls.append((args, kwargs, out[0])), with_kwargs=True
    )
    wanted = inspect.signature(type(made).__call__).parameters
    told = {
        "prompt_embeds": given.embeddings,
        "prompt_attention_mask": given.mask,
        "pooled_prompt_embeds": given.pooled,
        "height": 32,
        "width": 32,
        "num_frames": 9,
        "frame_rate": FPS,
        "num_inference_steps": 2,
        "guidance_scale": GUIDANCE if type(made).__name__.startswith("Hunyuan") else 1.0,
        "output_type": "latent",
        "generator": torch.Generator().manual_seed(1),
    }
    made(**{name: value for name, value in told.items() if name in wanted})
    handle.remove()
    args, kwargs, out = calls[0]
    return bound(made.transformer, *args, **kwargs), out


def bound(transformer: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Return all arguments of a call by name, those that were left out too."""
    found = inspect.signature(type(transformer).forward).bind(transformer, *args, **kwargs)
    found.apply_defaults()
    return {name: value for name, value in found.arguments.items() if name != "self"}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and one.equal(other)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("name", ALL)
def test_the_first_call_of_the_pipeline_is_ours(name: str) -> None:
    make, make_vae = ALL[name]
    transformer, vae, given = randomised(make()), make_vae(), prompts()
    ours = adapter(transformer, vae)
    expected, out = first_call(pipeline(transformer, vae, ours.PIPELINE), given)
    noisy = expected["hidden_states"]
    if isinstance(ours, CogVideoX):
        noisy = noisy.transpose(1, 2)
    elif isinstance(ours, LtxVideo):
        noisy = diffusers.LTXPipeline._unpack_latents(noisy, 3, 4, 4)
    ours.check(noisy.shape[1:])
    times = expected["timestep"].float()
    found = bound(transformer, **ours.arguments(noisy, times, given), return_dict=False)
    assert found.keys() == expected.keys()
    wrong = [key for key in expected if not same(found[key], expected[key])]
    assert not wrong, {key: (found[key], expected[key]) for key in wrong}
    with torch.no_grad():
        again = ours(transformer, noisy, times, given)
    assert again.shape == noisy.shape
    assert float(again.abs().max()) > 0
    if isinstance(ours, CogVideoX):
        out = out.transpose(1, 2)
    elif isinstance(ours, LtxVideo):
        out = diffusers.LTXPipeline._unpack_latents(out, 3, 4, 4)
    assert again.equal(out)


@pytest.mark.parametrize("name", ALL)
def test_adapters_learn_in_every_transformer(name: str) -> None:
    """All that is trained gets a gradient (workers wait for it), with activations kept or not."""
    make, make_vae = ALL[name]
    transformer = randomised(make()).requires_grad_(False)
    ours = adapter(transformer, make_vae())
    put_adapters(transformer, 2, 2.0, ours.TARGETS, 0, "lora.targets")
    channels = transformer.config.in_channels
    noisy = torch.randn(2, channels, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    times, given = torch.tensor([900.0, 100.0]), prompts(2)
    found = []
    for checkpointing in (False, True):
        if checkpointing:
            transformer.enable_gradient_checkpointing()
        transformer.train()
        out = ours(transformer, noisy, times, given)
        assert out.shape == noisy.shape
        (out**2).mean().backward()
        trained = {n: p for n, p in transformer.named_parameters() if p.requires_grad}
        assert trained
        assert all(".lora_" in n for n in trained)
        assert not [n for n, p in trained.items() if p.grad is None]
        found.append({n: p.grad.clone() for n, p in trained.items()})
        transformer.zero_grad()
    assert any(float(grad.abs().max()) > 0 for grad in found[0].values())
    assert all(torch.allclose(found[0][n], found[1][n], atol=1e-6) for n in found[0])
    with torch.no_grad():
        alone = ours(transformer, noisy[1:], times[1:], given.take([1]))
    assert np.allclose(alone, out[1:].detach(), atol=1e-5), "rows must not see each other"


def test_a_transformer_without_an_adapter_is_refused() -> None:
    with pytest.raises(BadInput, match="unknown video transformer 'WanTransformer'; did you mean"):
        adapter_class("WanTransformer")
    assert all(hasattr(diffusers, name) for name in ADAPTERS)
    assert all(hasattr(diffusers, kind.PIPELINE) for kind in ADAPTERS.values())


def test_clips_that_do_not_fit_are_refused() -> None:
    transformer = wan()
    ours = adapter(transformer, ALL["wan"][1]())
    assert ours.patch == (1, 2, 2)
    ours.check((4, 3, 4, 4))
    with pytest.raises(BadInput, match="latents of 4 channels, the codec gives 8"):
        ours.check((8, 3, 4, 4))
    with pytest.raises(BadInput, match="a width of 5, which the transformer reads by 2"):
        ours.check((4, 3, 4, 5))


def test_layers_that_are_not_there_get_no_adapters() -> None:
    with pytest.raises(
        BadInput, match=r"targets: the model has no linear layers to_z \(there are .*to_out.0"
    ):
        put_adapters(wan(), 2, 2.0, ("to_q", "to_z"), 0, "lora.targets")

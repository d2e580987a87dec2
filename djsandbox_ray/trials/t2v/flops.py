"""Floating-point operations of a denoiser, counted on a model without storage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from djsandbox_ray.errors import BadInput, require
from djsandbox_ray.trials.model_folders import first_line
from djsandbox_ray.trials.t2v.codec import Ratios
from djsandbox_ray.trials.t2v.denoisers import Prompts, Surroundings, adapter_class


def denoising_flops(
    settings: Mapping[str, Any],
    ratios: Ratios,
    shape: tuple[int, ...],
    tokens: int,
    frozen: bool,
    backward: bool = True,
) -> float:
    """Return the operations of one forward and backward pass of one sample.

    Adapters are counted as if they cost nothing beside what they adapt.

    Args:
        settings: ``config.json`` of the transformer.
        ratios: of the codec.
        shape: of the latents.
        tokens: of a prompt.
        frozen: whether gradients only pass through the transformer, as with adapters.
        backward: whether there is a pass backward.
    """
    torch = require("torch", "clip")
    counter = require("torch.utils.flop_counter", "clip").FlopCounterMode(display=False)
    transformer = without_storage(settings).requires_grad_(not frozen).train()
    with torch.device("meta"):
        config = transformer.config
        adapter = adapter_class(settings["_class_name"])(config, Surroundings(ratios))
        prompts = Prompts(
            torch.empty(1, tokens, config[adapter.TEXT_WIDTH], requires_grad=frozen),
            torch.ones(1, tokens),
            torch.empty(1, config.get("pooled_projection_dim") or 1),
        )
        latents = torch.empty(1, *shape, requires_grad=frozen)
        times = torch.zeros(1)
        with counter:
            out = adapter(transformer, latents, times, prompts)
            if backward:
                out.sum().backward()
    return float(counter.get_total_flops())


def prompt_width(settings: Mapping[str, Any]) -> int:
    """Return the numbers per token of a prompt that a transformer reads.

    Args:
        settings: ``config.json`` of the transformer.
    """
    width = adapter_class(settings["_class_name"]).TEXT_WIDTH
    return int(without_storage(settings).config[width])


def without_storage(settings: Mapping[str, Any]) -> Any:
    """Return a transformer on the meta device.

    Args:
        settings: ``config.json`` of the transformer.

    Raises:
        BadInput: it cannot be made from them.
    """
    diffusers, torch = require("diffusers", "t2v"), require("torch", "clip")
    name = settings["_class_name"]
    try:
        with torch.device("meta"):
            return getattr(diffusers, name).from_config(dict(settings))
    except (TypeError, ValueError, RuntimeError, ArithmeticError, AttributeError) as error:
        raise BadInput(f"base: no {name} is made of its settings: {first_line(error)}") from error

"""Low-rank adapters on a model (Hu et al. 2021, arXiv 2106.09685), by peft."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from djsandbox_ray.errors import BadInput, require
from djsandbox_ray.settings.sections import Section

_INSIDE, _ADDED = ".base_layer.", "lora_"
"""Of the names in a model that peft has put adapters on: what was there before, and its own."""


class LoraConfig(Section):
    """How large adapters are, and where they are put."""

    rank: int = Field(default=128, ge=1, le=4096, strict=True)
    alpha: float = Field(default=256, gt=0)
    """What an adapter adds is scaled by ``alpha / rank``."""
    targets: tuple[str, ...] = Field(
        default=("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
        min_length=1,
    )
    """Names of the linear layers that get one."""


def put_adapters(
    model: Any, rank: int, alpha: float, targets: Sequence[str], seed: int, where: str
) -> None:
    """Put adapters of low rank on a model; they alone have gradients then.

    Args:
        model: a torch module, none of whose parameters is trained.
        rank: of the matrices.
        alpha: what they add is scaled by ``alpha / rank``.
        targets: names of linear layers, or the last parts of them (``to_out.0``).
        seed: decides the first matrix of each; the second one is zero.
        where: the setting with the targets, for messages.

    Raises:
        BadInput: the model has no such layers.
    """
    peft, torch = require("peft", "llava"), require("torch", "clip")
    linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    lacking = [
        target
        for target in sorted(set(targets))
        if not any(name == target or name.endswith(f".{target}") for name in linear)
    ]
    if lacking:
        known = sorted({_last_part(name) for name in linear})
        raise BadInput(
            f"{where}: the model has no linear layers {', '.join(lacking)} (there are "
            f"{', '.join(known)})"
        )
    settings = peft.LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=list(targets), lora_dropout=0.0, bias="none"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(settings, model)


def merged_weights(model: Any) -> dict[str, Any]:
    """Return a model's weights, with what adapters add in the matrices that they are put on.

    Args:
        model: a torch module, with adapters or without; it stays as it is.

    Returns:
        Tensors on the CPU by the names that they have in a model without adapters.
    """
    torch = require("torch", "clip")
    layers = dict(model.named_modules())
    weights: dict[str, Any] = {}
    with torch.no_grad():
        for name, value in model.state_dict().items():
            layer, inside, part = name.rpartition(_INSIDE)
            if inside:
                adapted = layers[layer]
                if part == "weight":
                    for adapter in adapted.active_adapters:
                        value = value + adapted.get_delta_weight(adapter).to(value.dtype)
                weights[f"{layer}.{part}"] = value.cpu()
            elif not any(word.startswith(_ADDED) for word in name.split(".")):
                weights[name] = value.cpu()
    return weights


def _last_part(name: str) -> str:
    """Return what tells a layer from others of its block; a number alone would not."""
    *above, last = name.split(".")
    return f"{above[-1]}.{last}" if last.isdigit() and above else last

"""Low-rank adapters on a language model (Hu et al. 2021, arXiv 2106.09685), by peft."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from djsandbox_ray.errors import BadInput, require
from djsandbox_ray.settings.sections import Section


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
    language: Any, rank: int, alpha: float, targets: Sequence[str], seed: int, where: str
) -> None:
    """Put adapters of low rank on a language model; they alone have gradients then.

    Args:
        language: a torch module, none of whose parameters is trained.
        rank: of the matrices.
        alpha: what they add is scaled by ``alpha / rank``.
        targets: names of linear layers.
        seed: decides the first matrix of each; the second one is zero.
        where: the setting with the targets, for messages.

    Raises:
        BadInput: the language model has no such layers.
    """
    peft, torch = require("peft", "llava"), require("torch", "clip")
    linear = {
        name.rpartition(".")[2]
        for name, module in language.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    if lacking := sorted(set(targets) - linear):
        raise BadInput(
            f"{where}: the language model has no linear layers {', '.join(lacking)} (there are "
            f"{', '.join(sorted(linear))})"
        )
    settings = peft.LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=list(targets), lora_dropout=0.0, bias="none"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(settings, language)

"""An image-to-text model as trials train it: what of it is trained, and the logits that are asked.

Importing this imports torch: who may be without it imports it where it is used.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from inspect import signature
from typing import Any

from djsandbox_ray.errors import BadInput, SandboxError, require
from djsandbox_ray.trials.lora import put_adapters
from djsandbox_ray.trials.strategies.strategy import twin
from djsandbox_ray.trials.vlm.config import VlmStageConfig
from djsandbox_ray.trials.vlm.joined import Joined

torch = require("torch", "clip")
nn = require("torch.nn", "clip")

_PROJECTORS = (
    "multi_modal_projector",
    "connector",
    "merger",
    "deepstack_merger_list",
    "mlp1",
    "mm_projector",
    "vision_projection",
    "aligner",
    "embed_vision",
)
"""What models call the part that joins tower and language model; Qwen's have ``visual.merger``."""
_USUAL = rf"(^|\.)({'|'.join(_PROJECTORS)})\."


class Speaker(nn.Module):  # type: ignore[misc, name-defined]
    """A model of transformers that foretells chosen tokens of texts with images.

    Args:
        vlm: a model with a head, of which nothing is trained yet.
    """

    def __init__(self, vlm: Any) -> None:
        super().__init__()
        self.vlm = vlm
        self._reads = frozenset(signature(vlm.forward).parameters)

    @property
    def language(self) -> Any:
        """The language model, without its head."""
        return self.vlm.get_decoder()

    def read(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return what the model reads of all that a processor gives."""
        return {name: value for name, value in inputs.items() if name in self._reads}

    def forward(self, inputs: Mapping[str, Any], places: Any) -> Any:
        """Return the logits of the tokens behind some places; shape (places, vocabulary).

        Args:
            inputs: what a processor gives, by name, padded on the right.
            places: numbers into the flattened ``input_ids``, shape (places,).
        """
        given, ids = self.read(inputs), inputs["input_ids"]
        lines = torch.div(places, ids.shape[1], rounding_mode="floor")
        columns = places % ids.shape[1]
        if "logits_to_keep" in self._reads:
            # Of a long text in a large vocabulary, only the columns that are asked for.
            kept, columns = torch.unique(columns, return_inverse=True)
            given["logits_to_keep"] = kept
        return self.vlm(**given, use_cache=False).logits[lines, columns]

    def gradient_checkpointing_enable(self, **settings: Any) -> None:
        """Have the model compute activations again on the way back."""
        self.vlm.gradient_checkpointing_enable(**settings)


def trial_model(
    vlm: Any, config: VlmStageConfig, seed: int, where: str, earlier: Mapping[str, Any]
) -> Speaker:
    """Return a model of which that is trained that its stage says.

    It shares with the base what is not trained; the rest gets weights of its own, in float32.

    Args:
        vlm: a base on its device, without gradients.
        config: of the stage.
        seed: decides the adapters.
        where: the stage's settings, for messages.
        earlier: what stages before have trained, by name.

    Raises:
        BadInput: the model has no such parts.
    """
    model = Speaker(twin(vlm))
    left = _taken(model, earlier)
    if config.train == "lora":
        language, lora = model.language, config.lora
        if language is model.vlm:
            raise BadInput(f"{where}.train: lora needs a language model apart from the tower")
        place = f"{where}.lora.targets"
        put_adapters(language, lora.rank, lora.alpha, lora.targets, seed, place)
        left = _taken(model, left)
    else:
        _open(model, config, where)
    if left:
        raise SandboxError(f"nothing goes on from what was trained of {next(iter(left))}")
    return model


def freeze_unreached(model: Speaker, probe: Joined, half: bool, where: str) -> None:
    """Freeze what no loss reaches, such as layers of the tower that nothing reads.

    Args:
        model: on its device.
        probe: a sample with an image and targets, on that device.
        half: whether it computes in bfloat16.
        where: the stage's settings, for messages.

    Raises:
        BadInput: no loss reaches anything that is trained.
    """
    model.train()
    with torch.autocast(probe.ids.device.type, torch.bfloat16, enabled=half):
        logits = model(probe.inputs, probe.places)
    if not logits.requires_grad:
        raise BadInput(f"{where}.train: no answer hangs on anything that would be trained")
    logits.float().sum().backward()
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.grad is not None)
    model.zero_grad(set_to_none=True)


def _open(model: Speaker, config: VlmStageConfig, where: str) -> None:
    """Have all trained, or what has the name of a projector."""
    wanted = re.compile((config.projector or _USUAL) if config.train == "projector" else "")
    opened = 0
    for name, parameter in model.vlm.named_parameters():
        if wanted.search(name) and parameter.is_floating_point():
            parameter.data = parameter.data.clone().float()
            parameter.requires_grad_(True)
            opened += 1
    if not opened:
        raise BadInput(
            f"{where}.projector: no parameter of {type(model.vlm).__name__} has a name with "
            f"{wanted.pattern!r} in it; its parts are {', '.join(_parts(model.vlm))}"
        )


def _parts(vlm: Any) -> list[str]:
    """Return the names of a model's modules, and of what they are made of."""
    found = []
    for name, module in vlm.named_children():
        below = [f"{name}.{inner}" for inner, _ in module.named_children()]
        found += below or [name]
    return found


def _taken(model: Speaker, weights: Mapping[str, Any]) -> dict[str, Any]:
    """Put weights of former stages in their places; return those that have none yet."""
    left = dict(weights)
    for name, parameter in model.named_parameters():
        if name in left:
            # Not into the tensor that is there: it may be the base's.
            parameter.data = left.pop(name).to(parameter.device, copy=True)
    return left

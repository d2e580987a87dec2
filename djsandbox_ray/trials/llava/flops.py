"""Floating-point operations of a LLaVA, counted part by part on models without storage.

As a whole it cannot be counted on the meta device: where images stand in a text is a question about
numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from djsandbox_ray.errors import require

Trained = Literal["projector", "full", "lora"]


@dataclass(frozen=True)
class PartFlops:
    """Operations on one sample, by part; a part that is not trained still passes gradients on."""

    tower: float
    projector: float
    """Forward and backward."""
    language: float
    """Forward alone."""
    language_frozen: float
    """Forward, and backward to the projector."""
    language_trained: float
    """Forward and backward."""
    tokens: int
    """Of the sample, those of its image included."""
    parameters: int
    """Of the language model."""

    def training(self, trained: Trained) -> float:
        """Return the operations of training on one sample.

        Adapters are counted as if they cost nothing beside what they adapt.
        """
        language = self.language_trained if trained == "full" else self.language_frozen
        return self.tower + self.projector + language

    def answering(self, new: int) -> float:
        """Estimate the operations of an answer: two for each parameter and token.

        Args:
            new: tokens of the answer; the question has as many as the sample.
        """
        return self.tower + self.projector / 3 + 2.0 * self.parameters * (self.tokens + new)

    @property
    def weighing(self) -> float:
        """Operations of finding out how likely a caption is."""
        return self.tower + self.projector / 3 + self.language


def count_parts(
    tower: Any,
    language: Any,
    projector: Callable[[], Any],
    tokens: int,
    fine: Callable[[], Any] | None = None,
    size: int = 0,
) -> PartFlops:
    """Count the parts of a model.

    Args:
        tower: configuration of a vision tower of transformers.
        language: configuration of a causal language model of transformers.
        projector: makes the projector.
        tokens: of a usual sample, those of its image included.
        fine: makes the second tower, where there is one.
        size: pixels of a side of the squares that this sees.
    """
    torch, transformers = require("torch", "clip"), require("transformers", "llava")
    with torch.device("meta"):
        see = transformers.AutoModel.from_config(tower)
        see = getattr(see, "vision_model", see)
        read = transformers.AutoModelForCausalLM.from_config(language)
        join = projector()
        pixels = torch.empty(1, 3, tower.image_size, tower.image_size)
        patches = (tower.image_size // tower.patch_size) ** 2
        features = torch.empty(1, patches, tower.hidden_size)
        embedded = torch.empty(1, tokens, language.hidden_size)
        # Given whole, a mask is not looked at: there are no numbers here.
        mask = torch.empty(1, 1, tokens, tokens)

        maps: tuple[Any, ...] = ()
        if fine is not None:
            second, squares = fine(), torch.empty(1, 3, size, size)
            maps = (second(squares),)

    def forward() -> None:
        with torch.no_grad():
            see(pixels)
            if fine is not None:
                second(squares)

    def reading(grad: bool, frozen: bool) -> Callable[[], None]:
        def work() -> None:
            read.requires_grad_(not frozen)
            with torch.set_grad_enabled(grad):
                given = embedded.detach().requires_grad_(grad)
                logits = read(inputs_embeds=given, attention_mask=mask, use_cache=False).logits
                if grad:
                    logits.sum().backward()

        return work

    return PartFlops(
        tower=_count(forward),
        projector=_count(lambda: join(features, *maps).sum().backward()),
        language=_count(reading(grad=False, frozen=True)),
        language_frozen=_count(reading(grad=True, frozen=True)),
        language_trained=_count(reading(grad=True, frozen=False)),
        tokens=tokens,
        parameters=sum(parameter.numel() for parameter in read.parameters()),
    )


def _count(work: Callable[[], Any]) -> float:
    counter = require("torch.utils.flop_counter", "clip").FlopCounterMode(display=False)
    with counter:
        work()
    return float(counter.get_total_flops())

"""Low-rank adapters on a model (Hu et al. 2021, arXiv 2106.09685), by peft.

Trained ones are kept as peft keeps them, so that anybody can put them on the model that they were
trained on: ``PeftModel.from_pretrained(model, folder)``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from djsandbox_ray.errors import BadInput, require
from djsandbox_ray.settings.sections import Section
from djsandbox_ray.trials.model_folders import first_line, folder_content, is_there, local_folder

_SETTINGS, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX, _NAME = "base_model.model.", ".default."
"""What peft puts before the names of weights in files, and into them in a model."""
_SEED = "{seed}"

_INSIDE, _ADDED = ".base_layer.", "lora_"
"""Of the names in a model that peft has put adapters on: what was there before, and its own."""


class LoraConfig(Section):
    """How large adapters are, and where they are put."""

    rank: int = Field(default=128, ge=1, le=4096, strict=True)
    """Of the two matrices that an adapter is the product of."""
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

    They are float32 whatever the model's own numbers are: in bfloat16, whose neighbours are half a
    per cent apart, a step of a usual learning rate is rounded away.

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
    settings = _settings(rank, alpha, targets)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(settings, model)
    # peft gives them the numbers of the layers that they are put on; only its wrapper casts them.
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


_OTHER = ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern")
"""Settings of peft by which the same weights add something else."""


class AdapterFolder(Section):
    """Where adapters lie that were trained before."""

    path: str = Field(min_length=1)
    """A folder or URL as peft writes it; ``{seed}`` in it is the seed of the trial."""
    id: str | None = None
    """What they are known by, of folders that a run makes itself; else their content is."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        if _SEED in self.path and self.id is None:
            raise ValueError(f"path: {_SEED} needs an id: what is in such folders is not looked at")
        return self

    def identity(self) -> Any:
        """Return what stands for the adapters."""
        return {"path": folder_content(self.path)} if self.id is None else {"id": self.id}

    def lost(self) -> list[str]:
        """Return that the folder is not there, as a phrase; of one that a run makes, nothing."""
        if self.id is not None or is_there(self.path):
            return []
        return [f"path: there is no folder {self.path!r}"]

    def read(self, seed: int) -> Adapters:
        """Read the adapters for a trial.

        Raises:
            BadInput: there are none.
        """
        path = self.path.replace(_SEED, str(seed))
        if not is_there(path):
            raise BadInput(f"{path}: there is no folder with adapters")
        with local_folder(path) as folder:
            return Adapters.read(folder, path)


@dataclass(frozen=True)
class Adapters:
    """Adapters that were trained, apart from their model."""

    rank: int
    alpha: float
    targets: tuple[str, ...]
    """Names of the linear layers that have one."""
    weights: Mapping[str, Any]
    """By the names that the parameters have in a model; torch tensors on the CPU."""

    @classmethod
    def read(cls, folder: Path, shown: str) -> Self:
        """Read what :meth:`write`, or peft, has written.

        Args:
            folder: a local one.
            shown: what it is called in messages.

        Raises:
            BadInput: there are no adapters, or others than of low rank on linear layers.
        """
        load = require("safetensors.torch", "t2v").load_file
        try:
            known = json.loads((folder / _SETTINGS).read_text())
            rank, alpha, targets = (known[n] for n in ("r", "lora_alpha", "target_modules"))
            found = load(folder / _WEIGHTS)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise BadInput(
                f"{shown}: no adapters as peft writes them: {first_line(error)}"
            ) from None
        if known.get("peft_type") != "LORA" or not isinstance(targets, list):
            raise BadInput(f"{shown}: adapters of low rank on named linear layers are needed")
        if other := [name for name in _OTHER if known.get(name)]:
            raise BadInput(f"{shown}: adapters with {', '.join(other)} would be taken for others")
        weights = {}
        for name, value in found.items():
            layer, dot, last = name.removeprefix(_PREFIX).rpartition(".")
            weights[f"{layer}{_NAME.rstrip('.')}{dot}{last}"] = value
        return cls(int(rank), float(alpha), tuple(sorted(targets)), weights)

    def write(self, folder: Path) -> None:
        """Write them into an existing folder."""
        save = require("safetensors.torch", "t2v").save_file
        _settings(self.rank, self.alpha, self.targets).save_pretrained(str(folder))
        named = {
            f"{_PREFIX}{name.replace(_NAME, '.')}": value.contiguous()
            for name, value in self.weights.items()
        }
        save(named, folder / _WEIGHTS, metadata={"format": "pt"})

    def fill(self, model: Any, where: str) -> None:
        """Give the adapters that are on a model these weights.

        Args:
            model: with adapters of the same rank on the same layers.
            where: what has these weights, for messages.

        Raises:
            BadInput: it has other adapters, or of another size.
        """
        own = {name: p for name, p in model.named_parameters() if ".lora_" in name}
        wrong = sorted(
            name
            for name in {**own, **self.weights}
            if name not in own
            or name not in self.weights
            or own[name].shape != self.weights[name].shape
        )
        if wrong:
            raise BadInput(
                f"{where}: they do not fit the model: {len(wrong)} weights are others, such as "
                f"{wrong[0]} (they have rank {self.rank} on {', '.join(self.targets)})"
            )
        with require("torch", "clip").no_grad():
            for name, parameter in own.items():
                parameter.copy_(self.weights[name])


def _settings(rank: int, alpha: float, targets: Sequence[str]) -> Any:
    return require("peft", "llava").LoraConfig(
        r=rank, lora_alpha=alpha, target_modules=list(targets), lora_dropout=0.0, bias="none"
    )


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

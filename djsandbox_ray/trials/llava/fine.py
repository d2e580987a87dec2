"""The second tower of patch info mining: a ConvNeXt, in the format of transformers or of open_clip.

The latter is what Mini-Gemini's weights come in: of that CLIP only the trunk of its tower is read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

from djsandbox_ray.errors import BadInput, require
from djsandbox_ray.trials.llava.base_folder import read_pixels
from djsandbox_ray.trials.llava.pixels import Pixels
from djsandbox_ray.trials.model_folders import first_line

torch = require("torch", "clip")
nn = require("torch.nn", "clip")

_OPEN_CLIP = "open_clip_config.json"


class Trunk(nn.Module):  # type: ignore[misc, name-defined]
    """The stem and the stages of a ConvNeXt of timm, as transformers has its own.

    Args:
        trunk: of an open_clip model's tower.
    """

    def __init__(self, trunk: Any) -> None:
        super().__init__()
        self.stem, self.stages = trunk.stem, trunk.stages
        self.config = SimpleNamespace(hidden_sizes=[one["num_chs"] for one in trunk.feature_info])
        for module in self.modules():
            if hasattr(module, "drop_prob"):
                module.drop_prob = 0.0

    def forward(self, pixels: Any, output_hidden_states: bool = True) -> Any:
        """Return what the stem and each stage give, as ``hidden_states``."""
        maps = [self.stem(pixels)]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return SimpleNamespace(hidden_states=tuple(maps))


class FineTower(nn.Module):  # type: ignore[misc, name-defined]
    """A second tower that sees more pixels, and gives maps of what it sees.

    It is read, and never trained: it stays in evaluation mode.

    Args:
        model: a ConvNeXt of transformers, or a :class:`Trunk`: gives maps as its hidden states.
        layers: which of them are read, brought to the finest one's size and put together.
        given: mean and standard deviation that pixels come normalised by.
        wanted: those that the model was trained on.
    """

    def __init__(
        self,
        model: Any,
        layers: Sequence[int],
        given: tuple[Sequence[float], Sequence[float]],
        wanted: tuple[Sequence[float], Sequence[float]],
    ) -> None:
        super().__init__()
        self.model, self.layers = model.requires_grad_(False), tuple(layers)
        values = torch.tensor([*given, *wanted], dtype=torch.float32)
        mean, std, new_mean, new_std = values.view(4, 1, 3, 1, 1)
        self.register_buffer("scale", std / new_std, persistent=False)
        self.register_buffer("shift", (mean - new_mean) / new_std, persistent=False)

    def train(self, mode: bool = True) -> Self:
        """Do nothing."""
        super().train(False)
        return self

    @property
    def channels(self) -> int:
        """Of the maps, all together."""
        sizes = [self.model.config.hidden_sizes[0], *self.model.config.hidden_sizes]
        return sum(sizes[layer] for layer in self.layers)

    def forward(self, pixels: Any) -> Any:
        """Return maps without gradients; shape (images, channels, rows, rows)."""
        with torch.no_grad():
            seen = (pixels * self.scale + self.shift).to(next(self.model.parameters()).dtype)
            every = self.model(seen, output_hidden_states=True).hidden_states
            maps = [every[layer] for layer in self.layers]
            finest = max(one.shape[-1] for one in maps)
            size = (finest, finest)
            return torch.cat(
                [
                    one
                    if one.shape[-1] == finest
                    else nn.functional.interpolate(
                        one, size=size, mode="bilinear", align_corners=False
                    )
                    for one in maps
                ],
                dim=1,
            )


def load_fine(folder: Path, layers: Sequence[int], pixels: Pixels) -> FineTower:
    """Load a second tower.

    Args:
        folder: with a ConvNeXt of transformers and its image processor, or an open_clip model.
        layers: which of its maps are read: 0 is that of the stem, 1 that of the first stage.
        pixels: how the pixels that it is given are normalised.

    Raises:
        BadInput: the folder has none.
    """
    try:
        model, wanted = _opened(folder) if (folder / _OPEN_CLIP).is_file() else _loaded(folder)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise BadInput(f"{folder}: no tower can be loaded from it: {first_line(error)}") from error
    states = len(model.config.hidden_sizes) + 1
    if wrong := [layer for layer in layers if not -states <= layer < states]:
        raise BadInput(f"{folder}: there is no layer {wrong[0]} (-{states} to {states - 1})")
    return FineTower(model.eval(), layers, (pixels.mean, pixels.std), wanted)


def fine_settings(folder: Path) -> Any:
    """Read what a second tower is, for :func:`empty_fine`."""
    if (folder / _OPEN_CLIP).is_file():
        return _open_clip_settings(folder)["model_cfg"]
    transformers = require("transformers", "llava")
    return transformers.AutoConfig.from_pretrained(folder, local_files_only=True)


def empty_fine(settings: Any, layers: Sequence[int]) -> FineTower:
    """Return a second tower without its weights: for counting, on the meta device.

    Args:
        settings: of :func:`fine_settings`, or a configuration of transformers.
        layers: which of its maps are read.
    """
    unit = ((0.0,) * 3, (1.0,) * 3)
    if isinstance(settings, dict):
        model = Trunk(require("open_clip", "clip").CLIP(**settings).visual.trunk)
    else:
        model = require("transformers", "llava").AutoModel.from_config(settings)
    return FineTower(model, layers, unit, unit)


def _loaded(folder: Path) -> tuple[Any, tuple[Sequence[float], Sequence[float]]]:
    """Return a model of transformers, and mean and standard deviation of what it was trained on."""
    transformers = require("transformers", "llava")
    model = transformers.AutoModel.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, dtype="auto"
    )
    if not hasattr(model.config, "hidden_sizes"):
        raise BadInput(f"{folder}: {model.config.model_type!r} gives no maps; a ConvNeXt does")
    own = read_pixels(folder)
    return model, (own.mean, own.std)


def _opened(folder: Path) -> tuple[Trunk, tuple[Sequence[float], Sequence[float]]]:
    """Return the trunk of an open_clip model, and what its pixels are normalised by."""
    seen = _open_clip_settings(folder).get("preprocess_cfg", {})
    open_clip = require("open_clip", "clip")
    model = open_clip.create_model(f"local-dir:{folder}", require_pretrained=True)
    trunk = getattr(model.visual, "trunk", None)
    if not (hasattr(trunk, "stem") and hasattr(trunk, "stages")):
        raise BadInput(f"{folder}: the tower of this CLIP gives no maps; a ConvNeXt does")
    usual = open_clip.constants
    mean = seen.get("mean", usual.OPENAI_DATASET_MEAN)
    return Trunk(trunk), (mean, seen.get("std", usual.OPENAI_DATASET_STD))


def _open_clip_settings(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / _OPEN_CLIP).read_text()))

"""What a distilled model is rewarded for: the extension point, and how well a CLIP likes frames.

A reward is a number per clip, with a gradient: it goes back through the frames and the decoder into
what is trained. Rewards are told apart by their content, as bases are: another model is another
training.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import model_validator

from djsandbox_ray.errors import BadInput, require
from djsandbox_ray.settings.code import with_code
from djsandbox_ray.settings.registry import Registry
from djsandbox_ray.settings.sections import Component
from djsandbox_ray.stats.operators import REFERENCE
from djsandbox_ray.storage.seals import Seal
from djsandbox_ray.trials.model_folders import first_line, folder_content, is_there, local_folder

_PROCESSOR = "preprocessor_config.json"
_OPENAI = {
    "image_mean": (0.48145466, 0.4578275, 0.40821073),
    "image_std": (0.26862954, 0.26130258, 0.27577711),
}
"""Of the pixels that CLIP was trained on, where a folder does not say it."""
_HELD = 2
"""Models that a process keeps: both rewards are often by one."""


class Reward(ABC):
    """How well clips fit their prompts.

    Args:
        config: its settings.
    """

    Config: ClassVar[type[Component]] = Component

    def __init__(self, config: Any) -> None:
        self.config = config

    def lost(self) -> list[str]:
        """Return what of its files is not there, a phrase each."""
        return []

    def identity(self) -> Any:
        """Return plain data that decides what it gives."""
        return self.config.model_dump(mode="json")

    def prepare(self, device: str) -> None:  # noqa: B027 - optional
        """Load what it needs; called once before training.

        Args:
            device: a torch device name.

        Raises:
            BadInput: that cannot be loaded.
        """

    @abstractmethod
    def __call__(self, frames: Any, prompts: Sequence[str]) -> Any:
        """Return the reward of every clip; gradients go back into the frames.

        Args:
            frames: some of each clip, float from 0 to 1, shape (n, frames, 3, height, width), RGB.
            prompts: n of them.

        Returns:
            float32, shape (n,).
        """


class ClipRewardConfig(Component):
    """Which CLIP: ``path``, or ``arch`` and ``weights``."""

    path: str | None = None
    """A folder or URL with a CLIP as Hugging Face has it; ``${scorer}`` is the run's own."""
    arch: str | None = None
    """An architecture of open_clip, such as ``ViT-H-14``, whose weights are in ``weights``."""
    weights: str | None = None
    """A file with its state, such as ``HPS_v2.1_compressed.pt``; on all nodes."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.path is None) == (self.arch is None and self.weights is None):
            raise ValueError("one of these is needed: path; arch and weights")
        if (self.arch is None) != (self.weights is None):
            raise ValueError("arch and weights go together")
        return self


class ClipReward(Reward):
    """The cosine of frames and prompt, the mean over the frames."""

    Config = ClipRewardConfig
    config: ClipRewardConfig

    def lost(self) -> list[str]:
        """Look for the folder or the file."""
        path, weights = self.config.path, self.config.weights
        if path is not None and path != REFERENCE and not is_there(path):
            return [f"path: there is no folder {path!r}"]
        if weights is not None and not Path(weights).is_file():
            return [f"weights: {weights!r} does not exist"]
        return []

    def identity(self) -> Any:
        """Return the contents of the files; the run's own scorer stands for itself."""
        config = self.config
        if config.path == REFERENCE:
            return {"type": config.type, "path": REFERENCE}
        if config.path is not None:
            return {"type": config.type, "path": folder_content(config.path)}
        return {"type": config.type, "arch": config.arch, "weights": _content(config.weights or "")}

    def prepare(self, device: str) -> None:
        """Load the CLIP, or take the one that this process has."""
        config = self.config
        if config.path == REFERENCE:
            raise BadInput(
                f"trials.model.objective.rewards: {REFERENCE} is known in the stages of an "
                "evolution; elsewhere the folder of a CLIP is needed"
            )
        self._clip = _clip(config.path, config.arch, config.weights, device)

    def __call__(self, frames: Any, prompts: Sequence[str]) -> Any:
        """See :meth:`Reward.__call__`."""
        return (self._seen(frames) * self._clip.texts(prompts)[:, None]).sum(dim=-1).mean(dim=1)

    def _seen(self, frames: Any) -> Any:
        """Return the unit features of frames, shape (n, frames, width)."""
        return self._clip.images(frames.flatten(0, 1)).unflatten(0, frames.shape[:2])


class VideoClipReward(ClipReward):
    """The cosine of a clip and its prompt: a clip is the mean of its frames' unit features."""

    def __call__(self, frames: Any, prompts: Sequence[str]) -> Any:
        """See :meth:`Reward.__call__`."""
        whole = _unit(self._seen(frames).mean(dim=1))
        return (whole * self._clip.texts(prompts)).sum(dim=-1)


REWARDS: Registry[Reward] = Registry(
    "reward",
    Reward,  # type: ignore[type-abstract]
    {
        "clip": "djsandbox_ray.trials.t2v.rewards:ClipReward",
        "video_clip": "djsandbox_ray.trials.t2v.rewards:VideoClipReward",
    },
)


def identity_of_reward(config: Component) -> Any:
    """Return plain data that decides what a reward gives: the code of a user's class, too."""
    kind = REWARDS.get(config.type)
    return with_code(kind(config).identity(), kind)


class _Clip(ABC):
    """A frozen CLIP that gradients pass through."""

    side: int
    """Pixels of a side of the pictures that it sees."""
    mean: Any
    std: Any
    """Of their colours, shape (3, 1, 1)."""

    def __init__(self) -> None:
        self._texts: dict[str, Any] = {}

    def images(self, pictures: Any) -> Any:
        """Return the unit features of the middle squares of pictures.

        Args:
            pictures: float from 0 to 1, shape (n, 3, height, width).
        """
        functional = require("torch.nn.functional", "clip")
        height, width = pictures.shape[-2:]
        scale = self.side / min(height, width)
        size = [max(self.side, round(one * scale)) for one in (height, width)]
        if [height, width] != size:
            pictures = functional.interpolate(pictures, size=size, mode="bicubic", antialias=True)
        top, left = ((one - self.side) // 2 for one in size)
        pictures = pictures[..., top : top + self.side, left : left + self.side]
        return _unit(self._image((pictures - self.mean) / self.std).float())

    def texts(self, texts: Sequence[str]) -> Any:
        """Return the unit features of texts; of each text they are computed once."""
        torch = require("torch", "clip")
        if new := [text for text in dict.fromkeys(texts) if text not in self._texts]:
            with torch.no_grad():
                self._texts |= zip(new, _unit(self._text(new).float()), strict=True)
        return torch.stack([self._texts[text] for text in texts])

    @abstractmethod
    def _image(self, pictures: Any) -> Any:
        """Return the features of pictures that are made ready."""

    @abstractmethod
    def _text(self, texts: Sequence[str]) -> Any:
        """Return the features of texts."""


class _HuggingFace(_Clip):
    """A folder as Hugging Face has it."""

    def __init__(self, folder: Path, shown: str, device: str) -> None:
        super().__init__()
        transformers, torch = require("transformers", "clip"), require("torch", "clip")
        try:
            model, told = transformers.CLIPModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, output_loading_info=True
            )
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(
                folder, local_files_only=True
            )
        except (OSError, ValueError, RuntimeError) as error:
            raise BadInput(f"{shown}: no CLIP that can be loaded: {first_line(error)}") from error
        if lacking := sorted(told["missing_keys"]):
            raise BadInput(f"{shown}: {len(lacking)} weights of a CLIP lack, such as {lacking[0]}")
        self._model = model.float().to(device).eval().requires_grad_(False)
        self.side = int(model.config.vision_config.image_size)
        self._most = int(model.config.text_config.max_position_embeddings)
        known = _processor(folder)
        self.mean, self.std = (
            torch.tensor(known[name], device=device).reshape(3, 1, 1) for name in _OPENAI
        )

    def _image(self, pictures: Any) -> Any:
        pooled = self._model.vision_model(pixel_values=pictures).pooler_output
        return self._model.visual_projection(pooled)

    def _text(self, texts: Sequence[str]) -> Any:
        tokens = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=self._most, return_tensors="pt"
        ).to(self._model.device)
        pooled = self._model.text_model(
            input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
        ).pooler_output
        return self._model.text_projection(pooled)


class _OpenClip(_Clip):
    """An architecture of open_clip with weights from a file."""

    def __init__(self, arch: str, weights: str, device: str) -> None:
        super().__init__()
        open_clip, torch = require("open_clip", "clip"), require("torch", "clip")
        try:
            model = open_clip.create_model(arch, pretrained=None)
            self._tokenizer = open_clip.get_tokenizer(arch)
        except (RuntimeError, OSError, ValueError) as error:
            raise BadInput(f"rewards: open_clip has no {arch!r}: {first_line(error)}") from error
        try:
            found = torch.load(weights, map_location="cpu", weights_only=True)
            model.load_state_dict(found.get("state_dict", found))
        except Exception as error:  # of a file that is none, torch may raise anything
            raise BadInput(f"{weights}: no weights of {arch}: {first_line(error)}") from error
        self._model = model.float().to(device).eval().requires_grad_(False)
        side = model.visual.image_size
        self.side = int(side[0] if isinstance(side, tuple) else side)
        self.mean, self.std = (
            torch.tensor(value, device=device).reshape(3, 1, 1) for value in _OPENAI.values()
        )
        self._device = device

    def _image(self, pictures: Any) -> Any:
        return self._model.encode_image(pictures)

    def _text(self, texts: Sequence[str]) -> Any:
        return self._model.encode_text(self._tokenizer(list(texts)).to(self._device))


@lru_cache(maxsize=_HELD)
def _clip(path: str | None, arch: str | None, weights: str | None, device: str) -> _Clip:
    """Return a CLIP that stays in this process.

    Raises:
        BadInput: it cannot be loaded.
    """
    if path is None:
        return _OpenClip(arch or "", weights or "", device)
    if not is_there(path):
        raise BadInput(f"rewards: there is no folder {path!r}")
    with local_folder(path) as folder:
        return _HuggingFace(folder, path, device)


def _processor(folder: Path) -> dict[str, Any]:
    """Return mean and deviation of the colours that a folder's CLIP wants.

    Raises:
        BadInput: the file that says it cannot be read.
    """
    file = folder / _PROCESSOR
    try:
        known = dict(json.loads(file.read_text())) if file.exists() else {}
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(f"{file} cannot be read: {first_line(error)}") from error
    return {name: known.get(name) or value for name, value in _OPENAI.items()}


def _unit(features: Any) -> Any:
    return require("torch.nn.functional", "clip").normalize(features, dim=-1)


def _content(path: str) -> Any:
    try:
        return Seal.of_file(Path(path), 1 << 62).plain
    except OSError as error:
        raise BadInput(f"rewards: {path!r} cannot be read: {error}") from error

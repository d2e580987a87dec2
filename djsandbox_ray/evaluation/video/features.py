"""Features of frames and of videos, by models in local folders as Hugging Face has them.

Pictures are made ready as VBench does it, not as the folders' own processors would: scores hang on
whether a picture is smoothed before it is made smaller. All is computed in single precision.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import BadInput, SandboxError, require
from djsandbox_ray.evaluation.video.video_files import Frames

Vectors = NDArray[np.float32]
"""(frames or videos, dimensions)."""

_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_OPENAI = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Mean and deviation of the pixels that the models were trained on; red, green, blue."""
_CHUNK = 1 << 20
_BATCH = 32
"""Frames that go through a model at once."""
_DINO_NUDGE = 0.1
"""Of patches, that DINO's own code adds before it stretches its map of positions."""


class DinoFrames:
    """Features of frames by a ViT that was trained as DINO: for ``subject_consistency``.

    Args:
        folder: of a ViT, such as ``facebook/dino-vitb16``.
        device: what torch calls it.

    Raises:
        BadInput: there is no such model.
    """

    def __init__(self, folder: str, device: str = "cpu") -> None:
        self._model = _loaded("ViTModel", "vit", folder, device, add_pooling_layer=False)
        self._side = int(self._model.config.image_size)
        self._model.embeddings.interpolate_pos_encoding = self._positions

    def __call__(self, frames: Frames) -> Vectors:
        """Return the features of the whole picture, whose shorter side is scaled to the model's.

        Args:
            frames: (frames, height, width, 3).
        """

        def features(pixels: Any) -> Any:
            pixels = _scaled(pixels, self._side, "bilinear")
            found = self._model(_normal(pixels, _IMAGENET), interpolate_pos_encoding=True)
            return found.last_hidden_state[:, 0]

        return _batched(frames, features, self._model.device)

    def _positions(self, embeddings: Any, height: int, width: int) -> Any:
        """Stretch the map of positions as DINO's code does, which transformers' differs from."""
        functional = require("torch.nn.functional", "clip")
        torch = require("torch", "clip")
        model = self._model.embeddings
        known = model.position_embeddings
        places = known.shape[1] - 1
        if embeddings.shape[1] - 1 == places and height == width:
            return known
        side = round(places**0.5)
        patches = [(size // model.patch_size + _DINO_NUDGE) / side for size in (height, width)]
        square = known[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        stretched = functional.interpolate(square, scale_factor=tuple(patches), mode="bicubic")
        return torch.cat([known[:, :1], stretched.flatten(2).transpose(1, 2)], dim=1)


class ClipFrames:
    """Features of frames and of texts by a CLIP.

    Args:
        folder: of a CLIP with its tokenizer, such as ``openai/clip-vit-base-patch32``.
        device: what torch calls it.

    Raises:
        BadInput: there is no such model.
    """

    def __init__(self, folder: str, device: str = "cpu") -> None:
        self._folder = folder
        self._model = _loaded("CLIPModel", "clip", folder, device)
        self._side = int(self._model.config.vision_config.image_size)
        self._tokenizer: Any = None

    @property
    def scale(self) -> float:
        """The factor of cosines: 100 in the models that were published."""
        return float(self._model.logit_scale.detach().exp())

    def __call__(self, frames: Frames) -> Vectors:
        """Return the features of the middle squares, scaled without smoothing.

        So does VBench for ``background_consistency`` and ``aesthetic_quality``.

        Args:
            frames: (frames, height, width, 3).
        """

        def features(pixels: Any) -> Any:
            pixels = _middle(_scaled(pixels, self._side, "bicubic"), self._side)
            return self._features(pixels)

        return _batched(frames, features, self._model.device)

    def smoothed(self, frames: Frames) -> Vectors:
        """Return the features of the middle squares, scaled by Pillow, which smooths.

        So does VBench for ``appearance_style``.

        Args:
            frames: (frames, height, width, 3).
        """
        return _batched(_by_pillow(frames, self._side), self._features, self._model.device)

    def text(self, text: str) -> Vectors:
        """Return the features of a text, (dimensions,).

        Raises:
            BadInput: it is longer than the model's context.
        """
        torch = require("torch", "clip")
        if self._tokenizer is None:
            transformers = require("transformers", "clip")
            self._tokenizer = transformers.AutoTokenizer.from_pretrained(
                self._folder, local_files_only=True
            )
        tokens = self._tokenizer([text], return_tensors="pt").to(self._model.device)
        most = int(self._model.config.text_config.max_position_embeddings)
        if (count := tokens["input_ids"].shape[1]) > most:
            raise BadInput(
                f"{text!r:.60} has {count} tokens; the CLIP in {self._folder} has {most}"
            )
        with torch.inference_mode():
            pooled = self._model.text_model(**tokens).pooler_output
            found: Vectors = self._model.text_projection(pooled)[0].float().cpu().numpy()
        return found

    def _features(self, pixels: Any) -> Any:
        vision = self._model.vision_model(pixel_values=_normal(pixels, _OPENAI))
        return self._model.visual_projection(vision.pooler_output)


class VideoMaeClips:
    """Features of whole videos by a VideoMAE, the mean over its tokens: for FVD.

    Args:
        folder: of a VideoMAE, such as ``MCG-NJU/videomae-base``.
        device: what torch calls it.

    Raises:
        BadInput: there is no such model.
    """

    def __init__(self, folder: str, device: str = "cpu") -> None:
        self._model = _loaded("VideoMAEModel", "videomae", folder, device)
        self._side = int(self._model.config.image_size)

    @property
    def frames(self) -> int:
        """How many frames of a video it looks at."""
        return int(self._model.config.num_frames)

    def __call__(self, frames: Frames) -> Vectors:
        """Return the features of the first frames of a video, (dimensions,).

        Args:
            frames: as many as the model looks at, or more; (frames, height, width, 3).

        Raises:
            SandboxError: there are fewer.
        """
        if len(frames) < self.frames:
            raise SandboxError(
                f"a video of {len(frames)} frames: the VideoMAE looks at {self.frames}"
            )

        def features(pixels: Any) -> Any:
            functional = require("torch.nn.functional", "clip")
            pixels = functional.interpolate(pixels, size=(self._side,) * 2, mode="bilinear")
            found = self._model(_normal(pixels, _IMAGENET)[None])
            return found.last_hidden_state.mean(dim=1)

        some = frames[: self.frames]
        found: Vectors = _batched(some, features, self._model.device, len(some))[0]
        return found


def aesthetic_head(path: str) -> tuple[NDArray[np.float32], float]:
    """Return weight and bias of LAION's linear aesthetic predictor.

    Args:
        path: of ``sa_0_4_vit_l_14_linear.pth``, or another state of a linear layer with one output.

    Raises:
        BadInput: it holds something else.
    """
    torch = require("torch", "clip")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        weight, bias = state["weight"].float().numpy(), state["bias"].float().numpy()
    except Exception as error:  # of a file that is none, torch may raise anything
        raise BadInput(f"{path}: no weight and bias of a linear layer: {error!r:.200}") from error
    if weight.ndim != 2 or weight.shape[0] != 1 or bias.shape != (1,):
        raise BadInput(f"{path}: a layer with one output is needed, not weights {weight.shape}")
    return weight[0], float(bias[0])


def weights_digest(path: str) -> str:
    """Hash the contents of a file, or of all files of a folder with their names."""
    digest, root = hashlib.blake2b(digest_size=16), Path(path)
    files = [root] if root.is_file() else sorted(one for one in root.rglob("*") if one.is_file())
    for file in files:
        name = file.relative_to(root).as_posix()
        digest.update(f"{name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as data:
            while chunk := data.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def _loaded(name: str, kind: str, folder: str, device: str, **settings: Any) -> Any:
    """Return a model of transformers; with random weights in it, scores would be random too."""
    transformers = require("transformers", "clip")
    if not Path(folder, "config.json").is_file():
        raise BadInput(f"{folder}: no folder of a model (it has no config.json)")
    try:
        found = transformers.AutoConfig.from_pretrained(folder, local_files_only=True).model_type
        if found != kind:
            raise BadInput(f"{folder}: the model is of the type {found!r}; {kind!r} is needed")
        model, info = getattr(transformers, name).from_pretrained(
            folder, local_files_only=True, output_loading_info=True, **settings
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise BadInput(f"{folder}: the model cannot be loaded: {error}") from error
    if lacking := sorted(info["missing_keys"]):
        raise BadInput(
            f"{folder}: {len(lacking)} weights of a {kind} are not there, the first is {lacking[0]}"
        )
    return model.float().to(device).eval()


def _batched(
    frames: Frames, features: Callable[[Any], Any], device: Any, batch: int = _BATCH
) -> Vectors:
    """Return what a model makes of frames, some at a time.

    Args:
        frames: (frames, height, width, 3).
        features: gets pixels from 0 to 255, (some, 3, height, width).
        device: of the model.
        batch: frames at a time.
    """
    torch = require("torch", "clip")
    found = []
    with torch.inference_mode():
        for some in _parts(frames, batch):
            pixels = torch.from_numpy(np.ascontiguousarray(some)).to(device)
            found.append(features(pixels.permute(0, 3, 1, 2).float()).float().cpu().numpy())
    return np.concatenate(found)


def _parts(frames: Frames, size: int) -> Iterator[Frames]:
    for start in range(0, len(frames), size):
        yield frames[start : start + size]


def _scaled(pixels: Any, side: int, mode: str) -> Any:
    """Return pictures whose shorter side has so many pixels, scaled without smoothing."""
    functional = require("torch.nn.functional", "clip")
    size = _size(pixels.shape[-2:], side)
    if tuple(pixels.shape[-2:]) == size:
        return pixels
    return functional.interpolate(pixels, size=size, mode=mode, align_corners=False)


def _size(size: Sequence[int], side: int) -> tuple[int, int]:
    """Return height and width with the shorter of them as it is wanted."""
    height, width = size
    if height <= width:
        return side, int(side * width / height)
    return int(side * height / width), side


def _middle(pixels: Any, side: int) -> Any:
    top, left = (round((size - side) / 2) for size in pixels.shape[-2:])
    return pixels[..., top : top + side, left : left + side]


def _by_pillow(frames: Frames, side: int) -> Frames:
    from PIL import Image

    height, width = _size(frames.shape[1:3], side)
    top, left = round((height - side) / 2), round((width - side) / 2)
    box = (left, top, left + side, top + side)
    found = []
    for frame in frames:
        image = Image.fromarray(frame)
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BICUBIC)
        found.append(np.asarray(image.crop(box)))
    return np.stack(found)


def _normal(pixels: Any, known: tuple[tuple[float, ...], tuple[float, ...]]) -> Any:
    """Return pixels as a model was trained on them.

    Args:
        pixels: from 0 to 255, (some, 3, height, width).
        known: mean and deviation of each colour, of 1.
    """
    torch = require("torch", "clip")
    mean, deviation = (torch.tensor(one, device=pixels.device)[:, None, None] for one in known)
    return (pixels / 255 - mean) / deviation

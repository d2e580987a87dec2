"""Codecs turn frames into latents, in which a denoiser works, and back: the extension point.

A codec is a folder with a ``config.json``, as diffusers has them. Latents are normalised here, each
model's own way: a denoiser gets numbers of about unit variance.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from djsandbox_ray.errors import BadInput, require
from djsandbox_ray.settings.registry import Registry
from djsandbox_ray.trials.model_folders import first_line

CONFIG = "config.json"
_WHITE = 127.5
"""Half of the range of a pixel: frames go from -1 to 1."""


@dataclass(frozen=True)
class Ratios:
    """How much smaller latents are than frames."""

    time: int
    """Frames per latent frame, but for the first, which is one of its own: 4 k + 1 frames become
    k + 1."""
    space: int
    """Pixels of a side per latent pixel."""
    channels: int
    """Numbers per latent pixel."""

    def shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Return the shape of the latents of a clip: channels, frames, height, width.

        Raises:
            BadInput: there are no latents of such a clip; says what is possible nearby.
        """
        if (frames - 1) % self.time:
            below = max(0, (frames - 1) // self.time) * self.time + 1
            raise BadInput(
                f"frames: {frames} is not a multiple of {self.time} and 1 more, as the codec needs "
                f"it; possible: {below}, {below + self.time}"
            )
        for side in (height, width):
            if side % self.space or not side:
                raise BadInput(
                    f"size: {side} pixels are no multiple of {self.space}, as the codec needs it"
                )
        return (
            self.channels,
            (frames - 1) // self.time + 1,
            height // self.space,
            width // self.space,
        )


class Codec(ABC):
    """Turns frames into latents and back. It is never trained."""

    ratios: Ratios

    @classmethod
    @abstractmethod
    def ratios_of(cls, settings: Mapping[str, Any]) -> Ratios:
        """Return the ratios of a codec by its ``config.json``, without loading it.

        Raises:
            BadInput: the settings say nothing of the kind.
        """

    @classmethod
    @abstractmethod
    def load(cls, folder: Path, device: str, half: bool) -> Self:
        """Load a codec.

        Args:
            folder: with its ``config.json``.
            device: a torch device name.
            half: whether its weights may stay in half precision, if they are saved so.

        Raises:
            BadInput: it cannot be loaded.
        """

    @abstractmethod
    def encode(self, frames: Any) -> Any:
        """Return normalised latents of clips; the same for the same clip, without a draw.

        Args:
            frames: uint8 tensor, shape (n, frames, height, width, 3), RGB.

        Returns:
            float32, shape (n, channels, frames', height', width').
        """

    @abstractmethod
    def decode(self, latents: Any) -> Any:
        """Return clips of normalised latents; gradients pass.

        Args:
            latents: shape (n, channels, frames', height', width').

        Returns:
            float, shape (n, frames, height, width, 3), from about -1 to 1.
        """


CODECS: Registry[Codec] = Registry(
    "codec",
    Codec,  # type: ignore[type-abstract]
    {
        "diffusers": "djsandbox_ray.trials.t2v.codec:DiffusersCodec",
        "patches": "djsandbox_ray.trials.t2v.patches:PatchCodec",
    },
)


def read_settings(folder: Path) -> dict[str, Any]:
    """Return the ``config.json`` of a folder of diffusers.

    Raises:
        BadInput: there is none that can be read.
    """
    file = folder / CONFIG
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise BadInput(f"{file} cannot be read: {first_line(error)}") from error
    if not isinstance(found, dict) or "_class_name" not in found:
        raise BadInput(f"{file} does not say a _class_name, as diffusers writes it")
    return found


def codec_class(settings: Mapping[str, Any]) -> type[Codec]:
    """Return the class of a codec by its ``config.json``.

    One of diffusers is known by the name of its class, any other by a name of :data:`CODECS`.
    """
    name = str(settings["_class_name"])
    return CODECS.get("diffusers" if name.startswith("Autoencoder") else name)


def load_codec(folder: Path, device: str, half: bool = False) -> Codec:
    """Load a codec of any class.

    Raises:
        BadInput: there is none, or it cannot be loaded.
    """
    return codec_class(read_settings(folder)).load(folder, device, half)


def scaled(frames: Any) -> Any:
    """Return frames as numbers from -1 to 1; uint8 (n, f, h, w, 3) to float32 (n, 3, f, h, w)."""
    return frames.permute(0, 4, 1, 2, 3).float() / _WHITE - 1


def as_pixels(video: Any) -> Any:
    """Return a decoded clip in uint8; values beyond the ends are cut."""
    return ((video.clamp(-1, 1) + 1) * _WHITE).round().to(require("torch", "clip").uint8)


class DiffusersCodec(Codec):
    """A video autoencoder of diffusers; of its distribution the mode is taken.

    Args:
        vae: the model, in evaluation mode and without gradients of its own.
    """

    def __init__(self, vae: Any) -> None:
        self.vae = vae
        self.ratios = self.ratios_of({**vae.config, "_class_name": type(vae).__name__})
        self._mean, self._scale = _normalisation(vae)

    @classmethod
    def ratios_of(cls, settings: Mapping[str, Any]) -> Ratios:
        """Read the ratios as the class of the autoencoder keeps them."""
        name = settings["_class_name"]
        if name not in _RATIOS:
            raise BadInput(f"the autoencoder {name} is not supported; {', '.join(_RATIOS)} are")
        return _RATIOS[name](settings)

    @classmethod
    def load(cls, folder: Path, device: str, half: bool) -> Self:
        """Load an autoencoder from safetensors."""
        diffusers, torch = require("diffusers", "t2v"), require("torch", "clip")
        settings = read_settings(folder)
        cls.ratios_of(settings)
        kind = getattr(diffusers, settings["_class_name"])
        try:
            vae = kind.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise BadInput(f"{folder}: {first_line(error)}") from error
        if not half:
            vae = vae.to(torch.float32)
        return cls(vae.to(device).eval().requires_grad_(False))

    def encode(self, frames: Any) -> Any:
        """Encode one clip after the other: causal autoencoders need much memory."""
        torch = require("torch", "clip")
        pixels = scaled(frames.to(self.vae.device)).to(self.vae.dtype)
        with torch.no_grad():
            parts = [self.vae.encode(one[None]).latent_dist.mode().float() for one in pixels]
        return (torch.cat(parts) - self._mean) * self._scale

    def decode(self, latents: Any) -> Any:
        """Decode all clips at once."""
        torch = require("torch", "clip")
        given = (latents / self._scale + self._mean).to(self.vae.dtype)
        more: tuple[Any, ...] = ()
        if self.vae.config.get("timestep_conditioning"):
            # As its own pipeline does by default: without noise, at the time 0.
            more = (torch.zeros(len(given), device=given.device, dtype=given.dtype),)
        return self.vae.decode(given, *more, return_dict=False)[0].permute(0, 2, 3, 4, 1)


def _normalisation(vae: Any) -> tuple[Any, Any]:
    """Return what is taken off latents and what they are then multiplied with.

    Autoencoders have a factor (``scaling_factor``), perhaps with a shift, or mean and standard
    deviation of every channel, or these and a factor; some as settings, LTX's as buffers.
    """
    torch = require("torch", "clip")

    def known(name: str) -> Any:
        value = vae.config.get(name)
        return getattr(vae, name, None) if value is None else value

    mean, std, factor = known("latents_mean"), known("latents_std"), known("scaling_factor")
    if mean is None:
        mean = known("shift_factor")
    if std is None and factor is None:
        raise BadInput(
            f"{type(vae).__name__}: it says neither scaling_factor nor latents_std: nobody knows "
            "how its latents are normalised"
        )

    def shaped(value: Any, missing: float) -> Any:
        given = torch.as_tensor(missing if value is None else value, dtype=torch.float32)
        return given.to(vae.device).reshape(1, -1, 1, 1, 1)

    return shaped(mean, 0.0), shaped(factor, 1.0) / shaped(std, 1.0)


def _magvit(settings: Mapping[str, Any]) -> Ratios:
    levels = len(settings["block_out_channels"])
    return Ratios(2 ** (levels - 2), 2 ** (levels - 1), settings["latent_channels"])


def _cogvideox(settings: Mapping[str, Any]) -> Ratios:
    space = 2 ** (len(settings["block_out_channels"]) - 1)
    return Ratios(int(settings["temporal_compression_ratio"]), space, settings["latent_channels"])


def _wan(settings: Mapping[str, Any]) -> Ratios:
    # Folders of early versions do not say them.
    time, space = settings.get("scale_factor_temporal", 4), settings.get("scale_factor_spatial", 8)
    return Ratios(int(time), int(space), settings["z_dim"])


def _ltx(settings: Mapping[str, Any]) -> Ratios:
    halved = 2 ** sum(settings["spatio_temporal_scaling"])
    space, time = (
        settings.get("spatial_compression_ratio"),
        settings.get("temporal_compression_ratio"),
    )
    return Ratios(
        time or settings.get("patch_size_t", 1) * halved,
        space or settings["patch_size"] * halved,
        settings["latent_channels"],
    )


def _hunyuan(settings: Mapping[str, Any]) -> Ratios:
    return Ratios(
        settings["temporal_compression_ratio"],
        settings["spatial_compression_ratio"],
        settings["latent_channels"],
    )


_RATIOS: dict[str, Callable[[Mapping[str, Any]], Ratios]] = {
    "AutoencoderKLCogVideoX": _cogvideox,
    "AutoencoderKLHunyuanVideo": _hunyuan,
    "AutoencoderKLLTXVideo": _ltx,
    "AutoencoderKLMagvit": _magvit,
    "AutoencoderKLWan": _wan,
}

"""A codec without training: principal components of patches in space and time.

An autoencoder of a few thousand weights, trained from scratch, loses the very attributes that small
worlds are about. The principal components of patches keep them, and are had in seconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.errors import BadInput, require
from djsandbox_ray.trials.model_folders import first_line
from djsandbox_ray.trials.t2v.codec import CONFIG, Codec, Ratios, read_settings, scaled

_FILE = "patches.safetensors"
_LEAST_STD = 1e-6
"""Of a component, in units of pixels from -1 to 1: clips of one colour have none."""


class PatchCodec(Codec):
    """Patches in space and time, of one side, as a few components of unit variance.

    The first frame stands as often as a patch is long: 4 k + 1 frames become k + 1, as with the
    causal autoencoders of large models.

    Args:
        side: of a patch, in pixels and in frames.
        mean: of all patches, shape (3 side^3,).
        components: orthonormal, shape (channels, 3 side^3).
        std: of every component, shape (channels,).
        device: a torch device name.
    """

    def __init__(
        self,
        side: int,
        mean: NDArray[np.float32],
        components: NDArray[np.float32],
        std: NDArray[np.float32],
        device: str = "cpu",
    ) -> None:
        torch = require("torch", "clip")
        self.ratios = Ratios(side, side, len(components))
        self._kept = {"mean": mean, "components": components, "std": std}
        self._mean, self._components, self._std = (
            torch.from_numpy(array).to(device) for array in (mean, components, std)
        )

    @classmethod
    def fitted(
        cls, clips: Iterable[NDArray[np.uint8]], channels: int = 12, side: int = 4
    ) -> tuple[Self, float]:
        """Fit a codec; the same clips give the same one.

        Args:
            clips: each of shape (frames, height, width, 3).
            channels: components that are kept.
            side: of a patch.

        Returns:
            The codec, and the share of the variance that it keeps.

        Raises:
            BadInput: there are no clips, or too many components are asked for.
        """
        torch = require("torch", "clip")
        width = 3 * side**3
        if not 0 < channels <= width:
            raise BadInput(f"patches: {channels} components of {width} numbers")
        count, total = 0, np.zeros(width)
        squares = np.zeros((width, width))
        for clip in clips:
            found = _patches(scaled(torch.from_numpy(clip[None])), side)
            rows = found.reshape(-1, width).double().numpy()
            count, total = count + len(rows), total + rows.sum(axis=0)
            squares += rows.T @ rows
        if not count:
            raise BadInput("patches: there are no clips to fit them on")
        mean = total / count
        values, vectors = np.linalg.eigh(squares / count - np.outer(mean, mean))
        values, vectors = values[::-1].clip(min=0), vectors.T[::-1]
        components = vectors[:channels]
        # A component may point either way: its greatest number is positive.
        greatest = np.abs(components).argmax(axis=1)
        components = components * np.sign(components[np.arange(channels), greatest])[:, None]
        std = np.sqrt(values[:channels]).clip(min=_LEAST_STD)
        # safetensors writes the bytes of an array as they lie.
        first, second, third = (
            np.ascontiguousarray(one, np.float32) for one in (mean, components, std)
        )
        kept = float(values[:channels].sum() / values.sum()) if values.sum() else 1.0
        return cls(side, first, second, third), kept

    @classmethod
    def ratios_of(cls, settings: Mapping[str, Any]) -> Ratios:
        """Read the side of a patch and the number of components."""
        return Ratios(settings["side"], settings["side"], settings["channels"])

    @classmethod
    def load(cls, folder: Path, device: str, half: bool) -> Self:
        """Load what :meth:`save` has written; always in float32."""
        safetensors = require("safetensors.numpy", "t2v")
        side = cls.ratios_of(read_settings(folder)).time
        try:
            found = safetensors.load_file(folder / _FILE)
            mean, components, std = (found[name] for name in ("mean", "components", "std"))
        except (OSError, ValueError, KeyError) as error:
            raise BadInput(f"{folder / _FILE} cannot be read: {first_line(error)}") from error
        return cls(side, mean, components, std, device)

    def save(self, folder: Path) -> None:
        """Write it into an existing folder."""
        settings = {
            "_class_name": "patches",
            "side": self.ratios.time,
            "channels": self.ratios.channels,
        }
        (folder / CONFIG).write_text(json.dumps(settings, indent=2))
        require("safetensors.numpy", "t2v").save_file(self._kept, folder / _FILE)

    def encode(self, frames: Any) -> Any:
        """Return the components of every patch."""
        patches = _patches(scaled(frames.to(self._mean.device)), self.ratios.time)
        found = (patches - self._mean) @ self._components.T / self._std
        return found.permute(0, 4, 1, 2, 3).contiguous()

    def decode(self, latents: Any) -> Any:
        """Return the patches of components; of the first frame, the last one that stands for it."""
        side = self.ratios.time
        patches = (latents.permute(0, 2, 3, 4, 1) * self._std) @ self._components + self._mean
        # (n, f', h', w', side, side, side, 3) to (n, frames, height, width, 3).
        apart = patches.unflatten(-1, (side, side, side, 3)).permute(0, 1, 4, 2, 5, 3, 6, 7)
        return apart.flatten(5, 6).flatten(3, 4).flatten(1, 2)[:, side - 1 :]


def _patches(pixels: Any, side: int) -> Any:
    """Cut clips into patches; (n, 3, f, h, w) to (n, f', h', w', 3 side^3)."""
    torch = require("torch", "clip")
    video = torch.cat([pixels[:, :, :1]] * (side - 1) + [pixels], dim=2)
    for axis in (2, 4, 6):
        video = video.unflatten(axis, (-1, side))
    # (n, 3, f', side, h', side, w', side) to (n, f', h', w', side, side, side, 3).
    return video.permute(0, 2, 4, 6, 3, 5, 7, 1).flatten(4)

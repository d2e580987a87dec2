"""Images as the vision tower reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from djsandbox_ray.dataset.images import decode, shortened
from djsandbox_ray.errors import BadInput, require
from djsandbox_ray.trials.clip.samples import preprocess

Aspect = Literal["pad", "crop"]
"""How an image becomes a square: edges in the mean colour are added, or its middle is taken."""
_SIDES = {"height", "width", "shortest_edge"}


@dataclass(frozen=True)
class Pixels:
    """The square that a vision tower reads.

    Args:
        side: pixels of a side.
        mean: of each channel over the images that the tower was trained on, in 0..1.
        std: likewise, the standard deviation.
    """

    side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @classmethod
    def read(cls, settings: Mapping[str, Any], where: str) -> Pixels:
        """Read what an image processor of Hugging Face has in its JSON.

        Args:
            settings: its content.
            where: the file, for messages.

        Raises:
            BadInput: it makes no square of an image, or does something else to it.
        """
        size = settings.get("crop_size") or settings.get("size") or {}
        given = {"shortest_edge": size} if isinstance(size, int) else size
        sides = {value for key, value in given.items() if key in _SIDES and value is not None}
        if len(sides) != 1:
            raise BadInput(f"{where}: square images are needed, but the size is {size!r}")
        (side,) = sides
        for name in ("do_resize", "do_rescale", "do_normalize"):
            if settings.get(name) is False:
                raise BadInput(f"{where}: {name} is false, which this family cannot do")
        if abs(settings.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-9:
            raise BadInput(f"{where}: rescale_factor must be 1/255")
        mean, std = settings.get("image_mean"), settings.get("image_std")
        if not all(isinstance(value, list) and len(value) == 3 for value in (mean, std)):
            raise BadInput(f"{where}: image_mean and image_std have three numbers each")
        return cls(int(side), tuple(mean), tuple(std))  # type: ignore[arg-type]

    def square(self, data: bytes, aspect: Aspect) -> NDArray[np.uint8]:
        """Decode an image; shape (side, side, 3)."""
        if aspect == "crop":
            return preprocess(data, self.side)
        image = shortened(decode(data), self.side)
        longest = max(image.size)
        grey = tuple(int(255 * value) for value in self.mean)
        padded = Image.new("RGB", (longest, longest), grey)
        padded.paste(image, ((longest - image.width) // 2, (longest - image.height) // 2))
        if longest != self.side:
            padded = padded.resize((self.side, self.side), Image.Resampling.BICUBIC)
        return np.asarray(padded, dtype=np.uint8)

    def normalised(self, squares: Any) -> Any:
        """Turn a tensor of squares, shape (images, side, side, 3), into what the tower reads.

        Returns:
            float32, shape (images, 3, side, side), on the same device.
        """
        torch = require("torch", "clip")
        mean, std = (
            torch.tensor(value, device=squares.device).view(3, 1, 1) * 255
            for value in (self.mean, self.std)
        )
        return squares.permute(0, 3, 1, 2).float().sub_(mean).div_(std)


class Looks(Protocol):
    """Makes of images what a model is given."""

    def of(self, rows: Sequence[int], files: Sequence[Sequence[bytes]]) -> list[list[NDArray[Any]]]:
        """Return what stands for each image, all of one shape and type.

        Args:
            rows: of a table, whose images they are.
            files: of each row the images that are looked at, from the first on.
        """

    def blank(self) -> NDArray[Any]:
        """Return what stands for an image without anything in it."""

    def given(self, images: Any) -> Any:
        """Turn what stands for images, a tensor of shape (images, ...), into the model's input."""


@dataclass(frozen=True)
class Squares:
    """Has the model look at squares of pixels."""

    pixels: Pixels
    aspect: Aspect

    def of(
        self, rows: Sequence[int], files: Sequence[Sequence[bytes]]
    ) -> list[list[NDArray[np.uint8]]]:
        """Decode images; each uint8 of shape (side, side, 3)."""
        return [[self.pixels.square(data, self.aspect) for data in some] for some in files]

    def blank(self) -> NDArray[np.uint8]:
        """Return a black square."""
        return np.zeros((self.pixels.side, self.pixels.side, 3), np.uint8)

    def given(self, images: Any) -> Any:
        """Return normalised pixels."""
        return self.pixels.normalised(images)

"""Embeddings of images by a CLIP in a Hugging Face folder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.dataset.images import decode
from djsandbox_ray.errors import SandboxError, require

_BATCH = 32
"""Images that are decoded and sent through the model at once."""


class ImageEmbedder:
    """The image half of a CLIP, loaded once.

    Args:
        folder: a local Hugging Face folder with the model and its image processor.
        device: what torch calls it.
    """

    def __init__(self, folder: str, device: str = "cpu") -> None:
        transformers = require("transformers", "clip")
        model = transformers.CLIPModel.from_pretrained(folder, local_files_only=True)
        self._model = model.to(device).eval()
        self._processor = transformers.CLIPImageProcessor.from_pretrained(
            folder, local_files_only=True
        )

    def __call__(self, images: Sequence[bytes], row_ids: Sequence[int]) -> NDArray[np.float32]:
        """Return the embeddings of images, scaled to length 1, shape (images, dimensions).

        Args:
            images: image files as they are stored.
            row_ids: of these, for messages.

        Raises:
            SandboxError: an image cannot be decoded; says which.
        """
        torch = require("torch", "clip")
        found = [np.empty((0, self._model.config.projection_dim), dtype=np.float32)]
        for start in range(0, len(images), _BATCH):
            part = slice(start, start + _BATCH)
            batch = [_decoded(*item) for item in zip(images[part], row_ids[part], strict=True)]
            inputs = self._processor(images=batch, return_tensors="pt").to(self._model.device)
            with torch.inference_mode():
                pooled = self._model.vision_model(**inputs).pooler_output
                vectors = self._model.visual_projection(pooled).float()
            found.append(torch.nn.functional.normalize(vectors, dim=1).cpu().numpy())
        return np.concatenate(found)


def _decoded(data: bytes, row_id: int) -> object:
    try:
        return decode(data)
    except ValueError as error:
        raise SandboxError(f"the image of row {row_id} of the sample table: {error}") from error

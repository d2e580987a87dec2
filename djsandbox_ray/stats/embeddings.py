"""Many samples through a CLIP at once: embeddings of images, and the similarity of pairs.

Data-Juicer's ``image_text_similarity_filter`` sends one pair at a time. The score of a pair (cosine
of the embeddings x logit scale / 100) does not depend on the others in a batch: texts are padded
behind a causal mask, so a batch gives the same values in less time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.dataset.images import decode, shortened
from djsandbox_ray.errors import SandboxError, require
from djsandbox_ray.stats.datajuicer import load

MODEL_SIDE = 224
"""What image processors scale the shorter side to, in pixels, or about so much."""
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
        return shortened(decode(data), MODEL_SIDE)
    except ValueError as error:
        raise SandboxError(f"the image of row {row_id} of the sample table: {error}") from error


IMAGE_NAME = "image"
"""Name of the one image of a row, under which its decoded form is shared."""
MICRO_BATCH = 16
"""Pairs per forward pass; more was no faster on a CPU."""


class BatchedSimilarity:
    """Computes what an ``image_text_similarity_filter`` computes for rows of one image each.

    Args:
        operator: the Data-Juicer operator, whose model and settings are used.
        key: the statistic that it writes.
    """

    def __init__(self, operator: Any, key: str) -> None:
        self._operator = operator
        self._key = key

    def __call__(self, batch: dict[str, list[Any]]) -> None:
        """Write the statistic of every row into the batch; same contract as Data-Juicer's own.

        Raises:
            Exception: whatever a broken image or the model raises, for the whole batch.
        """
        dj, operator = load(), self._operator
        texts = [dj.plain_text(text) for text in batch[operator.text_key]]
        images = [
            self._image(row, context)
            for row, context in zip(
                batch[operator.image_bytes_key], batch[dj.context_field], strict=True
            )
        ]
        for start in range(0, len(texts), MICRO_BATCH):
            part = slice(start, start + MICRO_BATCH)
            scores = self._scores(texts[part], images[part])
            for stats, score in zip(batch[dj.stats_field][part], scores, strict=True):
                stats[self._key] = [score]

    def _image(self, contents: list[bytes], context: dict[str, Any]) -> Any:
        from data_juicer.utils.mm_utils import load_image
        from PIL import ImageOps

        if IMAGE_NAME not in context:  # shared with the other operators of the pass
            context[IMAGE_NAME] = load_image(contents[0])
        image = context[IMAGE_NAME]
        image = ImageOps.mirror(image) if self._operator.horizontal_flip else image
        return ImageOps.flip(image) if self._operator.vertical_flip else image

    def _scores(self, texts: list[str], images: list[Any]) -> list[float]:
        operator = self._operator
        model, processor = load().get_model(operator.model_key, None, operator.use_cuda())
        inputs = processor(
            text=texts,
            images=images,
            return_tensors="pt",
            truncation=True,
            max_length=model.config.text_config.max_position_embeddings,
            padding=True,
        ).to(model.device)
        logits = model(**inputs).logits_per_text.diagonal() / 100.0
        return [float(score) for score in logits]

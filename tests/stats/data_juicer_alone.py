"""Statistics of operators by Data-Juicer's own ``run``, in a process without this project's code.

``python data_juicer_alone.py REQUEST ANSWER``; both JSON. What keeps Data-Juicer 1.6.1 from running
at all beside today's packages is mended here by other means than the project's.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np


def prepare(nltk_data: str | None) -> None:
    """Mend what has to be before any operator is built."""
    from data_juicer.utils.lazy_loader import LazyLoader

    LazyLoader.check_packages = classmethod(lambda *_arguments, **_options: None)
    if nltk_data and Path(nltk_data).exists():
        import nltk

        nltk.data.path = [nltk_data]
        nltk.download = lambda *_arguments, **_options: True
    from transformers import OwlViTImageProcessor, OwlViTProcessor

    def boxes(self: Any, *arguments: Any, **options: Any) -> Any:
        found = OwlViTImageProcessor.post_process_object_detection
        return found(self.image_processor, *arguments, **options)

    OwlViTProcessor.post_process_object_detection = boxes


def build(name: str, params: dict[str, Any]) -> Any:
    from data_juicer.ops import OPERATORS

    if name == "text_pair_similarity_filter":
        from transformers import CLIPModel

        # It takes what transformers before 5 gave. The forward pass wants what it gives today:
        # operators that call it are for another process.
        CLIPModel.get_text_features = lambda self, **inputs: self.text_projection(
            self.text_model(**inputs).pooler_output
        )
    if name == "image_pair_similarity_filter":
        from transformers import CLIPModel

        CLIPModel.get_image_features = lambda self, pixels: self.visual_projection(
            self.vision_model(pixels).pooler_output
        )
    return OPERATORS.modules[name](auto_op_parallelism=False, **params)


def run(operator: Any, rows: list[dict[str, Any]]) -> Any:
    from data_juicer.core.data import NestedDataset

    return operator.run(NestedDataset.from_list(rows), reduce=False)


def statistics(found: Any) -> list[dict[str, Any]]:
    return [row["__dj__stats__"] for row in found]


def main(request: str, answer: str) -> None:
    wanted = json.loads(Path(request).read_text())
    prepare(wanted["nltk_data"])
    done: dict[int, Any] = {}
    for index, (name, params, tagged) in enumerate(wanted["operators"]):
        rows = [
            {"text": row["tagged" if tagged else "text"], **row["media"]}
            for row in wanted["videos" if name.startswith("video") else "rows"]
        ]
        try:
            done[index] = statistics(run(build(name, params), rows))
        except Exception as error:  # the others are compared
            done[index] = f"{type(error).__name__}: {error}"
    Path(answer).write_text(json.dumps(done, default=lambda value: np.asarray(value).tolist()))


if __name__ == "__main__":
    main(*sys.argv[1:])

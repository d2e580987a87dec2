"""Small sample tables, and statistics of them, for the tests of acceptance and materialisation."""

from __future__ import annotations

import io
import json
import pickle
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import av
import lance
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from djsandbox_ray.dataset.fragments import (
    Manifest,
    add_row_ids,
    commit,
    commit_row_ids,
    write_shard,
)
from djsandbox_ray.dataset.source import Sample, Shard
from djsandbox_ray.identity import content_id
from djsandbox_ray.records import Dataset
from djsandbox_ray.stats.fused import Fields, FusedOperators, Images, Videos
from djsandbox_ray.stats.operators import OperatorSpec, statistic_names
from djsandbox_ray.storage.store import Storage


def picture(width: int, height: int, seed: int, kind: str = "JPEG") -> bytes:
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def write_table(
    storage: Storage,
    texts: Sequence[str],
    images: Sequence[bytes],
    metas: Sequence[dict[str, Any]] | None = None,
) -> Dataset:
    """Write a sample table as ingest does, without a cluster."""
    table = pa.table(
        {
            "row_id": np.arange(len(texts)),
            "image": pa.array(images, pa.large_binary()),
            "text": list(texts),
            "meta": [json.dumps(meta) for meta in metas or [{}] * len(texts)],
        }
    )
    dataset = Dataset("dataset-test", "datasets/dataset-test/samples.lance", len(texts), 0)
    lance.write_dataset(table, storage.uri(dataset.table), max_rows_per_file=333)
    return dataset


def write_documents(storage: Storage, samples: Sequence[Sample]) -> Dataset:
    """Write samples of any content as ingest does, without a cluster."""
    listed = Shard("s", None, partial(iter, list(samples)))
    row = {"index": 0, "name": "s", "shard": pickle.dumps(listed), "wide": True}
    id = content_id("dataset", *(repr(sample) for sample in samples))
    folder = f"datasets/{id}"
    place: dict[str, Any] = {"storage": storage, "folder": f"{folder}/staging"}
    table = f"{folder}/samples.lance"
    manifest = Manifest(**json.loads(write_shard(row, table=table, **place)["manifest"]))
    uri = storage.uri(table)
    places = commit(uri, [manifest], True)
    commit_row_ids(uri, [add_row_ids(one, uri=uri) for one in places])
    modalities = ("text", *manifest.modalities)
    return Dataset(id, table, len(samples), 0, modalities=modalities, pairs=manifest.pairs)


@cache
def clip(seed: int, form: str = "mp4", frames: int = 8, width: int = 48) -> bytes:
    """Return a small video of noise."""
    rng = np.random.default_rng(seed)
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        codec = {"webm": "libvpx", "matroska": "libx264", "avi": "mpeg4"}.get(form, "libx264")
        stream = container.add_stream(codec, rate=12)
        stream.width, stream.height, stream.pix_fmt = width, 32, "yuv420p"
        for _ in range(frames):
            pixels = rng.integers(0, 256, (32, width, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def shapes(samples: int, **options: Any) -> tuple[list[str], list[bytes], list[dict[str, Any]]]:
    """Return texts, images and meta data of the generated world."""
    from djsandbox_ray.dataset.source import SOURCES, Sample

    kind = SOURCES.get("shapes")
    config = kind.Config.model_validate({"type": "shapes", "samples": samples, **options})
    found = [item for shard in kind(config).shards() for item in shard.read()]
    made = [item for item in found if isinstance(item, Sample)]
    return [s.text for s in made], [s.image for s in made], [s.meta for s in made]


def tiny_classifier(folder: Path, labels: Sequence[str]) -> Path:
    """Save an untrained ViT, small enough for a test, as a Hugging Face folder."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        initializer_range=0.5,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
    )
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def compute(
    specs: Sequence[OperatorSpec],
    texts: Sequence[str],
    images: Images | None,
    videos: Videos | None = None,
    fields: Fields | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Compute statistics as a worker does, in this process, in batches of 32 rows."""
    fused, indices = FusedOperators(specs), range(len(specs))
    parts = [
        fused(
            texts[i : i + 32],
            images and images[i : i + 32],
            indices,
            videos and videos[i : i + 32],
            {name: further[i : i + 32] for name, further in (fields or {}).items()},
        )
        for i in range(0, len(texts), 32)
    ]
    return {
        name: np.concatenate([part[index].columns[key] for part in parts])
        for index, (spec, names) in enumerate(zip(specs, statistic_names(specs), strict=True))
        for key, name in zip(spec.keys, names, strict=True)
    }

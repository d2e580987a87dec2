"""The scorer must tell matched from mismatched pairs: that is all it is for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import ray
import torch
from transformers import CLIPModel, CLIPProcessor
from trial_world import World

from djsandbox_ray.dataset.images import decode
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.trials.clip.arch import load_arch
from djsandbox_ray.trials.clip.family import ClipConfig
from djsandbox_ray.trials.clip.scorer import ScorerConfig, train_scorer


def test_scorer_prefers_the_true_caption(world: World, tmp_path: Path) -> None:
    config = ScorerConfig(
        dataset={"type": "shapes", "samples": 1},
        model=ClipConfig(type="clip", learning_rate=1e-3),
        budget=12000,
    )
    train = ray.remote(num_cpus=1)(train_scorer)
    table, arch = world.uri(world.train), load_arch("tiny")
    loss = ray.get(train.remote(table, world.train.rows, config, arch, tmp_path))
    assert loss < 3

    table = SampleTable(world.uri(world.evaluation)).scan(0, 100, ["image", "text"])
    images = [decode(data) for data in table["image"].to_pylist()]
    texts = table["text"].to_pylist()
    model = CLIPModel.from_pretrained(tmp_path, local_files_only=True).eval()
    processor = CLIPProcessor.from_pretrained(tmp_path, local_files_only=True)
    inputs = processor(
        text=texts, images=images, padding=True, truncation=True, return_tensors="pt"
    )
    with torch.no_grad():
        scores = (model(**inputs).logits_per_image / 100).numpy()
    true, others = np.diag(scores), scores[~np.eye(len(texts), dtype=bool)]
    assert true.mean() > others.mean() + 2 * others.std() / 2
    assert np.mean(true[:, None] > scores) > 0.8

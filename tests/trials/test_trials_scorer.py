"""The scorer must tell matched from mismatched pairs: that is all it is for.

The exported folder must be the same model: same tokens, pixels and embeddings.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
import ray
import torch
from PIL import Image
from transformers import CLIPModel, CLIPProcessor
from trial_world import World

from djsandbox_ray.dataset.images import decode
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.errors import BadInput
from djsandbox_ray.identity import sample_digest
from djsandbox_ray.records import RungReport
from djsandbox_ray.trials.checkpoint import Checkpoint
from djsandbox_ray.trials.clip.arch import Tokenizer, build_model, load_arch
from djsandbox_ray.trials.clip.export import export_hugging_face
from djsandbox_ray.trials.clip.family import ClipConfig
from djsandbox_ray.trials.clip.samples import preprocess
from djsandbox_ray.trials.clip.scorer import ScorerConfig, train_scorer
from djsandbox_ray.trials.clip.training import normalise


def _config(budget: int) -> ScorerConfig:
    return ScorerConfig(
        dataset={"type": "shapes", "samples": 1},
        model=ClipConfig(type="clip", learning_rate=1e-3, batch_size=64),
        budget=budget,
    )


class Cut(Checkpoint):
    """The checkpoint of a scorer whose process is killed at its third one."""

    def save(self, report: RungReport, write: Callable[[Path], None]) -> None:
        if len(self.reports()) == 2:
            raise KeyboardInterrupt
        super().save(report, write)


def test_a_scorer_that_was_cut_off_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    rng, rows, uri = np.random.default_rng(0), 96, str(tmp_path / "samples.lance")
    images = []
    for pixels in rng.integers(0, 256, (rows, 32, 32, 3), dtype=np.uint8):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        images.append(file.getvalue())
    texts = [f"number {row}" for row in range(rows)]
    digests = [sample_digest(*pair) for pair in zip(images, texts, strict=True)]
    lance.write_dataset(pa.table({"image": images, "text": texts, "digest": digests}), uri)
    arch, config = load_arch("tiny"), _config(640)

    def train(name: str, checkpoint: Checkpoint) -> float:
        (tmp_path / name).mkdir()
        return train_scorer(uri, rows, config, arch, tmp_path / name, checkpoint)

    whole = train("whole", Checkpoint(str(tmp_path), "whole"))
    with pytest.raises(KeyboardInterrupt):
        train("cut", Cut(str(tmp_path), "cut"))
    left = Checkpoint(str(tmp_path), "cut")
    assert len(left.reports()) == 2
    assert train("resumed", left) == whole
    assert left.reports()[-1].samples == 640
    weights = [
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "resumed")
    ]
    assert weights[0] == weights[1]


def test_scorer_prefers_the_true_caption(world: World, tmp_path: Path) -> None:
    config = ScorerConfig(
        dataset={"type": "shapes", "samples": 1},
        model=ClipConfig(type="clip", learning_rate=1e-3),
        budget=12000,
    )
    checkpoint = Checkpoint(str(tmp_path / "storage"), "scorer")
    train = ray.remote(num_cpus=1)(train_scorer)
    table, arch = world.uri(world.train), load_arch("tiny")
    loss = ray.get(train.remote(table, world.train.rows, config, arch, tmp_path, checkpoint))
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


TEXTS = ["a photo of a red circle", "Don't panic!! 42 éè", "hello world " * 20]


def _image(kind: str) -> Image.Image:
    if kind == "of the right size":
        pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    else:  # smooth: the two libraries do not round alike when they scale noise
        rows, columns = np.mgrid[0:40, 0:56]
        pixels = np.stack([rows * 6, columns * 4, rows + columns], axis=2).astype(np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("name", ["tiny", "small"])
@pytest.mark.parametrize(
    ("kind", "tolerance"), [("of the right size", 1e-5), ("to be scaled", 0.02)]
)
def test_embeddings_survive(name: str, kind: str, tolerance: float, tmp_path: Path) -> None:
    arch = load_arch(name)
    model = build_model(arch, 3).eval()
    export_hugging_face(model, arch, tmp_path)
    other = CLIPModel.from_pretrained(tmp_path, local_files_only=True).eval()
    processor = CLIPProcessor.from_pretrained(tmp_path, local_files_only=True)

    file = tmp_path / "image.png"
    _image(kind).save(file)
    ours = torch.tensor(preprocess(file.read_bytes(), 32)[None]).permute(0, 3, 1, 2)
    tokens = torch.from_numpy(Tokenizer(arch)(TEXTS)).long()
    inputs = processor(
        text=TEXTS,
        images=_image(kind),
        padding="max_length",
        truncation=True,
        max_length=arch["text_cfg"]["context_length"],
        return_tensors="pt",
    )
    with torch.no_grad():
        images = model.encode_image(normalise(ours), normalize=True)
        texts = model.encode_text(tokens, normalize=True)
        result = other(**inputs)
    torch.testing.assert_close(result.text_embeds, texts, atol=1e-5, rtol=0)
    torch.testing.assert_close(result.image_embeds, images, atol=tolerance, rtol=0)
    cosines = result.logits_per_image / 100
    torch.testing.assert_close(cosines, result.image_embeds @ result.text_embeds.T)


def test_what_hugging_face_cannot_hold_is_refused(tmp_path: Path) -> None:
    arch = load_arch("tiny")
    arch["vision_cfg"]["ls_init_value"] = 0.1
    with pytest.raises(BadInput, match="cannot be saved as a Hugging Face CLIP"):
        export_hugging_face(build_model(arch, 0), arch, tmp_path)

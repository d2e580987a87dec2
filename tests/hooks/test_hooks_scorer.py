"""The scorer is known by what its weights hang on, as a trial is."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from planted_world import context_of

from djsandbox_ray.hooks.scorer import TrainScorer, _family, _train
from djsandbox_ray.identity import canonical, sample_digest
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.clip.arch import load_arch
from djsandbox_ray.trials.clip.scorer import ScorerConfig
from djsandbox_ray.trials.family import OtherNumbers

ROWS = 8
CLIP = {"type": "clip", "batch_size": 4}
TRUSTED = {"type": "shapes", "samples": ROWS}


def section(**changes: Any) -> dict[str, Any]:
    return {"dataset": TRUSTED, "model": CLIP, "budget": 8, **changes}


def identity(storage: Storage, **changes: Any) -> bytes:
    """Return what a scorer is known by."""
    context, _ = context_of(storage, scorer=section(**changes))
    return canonical(TrainScorer(context).identity())


def test_the_device_and_the_precision_are_in_its_id(storage: Storage) -> None:
    on_gpus, half = {"gpus_per_worker": 0.5}, {**CLIP, "precision": "bf16"}
    on_cpus = identity(storage)
    assert identity(storage, model={**CLIP, "precision": "fp32"}) == on_cpus
    assert identity(storage, resources={"cpus_per_worker": 2}) == on_cpus
    others = {
        identity(storage, resources=on_gpus),
        identity(storage, model=half),
        identity(storage, resources=on_gpus, model={**CLIP, "precision": "fp32"}),
    }
    assert len({on_cpus, *others}) == 4


def test_the_libraries_are_in_its_id(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for version in ("2.14.1", "2.14.2+cpu", "2.15.0"):
        monkeypatch.setattr("djsandbox_ray.trials.family.version", lambda _, now=version: now)
        found.append(identity(storage))
    assert found[0] == found[1] != found[2]


def test_an_architecture_is_known_by_its_content(storage: Storage, tmp_path: Path) -> None:
    paths = [tmp_path / f"{name}.json" for name in ("one", "two")]
    for path in paths:
        path.write_text(json.dumps(load_arch("tiny")))
    found = {identity(storage, model={**CLIP, "arch": str(path)}) for path in paths}
    assert found == {identity(storage)}


@pytest.fixture
def table(tmp_path: Path) -> str:
    images = []
    for pixels in np.random.default_rng(0).integers(0, 256, (ROWS, 32, 32, 3), dtype=np.uint8):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        images.append(file.getvalue())
    texts = [f"number {row}" for row in range(ROWS)]
    digests = [sample_digest(*pair) for pair in zip(images, texts, strict=True)]
    uri = str(tmp_path / "samples.lance")
    lance.write_dataset(pa.table({"image": images, "text": texts, "digest": digests}), uri)
    return uri


def test_it_says_what_its_weights_hang_on(storage: Storage, table: str) -> None:
    config = ScorerConfig.model_validate(section())
    family = _family(config)
    promised = family.numerics(0)
    with pytest.raises(OtherNumbers, match=r"the driver torch 1\.0"):
        _train(storage.url, "models/m", table, ROWS, config, family, {**promised, "torch": "1.0"})
    assert not storage.exists("models/m")
    _train(storage.url, "models/m", table, ROWS, config, family, promised)
    assert storage.read_sealed("models/m/scorer.json")["numerics"] == promised
    assert promised["device"] == "cpu"

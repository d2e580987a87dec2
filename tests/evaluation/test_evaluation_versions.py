"""What the version of an evaluator stands for: golden metrics of fixed embeddings and reports."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from table_encoder import TableEncoder, split_of, unit

from djsandbox_ray.evaluation.evaluator import EVALUATORS, Artefact
from djsandbox_ray.outside.environment import FOLDER

LABELS = [f"{'abc'[number % 3]}" for number in range(24)]
CAPTIONS = [f"caption {number % 17}" for number in range(24)]
WRITES = "import json, sys; json.dump(dict(r=[dict(acc=0.5), 2]), open(sys.argv[2], 'w'))"
SETTINGS: dict[str, dict[str, Any]] = {
    "zero_shot": {"label": "label", "templates": ["a {}", "one {}"]},
    "retrieval": {"k": [1, 3]},
    "reported": {"metrics": ["b", "a"]},
    "command": {
        "command": ["python", "-c", WRITES, "{output}", "{metrics}"],
        "metrics": {"first": "r.0.acc", "second": "r.1"},
    },
}
GOLDEN: dict[str, dict[int, dict[str, float]]] = {
    "zero_shot": {1: {"zero_shot_label/top1": 13 / 24, "zero_shot_label/mean_per_class": 13 / 24}},
    "retrieval": {
        1: {
            "retrieval/image_to_text_r1": 5 / 24,
            "retrieval/image_to_text_r3": 13 / 24,
            "retrieval/text_to_image_r1": 6 / 17,
            "retrieval/text_to_image_r3": 10 / 17,
        }
    },
    "reported": {1: {"b": 2.0, "a": 1.0}},
    "command": {1: {"first": 0.5, "second": 2.0}},
}


@pytest.mark.parametrize("name", sorted(EVALUATORS))
def test_a_version_stands_for_its_numbers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "node"))
    kind = EVALUATORS.get(name)
    assert "VERSION" in vars(kind), "a version stands beside the formula that it speaks for"
    rng = np.random.default_rng(11)
    words = {*CAPTIONS, *(f"{word} {label}" for word in ("a", "one") for label in "abc")}
    texts = {word: unit(rng.normal(size=6)) for word in sorted(words)}
    pairs = zip(LABELS, CAPTIONS, strict=True)
    own = np.stack([texts[f"a {label}"] + texts[text] for label, text in pairs])
    model: Any = TableEncoder(unit(own + rng.normal(size=own.shape)), texts)
    if kind.READS != "embeddings":
        model = Artefact(tmp_path, 1, 0, {"a": 1.0, "b": 2.0, "c": 3.0})
    config = kind.Config.model_validate({"type": name, **SETTINGS[name]})
    found = kind(config).evaluate(model, split_of(CAPTIONS, LABELS))
    place = f"{Path(sys.modules[kind.__module__].__file__ or '').name}"
    assert found == pytest.approx(GOLDEN[name].get(kind.VERSION, {}), abs=1e-6), (
        f"raise the VERSION of {kind.__name__} in evaluation/{place} and record here, under it: "
        f"{json.dumps(found)}"
    )

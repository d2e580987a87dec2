"""Evaluators that ask: a set of what a source holds, and something that answers as it is told."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from djsandbox_ray.dataset.prepare import prepared
from djsandbox_ray.dataset.source import Sample, Source
from djsandbox_ray.evaluation.asking import Answer, Asked
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.evaluator import EVALUATORS
from djsandbox_ray.evaluation.vqa.benchmark import Benchmark


class Says:
    """Answers every question with what a function makes of it; remembers what it was asked."""

    def __init__(self, reply: Callable[[Asked], str], cut: int = 1000) -> None:
        self._reply, self._cut = reply, cut
        self.asked: list[Asked] = []

    def answers(self, asked: Sequence[Asked]) -> dict[str, Answer]:
        self.asked += asked
        said = {one.key: self._reply(one) for one in asked}
        return {
            key: Answer(key, text, len(text.split()), len(text.split()) >= self._cut)
            for key, text in said.items()
        }


def evaluator(type: str, **settings: Any) -> Benchmark[Any]:
    """Build an evaluator as a configuration does."""
    kind = EVALUATORS.get(type)
    found = kind(kind.Config.model_validate({"type": type, **settings}))
    assert isinstance(found, Benchmark)
    return found


def samples_of(source: Source) -> list[Sample]:
    """Read a source as an ingest does; all of it can be used."""
    items = [item for shard in prepared(source) for item in shard.read()]
    assert all(isinstance(item, Sample) for item in items), items
    return items  # type: ignore[return-value]


def set_of(source: Source) -> EvaluationSet:
    """Return a source as the set that its ingest would give, without the table."""
    samples = samples_of(source)
    metadata = tuple(json.loads(json.dumps(sample.meta)) for sample in samples)
    texts = tuple(sample.text for sample in samples)
    return EvaluationSet("set", "", len(samples), texts, metadata)


def write_lines(path: Path, entries: Sequence[Any]) -> str:
    """Write JSON Lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(entry, ensure_ascii=False) for entry in entries]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return str(path)


def jpeg(seed: int, side: int = 24) -> bytes:
    """Return an image that is like no other."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()

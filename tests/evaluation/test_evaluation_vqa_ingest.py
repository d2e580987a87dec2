"""Benchmarks read into tables by Ray, as a run does it: whole, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from asked_world import Says, evaluator, jpeg, write_lines

from djsandbox_ray.dataset.ingest import ingest
from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.storage.store import Storage

OPTIONS = {"A": "cat", "B": "dog"}


@pytest.fixture
def path(tmp_path: Path) -> str:
    """700 questions about 350 images: more than a shard."""
    entries = []
    for number in range(350):
        (tmp_path / f"{number}.jpg").write_bytes(jpeg(number, 16))
        for question in range(2):
            entry = {"id": 2 * number + question, "question": f"What is {question}?"}
            right = "AB"[(number + question) % 2]
            image = f"{number}.jpg"
            entries.append({**entry, "image": image, "options": OPTIONS, "answer": right})
    return write_lines(tmp_path / "own.jsonl", entries)


@pytest.mark.integration
def test_a_benchmark_is_ingested_whole_or_not_at_all(
    ray_cluster: None, storage: Storage, path: str
) -> None:
    found = evaluator("mmbench", path=path)
    dataset = ingest(found.source(), storage, max_rejected=0.01)
    assert dataset.rows == 350
    data = EvaluationSet.read(dataset.id, storage.uri(dataset.table))
    found.check(data)
    right = {one.key: one.question.passes for one in found.placed(data)}
    assert len(right) == 700

    def reply(asked):  # type: ignore[no-untyped-def]
        key, _, by = asked.key.rpartition("/")
        return right[key][int(by)][1]

    scores = found.evaluate(Says(reply), data)
    assert (scores["mmbench/circular"], scores["mmbench/unparsed"]) == (1, 0)
    image = data.take([349], ["image"])["image"].to_pylist()[0]
    assert image == jpeg(349, 16)
    again = ingest(evaluator("mmbench", path=path, limit=5).source(), storage, max_rejected=0.01)
    assert again.id == dataset.id

    Path(path).with_name("7.jpg").write_bytes(b"no image")
    Path(path).with_name("more.jsonl").write_text(Path(path).read_text())
    renamed = evaluator("mmbench", path=path.replace("own", "more"))
    damaged = ingest(renamed.source(), storage, max_rejected=0.01)
    data = EvaluationSet.read(damaged.id, storage.uri(damaged.table))
    with pytest.raises(BadInput, match="mmbench: 1 of 350 images cannot be used"):
        renamed.check(data)

    Path(path).with_name("8.jpg").unlink()
    Path(path).with_name("less.jsonl").write_text(Path(path).read_text())
    with pytest.raises(BadInput, match=r"images: 1 of 350 images are not in .*'8.jpg'"):
        ingest(
            evaluator("mmbench", path=path.replace("own", "less")).source(),
            storage,
            max_rejected=0.01,
        )

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lance
import pyarrow as pa
import pytest

from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.data import EvaluationSet


def make(*metadata: dict[str, Any]) -> EvaluationSet:
    return EvaluationSet("split", "nowhere", len(metadata), tuple("abc"[: len(metadata)]), metadata)


def test_a_split_is_read_in_the_order_of_rows(tmp_path: Path) -> None:
    texts = [f"text {number} é\n" for number in range(300)]
    metas = [{"number": number, "deep": {"a": [1, None]}} for number in range(300)]
    uri = str(tmp_path / "samples.lance")
    columns = {"text": texts, "meta": [json.dumps(meta) for meta in metas], "image": [b""] * 300}
    lance.write_dataset(pa.table(columns), uri, max_rows_per_file=70)
    split = EvaluationSet.read("dataset-1", uri, {"number": ("a", "b")})
    assert (split.id, split.uri) == ("dataset-1", uri)
    assert split.texts == tuple(texts)
    assert split.metadata == tuple(metas)
    assert split.classes == {"number": ("a", "b")}
    assert split.labels("number") == [str(number) for number in range(300)]


def test_labels_are_texts_whatever_they_were() -> None:
    values = ["red", 3, True]
    assert make(*({"x": value} for value in values)).labels("x") == ["red", "3", "True"]
    assert make({"x": 0}, {"x": 3.0}, {"x": False}).labels("x") == ["0", "3", "False"]


def test_an_empty_text_is_no_label() -> None:
    with pytest.raises(BadInput, match="evaluation sample 1 has no label 'x'"):
        make({"x": "red"}, {"x": ""}).labels("x")


def test_a_label_that_a_sample_lacks_lists_what_all_have() -> None:
    split = make({"colour": "red", "b": 1, "a": 1}, {"shape": "x", "b": 1, "a": 1})
    with pytest.raises(BadInput) as caught:
        split.labels("colour")
    assert str(caught.value) == (
        "evaluation sample 1 has no label 'colour'; every sample has: a, b"
    )


def test_null_is_no_label() -> None:
    split = make({"colour": "red"}, {"colour": None})
    with pytest.raises(BadInput, match="sample 1 has no label 'colour'; every sample has: none"):
        split.labels("colour")


def test_samples_without_metadata_have_no_labels() -> None:
    with pytest.raises(BadInput, match="sample 0 has no label 'x'; every sample has: none"):
        make({}, {}).labels("x")


def test_a_split_does_not_print_its_texts() -> None:
    assert "abc" not in repr(EvaluationSet("i", "u", 1, ("abc",), ({},)))

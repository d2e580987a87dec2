"""What a pool is made of, by label."""

from __future__ import annotations

import json

import numpy as np

from djsandbox_ray.reporting.chapters import label_shares, read_labels


def test_shares_are_those_of_the_members_over_all_chunks() -> None:
    labels = ["a", "a", "b", "a", "c", "b"]
    masks = np.array([[1, 1, 1, 0, 0, 0], [0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0]], dtype=bool)
    chunks = [labels[:4], labels[4:]]
    names, shares = label_shares(chunks, [masks[:, :4], masks[:, 4:]])
    assert names == ["a", "b", "c"]
    np.testing.assert_allclose(shares, [[2 / 3, 1 / 3, 0], [0, 0.5, 0.5], [0, 0, 0]])


def test_labels_that_a_sample_lacks_are_counted_as_such() -> None:
    meta = [[json.dumps({"k": True}), json.dumps({})], [json.dumps({"k": "x"})]]
    assert list(read_labels(meta, "k")) == [["True", "(none)"], ["x"]]

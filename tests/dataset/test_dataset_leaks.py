from __future__ import annotations

import pytest

from djsandbox_ray.dataset.ingest import ingest
from djsandbox_ray.dataset.leaks import find_leaks

pytestmark = pytest.mark.usefixtures("ray_cluster")


@pytest.fixture
def datasets(open_source, storage, write_parquet, pairs):
    def build(name: str, some):
        return ingest(
            open_source("parquet", path=write_parquet(some, name)), storage, max_rejected=0
        )

    def make(train, evaluation):
        return build("train.parquet", train), build("evaluation.parquet", evaluation)

    return make


def test_exact_pairs_are_found_and_near_ones_are_not(storage, datasets, pairs, monkeypatch) -> None:
    monkeypatch.setattr("djsandbox_ray.dataset.leaks._SCAN_ROWS", 4)
    other_text = (pairs[0][0], "another caption")
    train, evaluation = datasets(pairs[:8], [pairs[9], pairs[6], other_text, pairs[1], pairs[6]])
    leak = find_leaks(storage, train, evaluation, remove=True)
    assert leak.path == f"datasets/{train.id}/leaks/{evaluation.id}.parquet"
    assert storage.read_table(leak.path).to_pydict() == {
        "row_id": [1, 6, 6],
        "evaluation_row_id": [3, 1, 4],
    }
    assert (leak.rows, leak.removed) == (2, True)
    kept = find_leaks(storage, train, evaluation, remove=False)
    assert not kept.removed
    assert kept.id != leak.id


def test_no_leak_is_an_empty_table(storage, datasets, pairs) -> None:
    train, evaluation = datasets(pairs[:5], pairs[5:])
    leak = find_leaks(storage, train, evaluation, remove=True)
    table = storage.read_table(leak.path)
    assert (leak.rows, table.num_rows) == (0, 0)
    assert table.column_names == ["row_id", "evaluation_row_id"]

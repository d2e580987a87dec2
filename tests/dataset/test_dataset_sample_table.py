"""Rows are what was ingested, or an error says which is not."""

from __future__ import annotations

from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest

from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.errors import BadInput
from djsandbox_ray.identity import sample_digest
from djsandbox_ray.outside.exchange import write_samples

ROWS = 400


def _table(folder: Path, wrong: int | None = None) -> SampleTable:
    images = [f"image {row}".encode() for row in range(ROWS)]
    texts = [f"text {row}" for row in range(ROWS)]
    digests = [sample_digest(*pair) for pair in zip(images, texts, strict=True)]
    if wrong is not None:
        texts[wrong] = "another text"
    columns = {"image": images, "text": texts, "digest": digests, "meta": ["{}"] * ROWS}
    uri = str(folder / "dataset-1" / "samples.lance")
    lance.write_dataset(pa.table(columns), uri)
    return SampleTable(uri)


def test_what_was_ingested_passes(tmp_path: Path) -> None:
    table = _table(tmp_path)
    table.check(np.arange(ROWS))
    table.check(np.array([7, 7, 3]))
    table.check(np.empty(0, np.int64))


@pytest.mark.parametrize("wrong", [0, 15, 100, 300])
def test_a_changed_row_is_named_with_its_table_and_what_mends_it(
    tmp_path: Path, wrong: int
) -> None:
    table = _table(tmp_path, wrong)
    for found in (None, table.scan(0, ROWS, ["image", "text", "digest"])):
        with pytest.raises(BadInput, match=f"row {wrong} is not what was ingested") as error:
            table.check(np.arange(ROWS), found)
        assert table.uri in str(error.value)
        assert f"remove the folder {table.uri}, and the same command" in str(error.value)


def test_the_first_rows_that_are_read_are_checked_wherever_they_lie(tmp_path: Path) -> None:
    table = _table(tmp_path, wrong=233)
    table.check(np.arange(ROWS))  # one in a hundred: this one is not among them
    with pytest.raises(BadInput, match="row 233"):
        table.check(np.array([5, 233, 9]))


def test_programs_are_given_no_row_that_was_changed(tmp_path: Path) -> None:
    table, rows = _table(tmp_path, wrong=3), np.arange(10)
    with pytest.raises(BadInput, match="row 3"):
        write_samples(table.uri, rows, rows, tmp_path / "out", form="jsonl", rows_per_shard=5)

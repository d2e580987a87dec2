"""A dataset is known by its files: what is damaged is read again, never believed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import lance
import pyarrow as pa
import pytest
from damages import DAMAGES

from djsandbox_ray.dataset.complete import (
    broken_dataset,
    complete_dataset,
    mark_complete,
    told_of,
    whole_table,
)
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.errors import Damaged, StorageFailed
from djsandbox_ray.records import Dataset
from djsandbox_ray.storage.store import Storage

HOME = "datasets/dataset-1"
DATASET = Dataset("dataset-1", f"{HOME}/samples.lance", 300, 2)


@pytest.fixture
def made(storage: Storage) -> Storage:
    columns = {"row_id": range(300), "text": [f"sample {n}" for n in range(300)]}
    Path(storage.uri(HOME)).mkdir(parents=True)
    lance.write_dataset(pa.table(columns), storage.uri(DATASET.table))
    storage.write_table(f"{HOME}/rejected.parquet", pa.table({"source": ["a", "b"]}))
    mark_complete(storage, DATASET, {"reasons": {"no caption": 2}})
    return storage


def file_of(storage: Storage, kind: str) -> Path:
    if kind in ("dataset.json", "rejected.parquet"):
        return Path(storage.uri(f"{HOME}/{kind}"))
    (found,) = Path(storage.uri(DATASET.table)).rglob(kind)
    return found


KINDS = ["dataset.json", "rejected.parquet", "*.lance", "*.manifest"]


def test_a_whole_dataset_is_what_was_read(made: Storage) -> None:
    assert complete_dataset(made, HOME) == DATASET
    assert broken_dataset(made, DATASET) == {}
    assert told_of(made, DATASET)["reasons"] == {"no caption": 2}
    assert complete_dataset(made, "datasets/none") is None
    SampleTable(made.uri(DATASET.table)).take([3], ["text"])
    assert broken_dataset(made, DATASET) == {}, "reading changes nothing"


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_damage_to_every_file_is_found(
    made: Storage, caplog: pytest.LogCaptureFixture, kind: str, damage: str
) -> None:
    path = file_of(made, kind)
    DAMAGES[damage](path)
    assert complete_dataset(made, HOME) is None
    (wrong,) = broken_dataset(made, DATASET)
    assert wrong.endswith(path.name)
    if (kind, damage) != ("dataset.json", "gone"):
        assert "the dataset is read again" in caplog.text
        assert path.name in caplog.text


@pytest.mark.parametrize("kind", ["rejected.parquet", *KINDS[2:]])
def test_a_table_that_is_whole_stays_for_its_readers(made: Storage, kind: str) -> None:
    assert whole_table(made, "datasets/none") is None
    file_of(made, kind).unlink()
    assert complete_dataset(made, HOME) is None
    kept = DATASET.table if kind == "rejected.parquet" else None
    assert whole_table(made, HOME) == kept


def test_statistics_beside_the_table_do_not_count(made: Storage) -> None:
    made.write_json(f"{HOME}/stats/a.json", {})
    assert broken_dataset(made, DATASET) == {}


def test_the_table_of_a_faster_run_holds_the_same(made: Storage) -> None:
    other = Dataset("dataset-1", f"{HOME}/samples-2.lance", 300, 2)
    assert list(broken_dataset(made, other)) == [other.table]
    made.write_bytes(f"{other.table}/data", b"1")
    assert broken_dataset(made, other) == {}


def test_the_names_of_classes_are_kept(made: Storage) -> None:
    named = replace(DATASET, classes={"label": ("cat", "dog")})
    mark_complete(made, named, {})
    assert complete_dataset(made, HOME) == named


def test_a_dataset_of_an_earlier_version_counts(made: Storage) -> None:
    path = f"{HOME}/dataset.json"
    marker = made.read_sealed(path)
    made.write_json(path, {key: marker[key] for key in ("id", "table", "rows", "rejected")})
    assert complete_dataset(made, HOME) == DATASET
    made.write_json(path, {"id": "dataset-1"})
    assert complete_dataset(made, HOME) is None


@pytest.mark.parametrize("damage", ["empty", "half", "other", "gone"])
@pytest.mark.parametrize("kind", ["*.lance", "*.manifest"])
def test_a_table_that_cannot_be_read_says_so_in_a_sentence(
    made: Storage, kind: str, damage: str
) -> None:
    DAMAGES[damage](file_of(made, kind))
    table = SampleTable(made.uri(DATASET.table))
    with pytest.raises(Damaged) as caught:
        table.take([1], ["text"])
    said = str(caught.value)
    assert said.startswith(f"the sample table {table.uri} cannot be read: ")
    assert "remove dataset.json beside it and run the configuration again" in said
    assert "/home/runner" not in said
    assert "/rustc" not in said
    assert "\n" not in said


def test_a_store_that_is_away_has_failed(made: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*args: object, **_: object) -> None:
        raise OSError("LanceError(IO): Generic S3 error: error sending request for url (x)")

    monkeypatch.setattr(lance, "dataset", away)
    with pytest.raises(StorageFailed, match="the same command goes on"):
        _ = SampleTable(made.uri(DATASET.table)).rows


def test_other_errors_are_those_of_who_asks(made: Storage) -> None:
    with pytest.raises(IndexError):
        SampleTable(made.uri(DATASET.table)).take([300], ["text"])

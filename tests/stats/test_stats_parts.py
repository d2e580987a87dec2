"""Parts of statistics: what is damaged is known, and computed again by itself."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damages import DAMAGES

from djsandbox_ray.errors import Damaged
from djsandbox_ray.records import Dataset, Statistic
from djsandbox_ray.stats import compute, parts, unfinished
from djsandbox_ray.stats.compute import compute_statistics
from djsandbox_ray.stats.operators import operator_id, parse_process, resolve_paths
from djsandbox_ray.stats.parts import (
    PartReport,
    broken_parts,
    load_column,
    read_report,
    write_part,
)
from djsandbox_ray.storage import lease
from djsandbox_ray.storage.store import Storage

ROWS = 10_000
DATASET = Dataset("dataset-1", "datasets/dataset-1/samples.lance", ROWS, 0)
(LENGTH,) = parse_process(["text_length_filter"])
FOLDER = f"datasets/dataset-1/stats/{operator_id(resolve_paths(LENGTH))}.parquet"
MARKER = FOLDER.replace(".parquet", ".json")


class Pass:
    """A pass over the ranges that are lacking, in this process: the value of a row is its id.

    Every range becomes a part.
    """

    def __init__(self, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
        self.storage = storage
        self.ran: list[int] = []
        self.begun: Callable[[], object] = lambda: None
        monkeypatch.setattr(compute, "run_pass", self._run)
        monkeypatch.setattr(unfinished, "PART_ROWS", 1)

    def _run(self, tasks: Sequence[dict[str, Any]], job: Any, **_: Any) -> float:
        self.begun()
        for task in tasks:
            self.ran.append(task["start"])
            row_ids = np.arange(task["start"], task["stop"], dtype=np.int64)
            report = PartReport(len(row_ids), {"text_len": 0}, 0, (), 1.0)
            computed = {job.ids[0]: ({"text_len": row_ids.astype(float)}, report)}
            unfinished.write(self.storage, job.folder, row_ids, computed)
        return float(len(tasks))

    def __call__(self) -> list[int]:
        """Compute what is lacking; return where the ranges began that were computed."""
        self.ran = []
        (self.statistic,) = compute_statistics(self.storage, DATASET, [LENGTH]).statistics
        return self.ran

    statistic: Statistic


@pytest.fixture
def passing(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Pass:
    return Pass(storage, monkeypatch)


def test_what_is_whole_is_not_computed_again(passing: Pass, storage: Storage) -> None:
    assert passing() == [0, 4096, 8192]
    assert passing() == []
    assert broken_parts(storage, FOLDER) == {}
    assert np.array_equal(load_column(storage, passing.statistic, ROWS), np.arange(ROWS))


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "flip"])
def test_a_part_of_another_size_is_computed_again_alone(
    passing: Pass, storage: Storage, damage: str
) -> None:
    passing()
    path = f"{FOLDER}/part-{4096:012d}.parquet"
    DAMAGES[damage](Path(storage.uri(path)))
    assert list(broken_parts(storage, FOLDER)) == [path]
    assert passing() == [4096]
    assert np.array_equal(load_column(storage, passing.statistic, ROWS), np.arange(ROWS))


def test_a_flipped_bit_is_found_when_the_part_is_read(passing: Pass, storage: Storage) -> None:
    passing()
    path = f"{FOLDER}/part-{4096:012d}.parquet"
    file = Path(storage.uri(path))
    data = bytearray(file.read_bytes())
    data[len(data) // 8] ^= 4
    file.write_bytes(bytes(data))
    assert broken_parts(storage, FOLDER) == {}
    with pytest.raises(Damaged) as caught:
        load_column(storage, passing.statistic, ROWS)
    assert caught.value.path == path
    storage.remove(path)  # as the loop of jobs does with it
    assert passing() == [4096]


def test_the_numbers_of_a_footer_are_what_was_written(storage: Storage) -> None:
    """Pages have checksums of Parquet; the footer, which says what a part cost, has none."""
    path, report = f"{FOLDER}/part-{0:012d}.parquet", PartReport(2, {"text_len": 0}, 0, (), 7.25)
    write_part(storage, path, np.arange(2), {"text_len": np.zeros(2)}, report)
    assert read_report(storage, path) == report
    table = storage.read_table(path)
    (footer,) = table.schema.metadata.values()
    cheaper = footer.replace(b"7.25", b"1.25")
    storage.write_table(path, table.replace_schema_metadata({b"djsandbox_ray": cheaper}))
    assert read_report(storage, path) is None


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_marker_is_written_anew_without_computing(
    passing: Pass, storage: Storage, damage: str
) -> None:
    passing()
    before = storage.read_sealed(MARKER)
    DAMAGES[damage](Path(storage.uri(MARKER)))
    assert list(broken_parts(storage, FOLDER)) == [MARKER]
    assert passing() == []
    assert storage.read_sealed(MARKER) == before


def test_rows_that_are_missing_or_twice_are_named(passing: Pass, storage: Storage) -> None:
    passing()
    marker = storage.read_sealed(MARKER)
    del marker["parts"]
    storage.write_json(MARKER, marker)  # of an earlier version
    storage.remove(f"{FOLDER}/part-{4096:012d}.parquet")
    assert broken_parts(storage, FOLDER) == {}
    with pytest.raises(Damaged, match="does not hold the rows 0 to 9999") as caught:
        load_column(storage, passing.statistic, ROWS)
    assert caught.value.path == MARKER
    storage.remove(MARKER)
    assert passing() == [4096]
    write_part(
        storage,
        f"{FOLDER}/part-{0:012d}.parquet",
        np.arange(1, 4097, dtype=np.int64)[::-1].copy(),
        {"text_len": np.zeros(4096)},
        PartReport(4096, {"text_len": 0}, 0, (), 1.0),
    )
    with pytest.raises(Damaged, match="row ids are not consecutive"):
        load_column(storage, passing.statistic, ROWS)


@pytest.mark.parametrize("damage", [one for one in DAMAGES if one != "flip"])  # without a digest
def test_a_part_that_a_killed_run_left_damaged_does_not_count(
    passing: Pass, storage: Storage, damage: str
) -> None:
    passing()
    storage.remove(MARKER)
    path = f"{FOLDER}/part-{8192:012d}.parquet"
    DAMAGES[damage](Path(storage.uri(path)))
    assert read_report(storage, path) is None
    assert passing() == [8192]


def test_parts_of_any_length_count_and_only_what_lies_between_them_is_computed(
    passing: Pass, storage: Storage
) -> None:
    """Ranges were shorter once; those of a pass with models still are."""

    def left(start: int, stop: int) -> None:
        row_ids = np.arange(start, stop, dtype=np.int64)
        report = PartReport(stop - start, {"text_len": 0}, 0, (), 1.0)
        path = f"{FOLDER}/part-{start:012d}.parquet"
        write_part(storage, path, row_ids, {"text_len": row_ids.astype(float)}, report)

    for start in (512, 1024, 4608):
        left(start, start + 512)
    assert passing() == [0, 1536, 4096, 5120, 8192]
    assert np.array_equal(load_column(storage, passing.statistic, ROWS), np.arange(ROWS))
    assert passing() == []
    left(700, 900)  # of a run that was taken for dead
    with pytest.raises(Damaged, match="does not hold the rows 0 to 9999") as caught:
        load_column(storage, passing.statistic, ROWS)
    storage.remove(caught.value.path)
    assert passing() == []
    assert np.array_equal(load_column(storage, passing.statistic, ROWS), np.arange(ROWS))


def test_what_is_no_part_is_neither_read_nor_removed(passing: Pass, storage: Storage) -> None:
    passing()
    stray = f"{FOLDER}/part-copy.parquet"
    storage.write_bytes(stray, b"somebody's")
    assert passing() == []
    storage.remove(MARKER)
    assert passing() == []
    assert np.array_equal(load_column(storage, passing.statistic, ROWS), np.arange(ROWS))
    assert storage.read_bytes(stray) == b"somebody's"


def test_parts_of_two_operators_need_not_be_cut_at_the_same_rows(storage: Storage) -> None:
    found, matrix = [], np.arange(24.0).reshape(12, 2)
    for column, cuts in enumerate(((0, 5, 12), (0, 8, 9, 12))):
        folder = f"datasets/dataset-1/stats/op-{column}.parquet"
        for start, stop in pairwise(cuts):
            values = {"key": matrix[start:stop, column]}
            report = PartReport(stop - start, {}, 0, (), 0.1)
            write_part(storage, parts.part(folder, start), np.arange(start, stop), values, report)
        found.append(Statistic(f"s{column}", "key", "op", f"op-{column}", folder))
    read = [*parts.chunks(storage, found, 12)]
    assert [len(chunk) for chunk in read] == [5, 3, 1, 3]
    np.testing.assert_array_equal(np.concatenate(read), matrix)
    with pytest.raises(Damaged, match="does not hold the rows from 5 on; remove it and run"):
        [*parts.chunks(storage, found, 11)]


def test_operators_share_the_ranges_that_several_lack() -> None:
    ranges = [*parts.ranges(2000)]
    left = [[], [(0, 512), (512, 1024), (1024, 1536), (1536, 2000)], [(512, 1536)]]
    assert [(task["start"], task["operators"]) for task in compute._tasks(ranges, left)] == [
        (0, [0, 2]),
        (512, [0]),
        (1024, [0]),
        (1536, [0, 2]),
    ]


def test_parts_without_any_value_are_computed_again(passing: Pass, storage: Storage) -> None:
    """A run was killed before it could say what is wrong; that has been mended since."""
    for start in (0, 4096):
        row_ids = np.arange(start, start + 4096, dtype=np.int64)
        report = PartReport(4096, {"text_len": 4096}, 4096, ((start, "no model"),), 1.0)
        path = f"{FOLDER}/part-{start:012d}.parquet"
        write_part(storage, path, row_ids, {"text_len": np.full(4096, np.nan)}, report)
    assert passing() == [0, 4096, 8192]
    assert storage.read_sealed(MARKER)["failed"] == 0


# Several runs at once


def test_a_second_run_waits_and_finds_what_the_first_has_computed(
    passing: Pass, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "_LOOK", 0.01)
    at_work, waited_for = threading.Event(), threading.Event()
    said: list[str] = []

    def begun() -> None:
        at_work.set()
        assert waited_for.wait(60)

    def note(line: str) -> None:
        said.append(line)
        waited_for.set()

    passing.begun = begun
    with ThreadPoolExecutor() as threads:
        first = threads.submit(compute_statistics, storage, DATASET, [LENGTH])
        assert at_work.wait(60)
        second = compute_statistics(storage, DATASET, [LENGTH], note=note, spent=pytest.fail)
        assert first.result() == second
    assert passing.ran == [0, 4096, 8192]
    assert broken_parts(storage, FOLDER) == {}
    (line,) = said
    assert line.startswith("the folder of statistics of dataset-1 is held by process ")
    assert line.endswith("and waiting for it")


def test_a_run_that_was_taken_for_dead_marks_nothing(
    passing: Pass, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(_: lease.Lease) -> None:
        raise lease.Lost("taken over")

    passing.begun = lambda: monkeypatch.setattr(lease.Lease, "check", check)
    with pytest.raises(lease.Lost):
        passing()
    assert not storage.exists(MARKER)

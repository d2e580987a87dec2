"""What a pass leaves while it is at work: a file per range, and nothing of it is lost by a kill."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
from conftest_stats import captions
from damages import DAMAGES

from djsandbox_ray.errors import BadInput, Damaged
from djsandbox_ray.records import Dataset
from djsandbox_ray.stats import compute, parts, unfinished
from djsandbox_ray.stats.compute import compute_statistics
from djsandbox_ray.stats.fused import FusedOperators
from djsandbox_ray.stats.operators import OperatorSpec, operator_id, parse_process
from djsandbox_ray.stats.parts import PartReport, StatisticColumns
from djsandbox_ray.stats.worker import StatisticsWorker
from djsandbox_ray.storage.store import Storage

ROWS, RANGE = 1000, 400  # ranges begin at 0, 400 and 800
DATASET = Dataset("dataset-1", "datasets/dataset-1/samples.lance", ROWS, 0)
OPERATORS = parse_process(
    [
        "text_length_filter",
        {"word_repetition_filter": {"rep_len": 2}},
        {"word_repetition_filter": {"rep_len": 3}},
    ]
)
MORE = [*OPERATORS, *parse_process(["words_num_filter"])]
FOLDER = unfinished.folder(DATASET.id)


class Killed(BaseException):
    """Ends a pass as a signal does."""


class Pass:
    """Computes with the actors' own code, in this process."""

    def __init__(self, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
        table = pa.table({"row_id": np.arange(ROWS), "text": captions(ROWS)})
        lance.write_dataset(table, storage.uri(DATASET.table))
        monkeypatch.setattr(compute, "run_pass", self._run)
        monkeypatch.setattr(parts, "ROWS_OF_TEXT", RANGE)
        self._storage = storage
        self._last = 1 << 10
        self.ran: list[tuple[int, int]] = []

    def _run(self, tasks: Sequence[dict[str, Any]], job: Any, **_: Any) -> float:
        worker = StatisticsWorker(job)
        for task in tasks[: self._last]:
            (report,) = worker({"task": [json.dumps(task)]})["report"]
            assert "error" not in json.loads(report)
            self.ran.append((task["start"], len(task["operators"])))
        if len(tasks) > self._last:
            raise Killed
        return 0.0

    def __call__(
        self, operators: Sequence[OperatorSpec] = OPERATORS, dataset: Dataset = DATASET
    ) -> StatisticColumns:
        """Compute what is lacking; :attr:`ran` says from which row on, and for how many."""
        self.ran = []
        done = compute_statistics(self._storage, dataset, operators)
        return StatisticColumns(self._storage, done.statistics, ROWS)

    def killed(self, after: int, operators: Sequence[OperatorSpec] = OPERATORS) -> None:
        """Compute some ranges, and no further."""
        self._last = after
        with pytest.raises(Killed):
            self(operators)
        self._last = 1 << 10


@pytest.fixture
def passing(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> Pass:
    return Pass(storage, monkeypatch)


def expected(operators: Sequence[OperatorSpec] = OPERATORS) -> list[np.ndarray]:
    """Compute all of it at once, without files."""
    here = FusedOperators(operators)(captions(ROWS), None, range(len(operators)))
    return [*chain.from_iterable(computed.columns.values() for computed in here)]


def agree(columns: StatisticColumns, operators: Sequence[OperatorSpec] = OPERATORS) -> None:
    for column, values in zip(columns.values(), expected(operators), strict=True):
        np.testing.assert_array_equal(column, values)


def of_operator(spec: OperatorSpec) -> str:
    return parts.folder(DATASET.id, operator_id(spec))


def test_there_is_a_file_per_range_and_in_the_end_one_per_operator(
    passing: Pass, storage: Storage
) -> None:
    passing.killed(after=2)
    assert [Path(name).suffix for name in storage.names(FOLDER)] == [".parquet"] * 2
    assert not any(storage.exists(of_operator(spec)) for spec in OPERATORS)
    agree(passing())
    assert passing.ran == [(800, 3)]
    assert not storage.exists(FOLDER)
    for spec in OPERATORS:
        assert [*parts.sizes(storage, of_operator(spec))] == ["part-000000000000.parquet"]


def test_parts_are_cut_where_they_are_long_enough(
    passing: Pass, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished, "PART_ROWS", 500)
    agree(passing())
    starts = [parts.first_row(name) for name in parts.sizes(storage, of_operator(OPERATORS[0]))]
    assert starts == [0, 800]


def test_an_operator_that_comes_later_is_computed_where_it_is_lacking(passing: Pass) -> None:
    passing.killed(after=2)
    agree(passing(MORE), MORE)
    assert passing.ran == [(0, 1), (400, 1), (800, 4)]


def test_what_other_operators_need_is_kept_until_they_are_complete(
    passing: Pass, storage: Storage
) -> None:
    passing.killed(after=2)
    agree(passing(OPERATORS[:1]), OPERATORS[:1])
    assert passing.ran == [(800, 1)]
    assert len(storage.names(FOLDER)) == 2
    agree(passing())
    assert passing.ran == [(800, 2)]
    assert not storage.exists(FOLDER)


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "flip"])
def test_a_file_that_is_damaged_is_computed_again(
    passing: Pass, storage: Storage, damage: str
) -> None:
    passing.killed(after=2)
    second = storage.names(FOLDER)[1]
    DAMAGES[damage](Path(storage.uri(f"{FOLDER}/{second}")))
    agree(passing())
    assert passing.ran == [(400, 3), (800, 3)]


def test_a_flipped_bit_is_named_and_mended(passing: Pass, storage: Storage) -> None:
    passing.killed(after=2)
    path = f"{FOLDER}/{storage.names(FOLDER)[1]}"
    file = Path(storage.uri(path))
    data = bytearray(file.read_bytes())
    data[len(data) // 8] ^= 4
    file.write_bytes(bytes(data))
    with pytest.raises(Damaged) as caught:
        passing()
    assert caught.value.path == path
    storage.remove(path)  # as the loop of jobs does with it
    agree(passing())
    assert passing.ran == [(400, 3)]


@pytest.mark.parametrize("written", [1, 2])
def test_a_kill_while_parts_are_gathered_costs_no_computing(
    passing: Pass, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    write, count = parts.write_part, [0]

    def cut_off(*arguments: Any) -> None:
        if count[0] == written:
            raise Killed
        count[0] += 1
        write(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(unfinished, "PART_ROWS", 1)
        patched.setattr(parts, "write_part", cut_off)
        with pytest.raises(Killed):
            passing()
    agree(passing())
    assert passing.ran == []


def one_more(storage: Storage, start: int, stop: int, change: Callable[[int], int]) -> None:
    """Leave a file of the first operator; of how many rows it failed is ``change(rows)``."""
    row_ids, rows = np.arange(start, stop, dtype=np.int64), stop - start
    failed = change(rows)
    report = PartReport(rows, {"text_len": failed}, failed, ((start, "no"),) * bool(failed), 1.0)
    values = {"text_len": np.full(rows, np.nan)}
    name = operator_id(OPERATORS[0])
    unfinished.write(storage, FOLDER, row_ids, {name: (values, report)})


def test_rows_that_an_operator_failed_on_everywhere_are_computed_again(
    passing: Pass, storage: Storage
) -> None:
    """What was wrong may have been mended since."""
    one_more(storage, 0, 400, lambda rows: rows)
    agree(passing())
    assert passing.ran == [(0, 3), (400, 3), (800, 3)]
    assert not storage.exists(FOLDER)


def test_rows_that_are_there_twice_are_taken_once(passing: Pass, storage: Storage) -> None:
    """Of a run that was taken for dead."""
    passing.killed(after=2)
    one_more(storage, 380, 500, lambda _: 0)
    one_more(storage, 0, 100, lambda _: 0)
    columns = passing()
    assert passing.ran == [(800, 3)]
    values = columns["text_len"]
    assert len(values) == ROWS
    np.testing.assert_array_equal(values[100:], expected()[0][100:])
    assert not storage.exists(FOLDER)


def test_operators_with_one_id_are_computed_once(passing: Pass, tmp_path: Path) -> None:
    """Two folders with the same content give the same statistics."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
        (folder / "stopwords.json").write_text('{"en": ["a", "the"]}')
    listed = [{"stopwords_filter": {"stopwords_dir": str(folder)}} for folder in folders]
    operators = parse_process(["text_length_filter", *listed])
    columns = passing(operators)
    assert passing.ran == [(0, 2), (400, 2), (800, 2)]
    assert len(columns) == 3
    agree(columns, operators)


def test_text_operators_see_captions_of_pairs_as_they_are(passing: Pass, storage: Storage) -> None:
    """As before there were other samples, and as a recipe's input has them: ids tell no difference.

    In other samples a token stands for a medium, and is no text.
    """
    texts = [f"<__dj__image> a dog {row} <|__dj__eoc|>" for row in range(ROWS)]
    lance.write_dataset(
        pa.table({"row_id": np.arange(ROWS), "text": texts}),
        storage.uri(DATASET.table),
        mode="overwrite",
    )
    np.testing.assert_array_equal(passing(OPERATORS[:1])["text_len"], [*map(len, texts)])
    other = replace(DATASET, id="dataset-2", pairs=False)
    columns = passing(OPERATORS[:1], other)
    np.testing.assert_array_equal(columns["text_len"], [len(f"a dog {row}") for row in range(ROWS)])


def test_what_is_lacking_is_named_by_its_place_in_the_whole_list(passing: Pass) -> None:
    passing()
    lacking = parse_process([{"stopwords_filter": {"stopwords_dir": "/no/such/folder"}}])
    with pytest.raises(BadInput, match=r"operators\[3\]\.stopwords_filter: needs stopwords_dir"):
        passing([*OPERATORS, *lacking])


def test_what_is_somebody_elses_is_not_read(passing: Pass, storage: Storage) -> None:
    storage.write_bytes(f"{FOLDER}/notes.txt", b"mine")
    agree(passing())
    assert storage.names(FOLDER) == ["notes.txt"]

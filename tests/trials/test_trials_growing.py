"""Tables grow by what lacks of them; what a kill has left is there, and what is damaged is not."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
from passes_here import Killed, PassHere

from djsandbox_ray.errors import BadInput, Damaged, StorageFailed
from djsandbox_ray.nodes.kinds import NodeKind
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials import growing
from djsandbox_ray.trials.growing import (
    GrowingTable,
    Growth,
    Keys,
    Part,
    RowsJob,
    RowsWorker,
    Wanted,
    grow,
)

SCHEMA = pa.schema([("key", pa.int64()), ("value", pa.float64())])
BAD = 1000
"""A key that cannot be computed."""


@dataclass(frozen=True)
class Squares(RowsJob):
    """Computes squares."""

    lacking: Keys

    def batches(self, schema: pa.Schema, keys: Keys) -> Iterator[pa.RecordBatch]:
        if BAD in keys:
            raise BadInput("there is no square of 1000")
        assert set(keys) <= set(self.lacking)
        yield pa.record_batch([keys, keys.astype(float) ** 2], schema=schema)


class World:
    """A table of squares, whose actors work in this process.

    Args:
        storage: where it lies.
        monkeypatch: of the test.
    """

    def __init__(self, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
        self.table = GrowingTable(storage, "squares/x", SCHEMA, "key")
        self.other = GrowingTable(storage, "squares/a", SCHEMA, "key")
        self.notes: list[str] = []
        self.passing = PassHere()
        monkeypatch.setattr(growing, "run_pass", self.passing)
        monkeypatch.setattr(growing, "_TASK", 4)

    def grow(self, keys: Sequence[int]) -> float:
        """Have some keys."""
        return self.grow_all(Wanted(self.table, np.array(keys, np.int64), "it", Squares))

    def grow_all(self, *wanted: Wanted) -> float:
        told = (self.notes.append, lambda _: None)
        return grow(wanted, Growth(1, 0, NodeKind(), "here", lambda *_: None, *told))

    @property
    def values(self) -> dict[int, float]:
        return held(self.table)


def held(table: GrowingTable) -> dict[int, float]:
    found = lance.dataset(table.uri).to_table()
    keys, values = found["key"].to_pylist(), found["value"].to_pylist()
    assert len(set(keys)) == len(keys)
    return dict(zip(keys, values, strict=True))


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(Storage(str(tmp_path)), monkeypatch)


def squares(keys: Sequence[int]) -> dict[int, float]:
    return {key: float(key) ** 2 for key in keys}


def test_only_what_lacks_is_computed(world: World) -> None:
    assert len(world.table.keys()) == 0
    assert world.grow(range(10)) == 3.0
    assert world.values == squares(range(10))
    assert world.passing.taken() == [10]
    assert world.grow([2, 7]) == 0.0
    assert world.passing.taken() == []
    world.grow([5, 9, -3, 12])
    assert world.passing.taken() == [2]
    assert world.values == squares([*range(10), -3, 12])
    assert world.table.keys().tolist() == [-3, *range(10), 12]
    assert "it: 2 of 4 are computed, once for all trials" in world.notes


def test_tables_grow_together_in_one_pass(world: World) -> None:
    world.grow(range(5))
    wanted = [
        Wanted(world.table, np.arange(8), "these", Squares),
        Wanted(world.other, np.arange(3), "others", Squares),
        Wanted(world.table, np.arange(6, 11), "the same", Squares),
    ]
    assert world.grow_all(*wanted) == 3.0
    assert world.passing.taken() == [5, 9]
    assert world.values == squares(range(11))
    assert held(world.other) == squares(range(3))
    assert world.notes[-2:] == [
        "others: 3 of 3 are computed, once for all trials",
        "these: 6 of 11 are computed, once for all trials",
    ]
    assert world.grow_all(*wanted) == 0.0
    world.grow_all(wanted[0], Wanted(world.other, np.arange(4), "others", Squares))
    assert world.passing.taken() == [1]


def test_of_tables_that_grow_together_a_kill_leaves_what_is_computed(world: World) -> None:
    world.passing.last = 3
    wanted = [
        Wanted(world.table, np.arange(20), "these", Squares),
        Wanted(world.other, np.arange(6), "others", Squares),
    ]
    with pytest.raises(Killed):
        world.grow_all(*wanted)
    assert held(world.other) == squares(range(6))
    assert world.values == squares(range(4))
    world.passing.last = 1 << 10
    world.grow_all(*wanted)
    assert world.passing.taken() == [10, 16]
    assert world.values == squares(range(20))


def test_a_table_is_whole_before_those_behind_it_are(world: World) -> None:
    """Who needs this one alone does not wait for the others."""
    world.passing.last = 2
    wanted = [
        Wanted(world.table, np.arange(20), "these", Squares),
        Wanted(world.other, np.arange(6), "others", Squares),
    ]
    seen: list[bool] = []

    def look(*_: object) -> None:
        seen.append(world.other.lacks(np.arange(6)))

    world.passing.before = look
    with pytest.raises(Killed):
        world.grow_all(*wanted)
    assert seen == [True, True, False]


def test_one_table_that_cannot_be_added_to_costs_no_other_its_rows(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = GrowingTable.append

    def append(table: GrowingTable, fragments: Sequence[str]) -> None:
        if table is world.other:
            raise StorageFailed("the disk is full")
        plain(table, fragments)

    monkeypatch.setattr(GrowingTable, "append", append)
    wanted = [
        Wanted(world.table, np.arange(3), "these", Squares),
        Wanted(world.other, np.arange(3), "others", Squares),
    ]
    with pytest.raises(StorageFailed, match="the disk is full"):
        world.grow_all(*wanted)
    monkeypatch.undo()
    assert not world.other.lacks(np.arange(0))
    assert len(world.other.keys()) == 0


def test_a_storage_that_is_away_is_no_damage(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.grow(range(4))

    def away(*_: object, **__: object) -> None:
        raise OSError("LanceError(IO): Generic S3 error: error sending request")

    monkeypatch.setattr(lance, "dataset", away)
    with pytest.raises(StorageFailed, match="goes on once that is mended"):
        world.grow(range(5))


def test_what_a_kill_has_left_is_not_computed_again(world: World) -> None:
    world.passing.last = 2
    with pytest.raises(Killed):
        world.grow(range(20))
    assert world.values == squares(range(8))
    world.passing.last = 1 << 10
    world.grow(range(20))
    assert world.passing.taken() == [8, 12]
    assert world.values == squares(range(20))


def test_what_nobody_has_added_goes(world: World) -> None:
    world.grow(range(4))
    keys = np.arange(50, 60)
    orphan = RowsWorker([Part(world.table.uri, SCHEMA, keys, Squares(keys))])
    orphan({"task": [json.dumps({"part": 0, "start": 0, "stop": 10})]})
    files = Path(world.table.uri) / "data"
    assert len(list(files.iterdir())) == 2
    world.grow(range(5))
    assert len(list(files.iterdir())) == 2
    assert world.values == squares(range(5))


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_part_is_computed_again(world: World, damage: str) -> None:
    world.grow(range(8))
    newest = max(
        (Path(world.table.uri) / "data").iterdir(), key=lambda file: file.stat().st_mtime_ns
    )
    if damage == "cut":
        newest.write_bytes(newest.read_bytes()[:-10])
    else:
        newest.unlink()
    world.grow(range(8))
    assert world.passing.taken() == [8, 4]
    assert world.values == squares(range(8))
    assert "it: 1 parts are damaged, and are computed again" in world.notes


def test_a_table_that_cannot_be_read_is_said(world: World) -> None:
    world.grow(range(4))
    for manifest in (Path(world.table.uri) / "_versions").iterdir():
        manifest.write_bytes(b"nothing")
    with pytest.raises(Damaged, match="cannot be read"):
        world.grow(range(5))


def test_what_an_actor_stumbles_over_is_said_and_the_rest_stays(world: World) -> None:
    with pytest.raises(BadInput, match="no square of 1000"):
        world.grow([*range(8), BAD])
    assert world.values == squares(range(8))

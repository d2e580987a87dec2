"""Tables grow by what lacks of them; what a kill has left is there, and what is damaged is not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
from passes_here import Killed, PassHere

from djsandbox_ray.errors import BadInput, Damaged
from djsandbox_ray.nodes.actors import PassWorker
from djsandbox_ray.nodes.kinds import NodeKind
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials import growing
from djsandbox_ray.trials.growing import GrowingTable, Growth, Keys, write_rows

SCHEMA = pa.schema([("key", pa.int64()), ("value", pa.float64())])
BAD = 1000
"""A key that cannot be computed."""


@dataclass(frozen=True)
class Job:
    uri: str
    keys: Keys


class Squares(PassWorker):
    """Computes squares."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self._job = job

    def compute(self, task: dict[str, Any]) -> dict[str, Any]:
        keys = self._job.keys[task["start"] : task["stop"]]

        def batches() -> Any:
            if BAD in keys:
                raise BadInput("there is no square of 1000")
            yield pa.record_batch([keys, keys.astype(float) ** 2], schema=SCHEMA)

        return {"rows": len(keys), "fragments": write_rows(self._job.uri, SCHEMA, batches())}


class World:
    """A table of squares, whose actors work in this process.

    Args:
        storage: where it lies.
        monkeypatch: of the test.
    """

    def __init__(self, storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
        self.table = GrowingTable(storage, "squares/x", SCHEMA, "key")
        self.notes: list[str] = []
        self.passing = PassHere()
        monkeypatch.setattr(growing, "run_pass", self.passing)
        monkeypatch.setattr(growing, "_TASK", 4)

    def grow(self, keys: Sequence[int]) -> float:
        """Have some keys."""
        growth = Growth(
            1, 0, NodeKind(), "here", lambda *_: None, self.notes.append, lambda _: None
        )
        wanted = np.array(keys, np.int64)
        return self.table.grow(
            wanted, Squares, lambda lack: Job(self.table.uri, lack), "it", growth
        )

    @property
    def computed(self) -> list[int]:
        """How many keys were computed, pass by pass, since this was asked for."""
        found, self.passing.passes = self.passing.passes, []
        return found

    @property
    def values(self) -> dict[int, float]:
        found = lance.dataset(self.table.uri).to_table()
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
    assert world.computed == [10]
    assert world.grow([2, 7]) == 0.0
    assert world.computed == []
    world.grow([5, 9, -3, 12])
    assert world.computed == [2]
    assert world.values == squares([*range(10), -3, 12])
    assert world.table.keys().tolist() == [-3, *range(10), 12]
    assert "it: 2 of 4 are computed, once for all trials" in world.notes


def test_what_a_kill_has_left_is_not_computed_again(world: World) -> None:
    world.passing.last = 2
    with pytest.raises(Killed):
        world.grow(range(20))
    assert world.values == squares(range(8))
    world.passing.last = 1 << 10
    world.grow(range(20))
    assert world.computed == [8, 12]
    assert world.values == squares(range(20))


def test_what_nobody_has_added_goes(world: World) -> None:
    world.grow(range(4))
    orphan = Squares(Job(world.table.uri, np.arange(50, 60)))
    orphan({"task": [json.dumps({"start": 0, "stop": 10})]})
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
    assert world.computed == [8, 4]
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

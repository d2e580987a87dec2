"""Seals: what is not as it was written is known, in whatever way it was damaged."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from damages import DAMAGES
from hypothesis import given
from hypothesis import strategies as st

from djsandbox_ray.errors import BadInput, Damaged, Missing
from djsandbox_ray.storage import seals
from djsandbox_ray.storage.seals import (
    Seal,
    broken,
    broken_below,
    sealed,
    seals_from_json,
    seals_of,
    seals_to_json,
    shortened,
    unsealed,
)
from djsandbox_ray.storage.store import Storage


@dataclass(frozen=True)
class Line:
    name: str
    number: float


WRITERS = {
    "a/x.json": lambda storage, path: storage.write_sealed(path, {"a": [1.5, None], "b": "text"}),
    "a/x.csv": lambda storage, path: storage.write_rows(Line, path, [Line("a", 1.5)] * 9),
    "a/x.parquet": lambda storage, path: storage.write_table(
        path, pa.table({"row_id": range(500), "value": [n / 3 for n in range(500)]})
    ),
    "a/x.yaml": lambda storage, path: storage.write_bytes(path, b"process: []\n" * 9),
}
READERS = {
    ".json": lambda storage, path: storage.read_sealed(path),
    ".parquet": lambda storage, path: storage.read_table(path, ["row_id", "value"]),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("path", WRITERS)
def test_every_damage_to_every_form_breaks_its_seal(
    storage: Storage, path: str, damage: str
) -> None:
    with storage.noting() as written:
        WRITERS[path](storage, path)
    assert written == {path: storage.seal(path)}
    assert broken(storage, written) == {}
    DAMAGES[damage](Path(storage.uri(path)))
    assert list(broken(storage, written)) == [path]
    assert path in shortened(broken(storage, written))


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "other"])
@pytest.mark.parametrize("path", ["a/x.json", "a/x.parquet"])
def test_what_vouches_for_itself_is_not_read_when_damaged(
    storage: Storage, path: str, damage: str
) -> None:
    WRITERS[path](storage, path)
    DAMAGES[damage](Path(storage.uri(path)))
    with pytest.raises(Damaged, match=rf"{path} is .*; .*djsandbox run") as caught:
        READERS[Path(path).suffix](storage, path)
    assert isinstance(caught.value, Missing) == (damage == "gone")
    assert caught.value.path == path
    assert isinstance(caught.value, BadInput)
    assert "\n" not in str(caught.value)


def test_every_flipped_bit_of_a_table_is_seen_or_harmless(storage: Storage) -> None:
    WRITERS["a/x.parquet"](storage, "a/x.parquet")
    file = Path(storage.uri("a/x.parquet"))
    whole, data = storage.read_table("a/x.parquet"), file.read_bytes()
    for place in range(0, len(data), 37):
        file.write_bytes(data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :])
        try:
            found = storage.read_table("a/x.parquet", ["row_id", "value"])
        except Damaged:
            continue
        assert found["value"].to_pylist() == whole["value"].to_pylist(), place


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "1", "NaN", "{}x", '"a"', "[" * 20000, '{"checksum": "x"}']
)
def test_what_is_no_object_is_damaged(storage: Storage, text: str) -> None:
    storage.write_bytes("a.json", text.encode())
    with pytest.raises(Damaged, match=r"a\.json is damaged"):
        storage.read_sealed("a.json")


def test_tables_of_other_columns_are_damaged(storage: Storage) -> None:
    storage.write_rows(Line, "a.csv", [Line("a", 1)])
    storage.write_bytes("b.csv", b"name,number\na,b\n")
    storage.write_bytes("c.csv", b"\xff\xfe")
    storage.write_table("a.parquet", pa.table({"row_id": [1]}))
    for call in (
        lambda: storage.read_rows(Seal, "a.csv"),
        lambda: storage.read_rows(Line, "b.csv"),
        lambda: storage.read_rows(Line, "c.csv"),
        lambda: storage.read_table("a.parquet", ["value"]),
        lambda: storage.read_table("a.csv"),
    ):
        with pytest.raises(Damaged, match=r"/[abc]\.(csv|parquet) is damaged: .*; remove it"):
            call()


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # JSON in UTF-8 holds no lone surrogates.
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text("abc1"), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.text("abc1"), PLAIN))
def test_what_is_sealed_comes_back(value: dict[str, Any]) -> None:
    written = json.loads(json.dumps(sealed(value), indent=2, ensure_ascii=False))
    assert unsealed(written) == value
    with pytest.raises(ValueError, match="checksum"):
        unsealed({**written, "and": 1})


def test_keys_and_tuples_become_what_json_has() -> None:
    assert unsealed(json.loads(json.dumps(sealed({"a": {10: (1,), 9: 2}})))) == {
        "a": {"10": [1], "9": 2}
    }


def test_an_object_without_a_checksum_counts_as_it_is(storage: Storage) -> None:
    storage.write_json("a.json", {"of": "an earlier version"})
    assert storage.read_sealed("a.json") == {"of": "an earlier version"}


def _tree(storage: Storage) -> dict[str, Seal]:
    for number in range(4):
        storage.write_bytes(f"t/data/{number}.lance", bytes([number]) * 1000 * (number + 1))
    storage.write_bytes("t/_versions/1.manifest", b"manifest")
    return seals_of(storage, "t")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["data/2.lance", "_versions/1.manifest"])
def test_a_folder_is_known_by_all_of_its_files(storage: Storage, name: str, damage: str) -> None:
    found = seals_from_json(json.loads(json.dumps(seals_to_json(_tree(storage)))))
    assert broken_below(storage, "t", found) == {}
    storage.write_bytes("t/beside", b"another's")
    assert broken_below(storage, "t", found) == {}
    DAMAGES[damage](Path(storage.uri(f"t/{name}")))
    assert list(broken_below(storage, "t", found)) == [f"t/{name}"]


def test_of_a_large_folder_the_small_files_are_digested(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seals, "_FOLDER_FILES", 4)
    found = _tree(storage)
    digested = {name for name, seal in found.items() if seal.digest}
    assert digested == {"_versions/1.manifest", *(f"data/{n}.lance" for n in range(3))}
    assert {name for name, seal in seals_of(storage, "t", 3008).items() if seal.digest} == {
        "_versions/1.manifest",
        *(f"data/{n}.lance" for n in range(2)),
    }
    half = Path(storage.uri("t/data/3.lance"))
    DAMAGES["half"](half)
    assert broken_below(storage, "t", found) == {"t/data/3.lance": "has 2000 bytes, not 4000"}


def test_of_a_folder_so_much_is_compared_the_small_files_first(storage: Storage) -> None:
    sizes = {"t/a": 10, "t/b": 100, "t/c": 100}
    for path, size in sizes.items():
        storage.write_bytes(path, b"1" * size)
    found = seals_of(storage, "t")
    for path, size in sizes.items():
        storage.write_bytes(path, b"2" * size)
    assert [*broken_below(storage, "t", found)] == [*sizes]
    assert [*broken_below(storage, "t", found, 120)] == ["t/a", "t/b"]
    assert broken_below(storage, "t", found, 9) == {}
    storage.write_bytes("t/c", b"1")
    assert broken_below(storage, "t", found, 9) == {"t/c": "has 1 bytes, not 100"}


def test_seals_elsewhere_are_the_same(storage: Storage) -> None:
    memory = Storage(f"memory://{os.urandom(4).hex()}")
    try:
        assert _tree(memory) == _tree(storage)
        assert memory.seal("t/data") is None
        assert memory.seal("t/none") is None
        assert storage.seal("t/data") is None
        assert memory.seal("t/data/1.lance", most=10) == Seal(2000, None)
        memory.write_bytes("t/data/1.lance", b"x")
        assert broken_below(memory, "t", _tree(storage)) == {
            "t/data/1.lance": "has 1 bytes, not 2000"
        }
        with memory.noting() as written:
            memory.write_bytes("b", b"1")
            memory.write_json("c", {})
            memory.remove("c")
        assert written == {"b": Seal.of(b"1")}
    finally:
        memory.remove("t")


@pytest.mark.parametrize("value", [None, [], ["a"], {"a": 1}, {"a": ["1", None]}, {"a": [1, 2]}])
def test_what_are_no_seals(value: Any) -> None:
    with pytest.raises(ValueError, match="not "):
        seals_from_json(value)

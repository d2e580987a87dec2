"""Lists of JSON objects, cut by offsets: nothing is lost, whatever they look like."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from typing import Any

import pytest

from djsandbox_ray.dataset import json_files
from djsandbox_ray.dataset.prepare import split
from djsandbox_ray.dataset.source import Item, Rejection, Sample
from djsandbox_ray.dataset.source_files import find_files
from djsandbox_ray.errors import BadInput

MARKS = (("id",),)


def made(source: str, entry: dict[str, Any]) -> list[Item]:
    return [Sample(b"", json.dumps(entry), source)]


def read(path: Path, cut=json_files.list_of) -> list[Item]:
    (file,) = find_files(str(path), ())
    return [item for shard in split(cut(file, MARKS, made)) for item in shard.read()]


def entries(count: int, seed: int = 0) -> list[dict[str, Any]]:
    chance = random.Random(seed)
    letters = 'ab "\\é漢😀\n[]{},'
    return [
        {"id": n, "text": "".join(chance.choices(letters, k=chance.randrange(60))), "more": [[n]]}
        for n in range(count)
    ]


@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 20])
@pytest.mark.parametrize("indent", [None, 3])
@pytest.mark.parametrize("ascii", [True, False])
def test_entries_are_found_whatever_is_read_at_once(
    tmp_path, monkeypatch, chunk, indent, ascii
) -> None:
    monkeypatch.setattr(json_files, "_CHUNK", chunk)
    monkeypatch.setattr(json_files, "_SHARD_ENTRIES", 7)
    wanted = entries(23)
    text = json.dumps(wanted, indent=indent, ensure_ascii=ascii)
    path = tmp_path / "a.json"
    path.write_text(f"\ufeff \n{text}\n\n", encoding="utf-8")
    (file,) = find_files(str(path), ())
    assert json_files.is_list(file)
    shards = split(json_files.list_of(file, MARKS, made))
    assert [(shard.name, shard.rows) for shard in shards] == [
        ("a.json#0", 7),
        ("a.json#7", 7),
        ("a.json#14", 7),
        ("a.json#21", 2),
    ]
    items = [item for shard in shards for item in shard.read()]
    assert [json.loads(item.text) for item in items] == wanted
    assert [item.source for item in items] == [f"a.json#{number}" for number in range(23)]


@pytest.mark.parametrize("text", ["[]", " [ ] ", "[\n]\n"])
def test_an_empty_list_has_no_entries(tmp_path, text) -> None:
    (tmp_path / "a.json").write_text(text)
    assert read(tmp_path / "a.json") == []


def test_what_is_no_object_costs_itself(tmp_path) -> None:
    (tmp_path / "a.json").write_text('[{"id": 0}, 12, "x", [{"id": 5}], {"id": 4}]')
    told = [
        (item.source, item.reason if isinstance(item, Rejection) else item.text)
        for item in read(tmp_path / "a.json")
    ]
    assert told == [
        ("a.json#0", '{"id": 0}'),
        *((f"a.json#{number}", "bad_json") for number in (1, 2, 3)),
        ("a.json#4", '{"id": 4}'),
    ]


@pytest.mark.parametrize(
    ("damaged", "kept", "lost"),
    [
        ('[{"id": 0}, {"id": 1}, {"id": 2', 2, 1),
        ('[{"id": 0}, {"id": 1}', 2, 1),
        ('[{"id": 0}, {"id": "1}, {"id": 2}, {"id": 3}]', 1, 3),
        ('[{"id": 0}, {"id": 1}}, {"id": 2}, {"id": 3}]', 2, 2),
        ('[{"id": 0} {"id": 1}]', 1, 1),
        ('[{"id": 0},, {"id": 1}]', 1, 1),
        ('[{"id": 0}, ]', 1, 1),
        ('[{"id": 0}, {!id": 1}, {"id": 2}]', 1, 2),
        ('[{"id": 0}] [{"id": 1}, {"id": 2}]', 1, 2),
        ('[{"id": 0}, ' + "[" * 200_000 + '{"id": 1}', 1, 1),
        ("[nothing]", 0, 1),
        ('{"id": 0}', 0, 1),
    ],
)
def test_the_rest_of_a_damaged_list_is_counted(tmp_path, damaged, kept, lost) -> None:
    (tmp_path / "a.json").write_text(damaged)
    *samples, last = read(tmp_path / "a.json")
    assert len(samples) == kept
    assert isinstance(last, Rejection)
    assert (last.source, last.reason, last.lost) == (f"a.json#{kept}", "broken_shard", lost)


def test_bytes_that_are_no_text_keep_offsets_true(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(json_files, "_SHARD_ENTRIES", 1)
    (tmp_path / "a.json").write_bytes(b'[{"id": "\xff\xe9"}, {"id": "\xc3\xa9"}, {"id": 3}]')
    assert [json.loads(item.text)["id"] for item in read(tmp_path / "a.json")] == [
        "\udcff\udce9",
        "é",
        3,
    ]


def test_a_list_that_changes_meanwhile_stops_the_run(tmp_path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(entries(3)))
    (file,) = find_files(str(path), ())
    (shard,) = split(json_files.list_of(file, MARKS, made))
    path.write_text("[{")
    with pytest.raises(BadInput, match=r"a\.json has changed while it was read"):
        list(shard.read())


def test_entries_too_deep_for_who_reads_them_cost_the_rest(tmp_path) -> None:
    deep = f'{{"id": 1, "x": {"[" * 600}{"]" * 600}}}'
    (tmp_path / "a.json").write_text(f'[{{"id": 0}}, {deep}, {{"id": 2}}]')
    (file,) = find_files(str(tmp_path / "a.json"), ())
    (shard,) = split(json_files.list_of(file, MARKS, made))

    def read_below(calls: int) -> list[Item]:
        return read_below(calls - 1) if calls else list(shard.read())

    assert [item.source for item in read_below(0)] == ["a.json#0", "a.json#1", "a.json#2"]
    first, rest = read_below(450)
    assert isinstance(first, Sample)
    assert (rest.source, rest.reason, rest.lost) == ("a.json#1", "broken_shard", 2)


TWICE = '{"id": 1, "text": "a", "text": "b", "more": {"k": 1, "k": 2}}'


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        (f'{{"id": 0}}\n{TWICE}\n{{"id": 2}}\n', json_files.lines_of),
        (f'[{{"id": 0}}, {TWICE}, {{"id": 2}}]', json_files.list_of),
    ],
    ids=["lines", "list"],
)
def test_a_key_that_stands_twice_is_told(tmp_path, text: str, cut) -> None:
    """JSON does not say which of two counts; for Python, and whoever follows it, the last does."""
    (tmp_path / "a.jsonl").write_text(text)
    *samples, remark, last = read(tmp_path / "a.jsonl", cut)
    assert [json.loads(one.text)["id"] for one in (*samples, last)] == [0, 1, 2]
    assert json.loads(samples[1].text) == {"id": 1, "text": "b", "more": {"k": 2}}
    assert (remark.source, remark.what) == ("a.jsonl#1", json_files.KEY_TWICE)
    assert "'k, text'" in remark.detail


@pytest.mark.parametrize("cut", [json_files.lines_of, json_files.list_of])
def test_a_number_too_long_to_be_read_costs_nothing(tmp_path, cut) -> None:
    entries = [f'{{"id": {n}, "large": {"-" * n}{"9" * 5000}}}' for n in (0, 1)]
    text = "\n".join(entries) if cut is json_files.lines_of else f"[{', '.join(entries)}]"
    (tmp_path / "a.jsonl").write_text(text)
    found = [json.loads(item.text) for item in read(tmp_path / "a.jsonl", cut)]
    assert found == [{"id": 0, "large": math.inf}, {"id": 1, "large": -math.inf}]


def test_lines_are_objects_too(tmp_path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": 1}\n\n{"id": 2} {"id": 3}\n{"id": 4}\n')
    (file,) = find_files(str(tmp_path / "a.jsonl"), ())
    assert not json_files.is_list(file)
    items = read(tmp_path / "a.jsonl", json_files.lines_of)
    assert [item.source for item in items] == [f"a.jsonl#{line}" for line in (0, 2, 3)]
    assert (items[1].reason, items[1].lost) == ("bad_json", 2)

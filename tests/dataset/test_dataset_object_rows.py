"""Conversations in Parquet files."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from djsandbox_ray.dataset.faults import META_LEFT_OUT
from djsandbox_ray.dataset.media import Turn
from djsandbox_ray.dataset.prepare import prepared
from djsandbox_ray.dataset.source import Rejection, Remark, Sample
from djsandbox_ray.errors import BadInput

TURNS = (Turn("user", "<__dj__image> What?"), Turn("assistant", "A star."))
TALK = [{"role": "user", "content": "<image> What?"}, {"role": "assistant", "content": "A star."}]


@pytest.fixture
def read(open_source, tmp_path: Path):
    def read(columns: dict[str, Any], **options: Any) -> list[Any]:
        (tmp_path / "data").mkdir(exist_ok=True)
        pq.write_table(pa.table(columns), tmp_path / "data" / "a.parquet", row_group_size=2)
        options = {"path": str(tmp_path / "data"), "content": "conversations", **options}
        source = open_source("parquet", **options)
        items = [
            item for shard in pickle.loads(pickle.dumps(prepared(source))) for item in shard.read()
        ]
        assert len(source.found()) == 1
        return items

    return read


@pytest.mark.parametrize("form", ["bytes", "list", "struct", "path"])
@pytest.mark.parametrize("key", ["conversations", "messages", "turns"])
def test_turns_and_images_of_every_form(read, jpeg, tmp_path, form, key) -> None:
    images: dict[str, list[Any]] = {
        "bytes": [jpeg(0), None, jpeg(1)],
        "list": [[jpeg(0)], [], [jpeg(1)]],
        "struct": [[{"bytes": jpeg(0), "path": "x"}], None, [{"bytes": None, "path": "1.jpg"}]],
        "path": ["0.jpg", None, "1.jpg"],
    }
    (tmp_path / "data").mkdir()
    for number in range(2):
        (tmp_path / "data" / f"{number}.jpg").write_bytes(jpeg(number))
    plain = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "You."}]
    columns = {"images": images[form], key: [TALK, plain, TALK], "id": [7, 8, 9]}
    first, second, third = read(columns, meta_columns=["id"])
    assert (first.turns, first.text, first.source) == (TURNS, "A star.", "a.parquet#0")
    assert [item.meta for item in (first, second, third)] == [{"id": n} for n in (7, 8, 9)]
    assert [one.data for one in (*first.all_media, *third.all_media)] == [jpeg(0), jpeg(1)]
    assert (second.text, second.all_media) == ("You.", ())


def test_columns_of_other_names_are_chosen(read, jpeg) -> None:
    columns = {"photo": [jpeg(0)], "images": [jpeg(1)], "talk": [TALK], "turns": [5]}
    (item,) = read(columns, turns="talk", image="photo")
    assert [one.data for one in item.all_media] == [jpeg(0)]
    assert item.turns == TURNS


def test_questions_with_what_was_said_before(read) -> None:
    columns = {
        "query": ["c", "e"],
        "response": ["d", None],
        "history": [[["a", "b"]], None],
        "system": ["Be brief.", None],
    }
    first, second = read(columns)
    assert [turn.text for turn in first.turns] == ["a", "b", "c", "d"]
    assert first.meta == {"system": "Be brief."}
    assert (second.source, second.reason) == ("a.parquet#1", "bad_turns")


def test_rows_that_do_not_fit_are_set_aside(read, jpeg) -> None:
    columns = {"image": [jpeg(0), None, jpeg(0)[:90]], "messages": [None, TALK, TALK]}
    items = read(columns)
    assert all(isinstance(item, Rejection) for item in items)
    assert [(item.source, item.reason) for item in items] == [
        ("a.parquet#0", "bad_turns"),
        ("a.parquet#1", "bad_tokens"),
        ("a.parquet#2", "bad_image"),
    ]


def test_side_data_never_cost_a_conversation(read, jpeg) -> None:
    columns = {"image": [jpeg(0)], "messages": [TALK], "raw": [[b"x"]]}
    sample, remark = read(columns, meta_columns=["raw"])
    assert isinstance(sample, Sample)
    assert isinstance(remark, Remark)
    assert (sample.meta, remark.what) == ({}, META_LEFT_OUT)


@pytest.mark.parametrize(
    ("columns", "options", "said"),
    [
        ({"text": ["a"]}, {}, "a.parquet has no column of turns: none of conversations, messages"),
        ({"turns": [1], "messages": [1]}, {}, "'messages' and 'turns' may hold the turns"),
        ({"turns": [1], "image": [1], "images": [1]}, {}, "'image' and 'images' may hold"),
        ({"turns": [1]}, {"turns": "talk"}, "a.parquet has no column 'talk'"),
        ({"turns": [1]}, {"image": "photo"}, "a.parquet has no column 'photo'"),
        ({"turns": [1], "raw": [b"x"]}, {"meta_columns": ["raw"]}, "holds bytes"),
    ],
)
def test_columns_that_cannot_be_meant_are_an_error(read, columns, options, said) -> None:
    with pytest.raises(BadInput, match=said):
        read(columns, **options)

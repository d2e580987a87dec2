from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
from PIL import Image

from djsandbox_ray.dataset.huggingface import first_split
from djsandbox_ray.dataset.prepare import prepared
from djsandbox_ray.dataset.recognise import recognise
from djsandbox_ray.dataset.source import Rejection, Sample
from djsandbox_ray.errors import BadInput


def items(source) -> list[Sample | Rejection]:
    return [item for shard in prepared(source) for item in shard.read()]


@pytest.fixture
def saved(tmp_path: Path, pairs) -> Callable[..., datasets.Dataset]:
    """Return ten pairs as Hugging Face's library holds them."""

    def saved() -> datasets.Dataset:
        columns = {
            "image": [{"bytes": image, "path": None} for image, _ in pairs],
            "text": [text for _, text in pairs],
            "label": [number % 2 for number in range(10)],
        }
        kinds = {
            "image": datasets.Image(),
            "text": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
        }
        return datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))

    return saved


def test_sharded_files_are_read_in_their_order(open_source, saved, tmp_path, pairs) -> None:
    saved().save_to_disk(tmp_path / "x", num_shards=3)
    source = open_source("huggingface", path=str(tmp_path / "x"), meta_columns=["label"])
    read = items(source)
    assert [(item.image, item.text) for item in read] == pairs
    assert read[3].meta == {"label": 1}
    assert read[0].source == "data-00000-of-00003.arrow#0"
    assert source.class_names("label") == ("cat", "dog")
    assert source.class_names("other") == ()
    assert len(source.shards()) == 3


def test_pictures_made_in_python_are_read(open_source, tmp_path) -> None:
    pictures = [Image.new("RGB", (9, 7), (shade, 0, 0)) for shade in range(3)]
    made = datasets.Dataset.from_dict({"img": pictures, "caption": ["a", "b", "c"]})
    made.save_to_disk(tmp_path / "x")
    source = open_source("huggingface", path=str(tmp_path / "x"))
    read = items(source)
    assert [Image.open(io.BytesIO(item.image)).size for item in read] == [(9, 7)] * 3
    assert source.found() == ("captions from the column 'caption', images from 'img'",)


def test_conversations_are_read(open_source, pairs, tmp_path) -> None:
    talk = [{"from": "human", "value": "<image> What?"}, {"from": "gpt", "value": "A star."}]
    columns = {
        "images": [[{"bytes": pairs[0][0], "path": None}], []],
        "conversations": [talk, [{**talk[0], "value": "Who?"}, talk[1]]],
        "id": [4, 5],
    }
    kinds = {
        "images": datasets.Sequence(datasets.Image()),
        "conversations": [{key: datasets.Value("string") for key in ("from", "value")}],
        "id": datasets.Value("int64"),
    }
    made = datasets.Dataset.from_dict(columns, features=datasets.Features(kinds))
    made.save_to_disk(tmp_path / "x")
    options = {"content": "conversations", "meta_columns": ["id"]}
    source = open_source("huggingface", path=str(tmp_path / "x"), **options)
    first, second = items(source)
    assert [turn.text for turn in first.turns] == ["<__dj__image> What?", "A star."]
    assert [one.data for one in first.all_media] == [pairs[0][0]]
    assert (len(second.turns), second.all_media, second.meta) == (2, (), {"id": 5})
    assert source.found() == ("conversations from the columns 'conversations', 'images'",)


def test_one_of_several_splits_is_chosen(open_source, saved, tmp_path) -> None:
    both = datasets.DatasetDict({"train": saved(), "test": saved().select(range(4))})
    both.save_to_disk(tmp_path / "x")
    path = str(tmp_path / "x")
    assert len(items(open_source("huggingface", path=path, split="test"))) == 4
    assert len(items(open_source("huggingface", path=f"{path}/test"))) == 4
    with pytest.raises(BadInput, match=r"split: needed: .* has train, test"):
        open_source("huggingface", path=path).shards()
    with pytest.raises(BadInput, match="'val', which is not there"):
        open_source("huggingface", path=path, split="val").shards()


def test_a_file_that_is_cut_off_loses_its_rest(open_source, saved, tmp_path) -> None:
    saved().save_to_disk(tmp_path / "x", num_shards=2)
    first, second = sorted((tmp_path / "x").glob("*.arrow"))
    first.write_bytes(first.read_bytes()[:-4000])
    second.write_bytes(b"rubbish")
    read = items(open_source("huggingface", path=str(tmp_path / "x")))
    assert [item.reason for item in read if isinstance(item, Rejection)] == ["broken_shard"] * 2


@pytest.mark.parametrize(
    ("is_cut", "said"),
    [(True, "it has no mark of its end"), (False, "it goes on behind the mark of its end")],
)
def test_a_stream_that_ends_early_loses_its_rest(open_source, tmp_path, is_cut, said) -> None:
    """Arrow takes a cut between two batches, and a size of 0, for the end."""
    path = tmp_path / "a.arrow"
    (tmp_path / "state.json").write_text('{"_data_files": [{"filename": "a.arrow"}]}')
    table = pa.table({"text": [f"text number {number}" for number in range(12)]})
    ends = []
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        for start in range(0, 12, 3):
            stream.write_table(table.slice(start, 3))
            ends.append(file.tell())
    whole, end = path.read_bytes(), ends[1]
    rest = b"" if is_cut else whole[end : end + 4] + bytes(4) + whole[end + 8 :]
    path.write_bytes(whole[:end] + rest)
    source = open_source("huggingface", path=str(tmp_path), content="texts")
    *samples, lost = items(source)
    assert [item.text for item in samples] == table["text"].to_pylist()[:6]
    assert (lost.reason, lost.source) == ("broken_shard", "a.arrow#6")
    assert said in lost.detail
    assert lost.lost == (1 if is_cut else 6)


def test_offsets_that_lead_out_of_the_memory_cost_their_rows(open_source, tmp_path) -> None:
    path = tmp_path / "a.arrow"
    (tmp_path / "state.json").write_text('{"_data_files": [{"filename": "a.arrow"}]}')
    table = pa.table({"text": ["a" * 300, "b" * 300, "c"]})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
        stream.write_table(table)
        stream.write_table(table)
    offset = (300).to_bytes(4, "little")
    far = (1 << 30).to_bytes(4, "little")
    path.write_bytes(path.read_bytes().replace(offset + (600).to_bytes(4, "little"), far * 2, 1))
    source = open_source("huggingface", path=str(tmp_path), content="texts")
    lost, *samples = [item for shard in prepared(source) for item in shard.read()]
    assert (lost.source, lost.reason, lost.lost) == ("a.arrow#0", "broken_shard", 3)
    assert [item.source for item in samples] == ["a.arrow#3", "a.arrow#4", "a.arrow#5"]


def test_a_name_of_the_hub_is_not_downloaded(open_source) -> None:
    with pytest.raises(BadInput, match=r"datasets\.load_dataset\(NAME\)\.save_to_disk"):
        open_source("huggingface", path="user/name").shards()


@pytest.mark.parametrize("splits", ["{}", '{"splits": "train"}', '{"splits": [1, 2]}'])
def test_splits_without_names_are_an_error(open_source, tmp_path, splits) -> None:
    (tmp_path / "dataset_dict.json").write_text(splits)
    with pytest.raises(BadInput, match="has no list of names under 'splits'"):
        open_source("huggingface", path=str(tmp_path)).shards()
    with pytest.raises(BadInput, match="has no list of names under 'splits'"):
        first_split(str(tmp_path))


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("{", "cannot be read"),
        ("[]", "holds no object"),
        ('{"_data_files": []}', "names no files"),
        ('{"_data_files": 5}', "names no files"),
        ('{"_data_files": ["a.arrow"]}', "names no files"),
        (json.dumps({"_data_files": [{"filename": "../x.arrow"}]}), "names no files of its folder"),
        (json.dumps({"_indices_data_files": [{"filename": "i"}]}), "flatten_indices"),
    ],
)
def test_a_state_that_says_nothing_is_an_error(open_source, saved, tmp_path, state, said) -> None:
    saved().save_to_disk(tmp_path / "x")
    (tmp_path / "x" / "state.json").write_text(state)
    with pytest.raises(BadInput, match=said):
        open_source("huggingface", path=str(tmp_path / "x")).shards()


def test_videos_and_texts_are_read(open_source, tmp_path, video) -> None:
    clips = [{"bytes": video(number), "path": None} for number in range(2)]
    kinds = datasets.Features({"video": datasets.Video(), "caption": datasets.Value("string")})
    made = datasets.Dataset.from_dict({"video": clips, "caption": ["a", "b"]}, features=kinds)
    made.save_to_disk(tmp_path / "x")
    path = str(tmp_path / "x")
    read = items(open_source("huggingface", path=path, content="videos"))
    assert [(item.text, item.media[0].data) for item in read] == [("a", video(0)), ("b", video(1))]
    read = items(open_source("huggingface", path=path, content="texts"))
    assert [(item.text, item.all_media) for item in read] == [("a", ()), ("b", ())]


@pytest.mark.parametrize(
    ("splits", "chosen"),
    [(("test", "train"), "train"), (("b", "train_small"), "train_small"), (("b", "a"), "b")],
)
def test_of_several_splits_that_for_training_is_recognised(saved, tmp_path, splits, chosen) -> None:
    sizes = {name: 4 + place for place, name in enumerate(splits)}
    made = {name: saved().select(range(size)) for name, size in sizes.items()}
    datasets.DatasetDict(made).save_to_disk(tmp_path / "x")
    found = recognise(str(tmp_path / "x"))
    assert found.options == {"type": "huggingface", "path": str(tmp_path / "x"), "split": chosen}
    assert found.found == (f"split {chosen!r} of {', '.join(splits)}",)
    assert found.usable == sizes[chosen]


def test_a_single_split_is_recognised_without_a_choice(saved, tmp_path) -> None:
    saved().save_to_disk(tmp_path / "x")
    assert "split" not in recognise(str(tmp_path / "x")).options
    datasets.DatasetDict({"all": saved()}).save_to_disk(tmp_path / "y")
    found = recognise(str(tmp_path / "y"))
    assert (found.usable, found.found) == (10, ())
    assert "split" not in found.options

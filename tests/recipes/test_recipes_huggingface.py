"""Rows as a dataset of Hugging Face: read by its own library, and back by our sources."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from acceptance_world import clip, picture, write_documents, write_table
from PIL import Image

from djsandbox_ray.dataset.media import Media, Turn
from djsandbox_ray.dataset.source import SOURCES, Rejection, Sample
from djsandbox_ray.dataset.writers.materialise import MARKER, materialise
from djsandbox_ray.errors import BadInput
from djsandbox_ray.records import Dataset
from djsandbox_ray.storage.store import Storage

FORM = "huggingface"


def image(seed: int) -> Media:
    return Media("image", picture(8, 9, seed, "PNG"))


def video(seed: int) -> Media:
    return Media("video", clip(seed))


def features(path: Path) -> Any:
    """Return what the library takes the columns of a file for."""
    from datasets import Features

    return Features.from_arrow_schema(pq.read_schema(path))


def read_back(folder: Path, **options: Any) -> list[Sample]:
    kind = SOURCES.get("parquet")
    given = {"type": "parquet", "path": str(folder), **options}
    items = [
        item for shard in kind(kind.Config.model_validate(given)).shards() for item in shard.read()
    ]
    assert not [item for item in items if isinstance(item, Rejection)]
    return [item for item in items if isinstance(item, Sample)]


@pytest.fixture
def pairs(storage: Storage) -> Dataset:
    images = [picture(8 + i % 5, 9, i, ("JPEG", "PNG")[i % 2]) for i in range(250)]
    texts = [f"caption {i} 漢字" for i in range(250)]
    return write_table(storage, texts, images, [{"label": i} for i in range(250)])


def test_pairs_are_what_the_library_loads(
    storage: Storage, pairs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from datasets import Image as ImageFeature
    from datasets import Value, load_dataset

    out = tmp_path / "out"
    rows = np.arange(3, 243)
    done = materialise(
        storage, pairs, rows, str(out), form=FORM, rows_per_shard=150, about=["The pool `a/high`."]
    )
    assert (done.rows, done.shards) == (240, 2)
    assert {path.name for path in out.iterdir()} == {
        *("000000.parquet", "000001.parquet", "README.md", MARKER)
    }
    loaded = load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.num_rows == 240
    assert loaded.features["image"] == ImageFeature()
    assert loaded.features["text"] == Value("string")
    assert loaded[0]["row_id"] == 3
    assert isinstance(loaded[0]["image"], Image.Image)
    assert loaded[0]["image"].size == (8 + 3 % 5, 9)
    assert loaded[239]["text"] == "caption 242 漢字"
    found = read_back(out)
    assert [sample.text for sample in found] == [f"caption {i} 漢字" for i in rows]
    assert found[0].image == picture(8 + 3 % 5, 9, 3, "PNG")
    assert [sample.meta for sample in found] == [{"label": i} for i in rows]


def test_the_card_says_what_the_rows_are(storage: Storage, pairs: Dataset, tmp_path: Path) -> None:
    about = ["The pool `a/high` of the run `demo`."]
    materialise(storage, pairs, np.arange(7), str(tmp_path / "out"), form=FORM, about=about)
    _, head, text = (tmp_path / "out" / "README.md").read_text().split("---\n", 2)
    facts = yaml.safe_load(head)
    (config,) = facts["configs"]
    assert config["data_files"] == [{"split": "train", "path": "*.parquet"}]
    assert "djsandbox-ray" in facts["tags"]
    assert about[0] in text
    assert "7 rows" in text


def test_a_card_that_somebody_has_written_into_stays(
    storage: Storage, pairs: Dataset, tmp_path: Path
) -> None:
    out, options = tmp_path / "out", {"form": FORM, "rows_per_shard": 3}
    materialise(storage, pairs, np.arange(7), str(out), **options)
    (out / "README.md").write_text("# Mine\n")
    (out / "000001.parquet").unlink()
    assert materialise(storage, pairs, np.arange(7), str(out), **options).written == 1
    assert (out / "README.md").read_text() == "# Mine\n"


def test_a_killed_call_is_resumed_and_gives_the_same_bytes(
    storage: Storage, pairs: Dataset, tmp_path: Path
) -> None:
    class Killed(BaseException):
        pass

    def kill(done: int, total: int) -> None:
        raise Killed

    options: dict[str, Any] = {"form": FORM, "rows_per_shard": 100}
    with pytest.raises(Killed):
        materialise(storage, pairs, np.arange(250), str(tmp_path / "a"), progress=kill, **options)
    assert not (tmp_path / "a" / "README.md").exists()
    for name in ("a", "b"):
        materialise(storage, pairs, np.arange(250), str(tmp_path / name), **options)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_videos_have_a_column_of_their_kind(storage: Storage, tmp_path: Path) -> None:
    from datasets import Video

    samples = [
        Sample(b"", "a clip", "", {"fps": 12}, (video(1),)),
        Sample(b"", "another", "", media=(video(2),)),
    ]
    dataset = write_documents(storage, samples)
    materialise(storage, dataset, np.arange(2), str(tmp_path / "out"), form=FORM)
    path = tmp_path / "out" / "000000.parquet"
    assert features(path)["video"] == Video()
    first = pq.read_table(path)["video"][0].as_py()
    assert first == {"bytes": clip(1), "path": "000000000.mp4"}
    found = read_back(tmp_path / "out", content="videos")
    assert [(one.text, one.meta) for one in found] == [("a clip", {"fps": 12}), ("another", {})]
    assert [one.media[0].data for one in found] == [clip(1), clip(2)]


def test_texts_need_no_media(storage: Storage, tmp_path: Path) -> None:
    dataset = write_documents(storage, [Sample(b"", text, "") for text in ("one", "two")])
    materialise(storage, dataset, np.arange(2), str(tmp_path / "out"), form=FORM)
    assert list(features(tmp_path / "out" / "000000.parquet")) == ["row_id", "text", "meta"]
    assert [one.text for one in read_back(tmp_path / "out", content="texts")] == ["one", "two"]


TALK = (
    Turn("user", "<__dj__image> what is <__dj__video> this?"),
    Turn("assistant", "a star"),
)


def test_conversations_have_lists_of_media_and_messages(storage: Storage, tmp_path: Path) -> None:
    from datasets import Image as ImageFeature
    from datasets import List, Video

    samples = [
        Sample(b"", "a star", "", {"id": "x"}, (image(4), video(4)), TALK),
        Sample(b"", "yes", "", turns=(Turn("user", "no?"), Turn("assistant", "yes"))),
    ]
    dataset = write_documents(storage, samples)
    out = tmp_path / "out"
    # One row per file: the columns do not hang on what a file's rows happen to have.
    materialise(storage, dataset, np.arange(2), str(out), form=FORM, rows_per_shard=1)
    for name in ("000000.parquet", "000001.parquet"):
        known = features(out / name)
        assert known["images"] == List(ImageFeature())
        assert known["videos"] == List(Video())
    said = pq.read_table(out / "000000.parquet")["messages"][0].as_py()
    assert said == [
        {"role": "user", "content": "<image> what is <video> this?"},
        {"role": "assistant", "content": "a star"},
    ]
    found = read_back(out, content="conversations")
    assert [one.turns for one in found] == [one.turns for one in samples]
    assert [[m.digest for m in one.media] for one in found] == [
        [m.digest for m in one.media] for one in samples
    ]


def test_documents_have_any_number_of_images(storage: Storage, tmp_path: Path) -> None:
    samples = [
        Sample(b"", "no media", ""),
        Sample(b"", "a <__dj__image> b <__dj__image>", "", media=(image(1), image(2))),
        Sample(b"", "behind a video", "", media=(video(1), image(1))),
    ]
    dataset = write_documents(storage, samples)
    materialise(storage, dataset, np.arange(3), str(tmp_path / "out"), form=FORM)
    table = pq.read_table(tmp_path / "out" / "000000.parquet")
    assert [len(found) for found in table["images"].to_pylist()] == [0, 2, 1]
    text = table["text"].to_pylist()
    assert text[:2] == ["no media", "a <__dj__image> b <__dj__image>"]
    assert text[2].startswith("<__dj__video> <__dj__image> behind")


def test_two_videos_in_one_column_are_refused(storage: Storage, tmp_path: Path) -> None:
    samples = [
        Sample(b"", "one", "", media=(video(1),)),
        Sample(b"", "two", "", media=(video(1),) * 2),
    ]
    dataset = write_documents(storage, samples)
    with pytest.raises(BadInput, match=r"row 1 has 2 media.*jsonl holds any samples"):
        materialise(storage, dataset, np.arange(2), str(tmp_path / "out"), form=FORM)
    assert not list((tmp_path / "out").glob("*.parquet"))


def test_an_image_that_is_damaged_is_named(storage: Storage, tmp_path: Path) -> None:
    dataset = write_table(storage, ["a"], [b"\xff\xd8\xffjunk"], [{}])
    with pytest.raises(BadInput, match="row 0 of the sample table is damaged"):
        materialise(storage, dataset, np.arange(1), str(tmp_path / "out"), form=FORM)

"""``djsandbox init`` on what begins with a base model, if trained on: it ends in a recipe."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import held_data as held
import pytest
from held_data import caption
from typer.testing import CliRunner

from djsandbox_ray.cli import app
from djsandbox_ray.config import load_config
from djsandbox_ray.dataset.recognise import recognise
from djsandbox_ray.errors import BadInput
from djsandbox_ray.workflows.foresight.plan import make_plan

TEXT = ["text_length_filter", "special_characters_filter"]
TEXTS = [*TEXT, "words_num_filter", "alphanumeric_filter", "character_repetition_filter"]
IMAGES = ["image_aspect_ratio_filter", "image_shape_filter", "image_size_filter"]
VIDEOS = ["video_duration_filter", "video_resolution_filter", "video_aspect_ratio_filter"]


@dataclass(frozen=True)
class Expected:
    """What is found, beside the path."""

    options: dict[str, Any]
    modalities: tuple[str, ...]
    first: str = "{}"
    """Its text; ``{}`` stands for the first caption."""
    operators: list[str] = field(default_factory=lambda: TEXTS)
    below: dict[str, str] = field(default_factory=dict)
    """Folders of media, below that of the data."""


def of_videos(type: str, first: str = "{}", **options: Any) -> Expected:
    operators = [*TEXT, *VIDEOS] if first != "a video" else VIDEOS
    below = {key: options.pop(key) for key in ("videos",) if key in options}
    section = {"type": type, "content": "videos", **options}
    return Expected(section, ("text", "video"), first, operators, below)


def of_texts(type: str) -> Expected:
    return Expected({"type": type, "content": "texts"}, ("text",))


def of_talks(type: str, first: str = "{}", images: str = "", **options: Any) -> Expected:
    there = ("text", "image") if type in ("interleaved", "jsonl") else ("text", "image", "turns")
    below = {"images": images} if images else {}
    return Expected({"type": type, **options}, there, first, [*TEXT, *IMAGES], below)


FOUND = {
    held.videos: of_videos("folder", "a video", caption="a video"),
    held.actions: of_videos("folder", "a video of a jump", caption="a video of a {label}"),
    held.videofolder: of_videos("folder"),
    held.csv_of_videos: of_videos("csv"),
    held.webvid: of_videos("csv", videos="videos"),
    held.jsonl_of_videos: of_videos("jsonl"),
    held.parquet_of_videos: of_videos("parquet"),
    held.tar_of_videos: of_videos("webdataset"),
    held.saved_videos: of_videos("huggingface"),
    held.csv_of_texts: of_texts("csv"),
    held.jsonl_of_texts: of_texts("jsonl"),
    held.parquet_of_texts: of_texts("parquet"),
    held.tar_of_texts: of_texts("webdataset"),
    held.saved_texts: of_texts("huggingface"),
    held.llava: of_talks("llava", images="pictures"),
    held.llava_lines: of_talks("llava", images="pictures"),
    held.chats: of_talks("parquet", content="conversations"),
    held.saved_chats: of_talks("huggingface", content="conversations"),
    held.mmc4: of_talks("interleaved", "<__dj__image> {}", images="pictures"),
    held.obelics: of_talks("interleaved", "<__dj__image>\n{}"),
    held.documents: of_talks("jsonl", "<__dj__image> {} <__dj__image> and another", content="any"),
}


@pytest.mark.parametrize("write", FOUND, ids=lambda write: write.__name__)
def test_it_is_recognised_and_its_configuration_accepted(init, tmp_path, write) -> None:
    data, expected = tmp_path / "my data", FOUND[write]
    write(data)
    said = init(str(data))
    config = load_config("my-data.yaml", (), str(tmp_path / "sandbox"))
    found = recognise(str(data))
    below = {key: str(data / folder) for key, folder in expected.below.items()}
    assert found.options == {**expected.options, **below, "path": str(data)}
    assert found.modalities == expected.modalities
    assert found.rejected == 0
    assert f"content: {found.content} ({', '.join(expected.modalities)})\n" in said
    assert found.first.text == expected.first.format(caption(0))
    assert "a run writes a recipe (workflow: recipe_only). A training on" in said
    written = Path("my-data.yaml").read_text()
    for content, example in (("videos", "t2v"), ("conversations", "llava")):
        assert (f"--example {example}." in said) == (found.content == content)
        assert (f"--example {example}." in written) == (found.content == content)
    assert (config.operators, config.workflow) == (expected.operators, "recipe_only")
    assert (config.dataset.type, config.dataset.content) == (
        expected.options["type"],
        found.content,
    )
    assert make_plan(config)


@pytest.mark.slow
@pytest.mark.parametrize("write", FOUND, ids=lambda write: write.__name__)
def test_what_is_written_runs(ray_cluster: None, init, tmp_path, write) -> None:
    write(tmp_path / "data")
    init(str(tmp_path / "data"), "--output", "my.yaml")
    result = CliRunner().invoke(app, ["run", "my.yaml"], catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_the_first_line_may_be_of_another_kind_than_the_rest(tmp_path) -> None:
    names = held.photos(tmp_path)
    lines = [{"text": "alone"}, *({"text": caption(n), "images": [names[n]]} for n in range(9))]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = recognise(str(tmp_path))
    assert (found.content, found.usable, found.rejected) == ("any", 10, 0)


def test_a_few_lines_that_are_no_pairs_change_nothing(tmp_path) -> None:
    names = held.photos(tmp_path)
    lines = [{"text": caption(n), "images": [names[n]]} for n in range(9)] + [{"text": "alone"}]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = recognise(str(tmp_path))
    assert (found.content, found.usable, found.rejected) == ("pairs", 9, 1)


def test_images_that_are_missing_do_not_make_texts_of_pairs(init, tmp_path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "list.csv").write_text("caption,photo\none,1.jpg\ntwo,2.jpg\n")
    with pytest.raises(BadInput, match="has no column of a usual name for images"):
        init(str(tmp_path / "data"))
    (tmp_path / "data" / "list.csv").write_text("caption,path\none,1.jpg\ntwo,2.jpg\n")
    with pytest.raises(BadInput, match=r"taken for csv, but none .*missing_image"):
        init(str(tmp_path / "data"))
    (tmp_path / "data" / "list.csv").write_text("caption,url\none,http://a/1\n")
    with pytest.raises(BadInput, match="names images by addresses only"):
        init(str(tmp_path / "data"))


def test_videos_that_are_missing_are_an_error_of_videos(init, tmp_path) -> None:
    (tmp_path / "list.csv").write_text("caption,path\none,1.mp4\ntwo,2.mp4\n")
    with pytest.raises(BadInput, match=r"csv with content: videos, but none .*missing_video"):
        init(str(tmp_path / "list.csv"))
    assert not list(tmp_path.glob("*.yaml"))


def test_bytes_that_nobody_named_do_not_make_texts(init, tmp_path) -> None:
    held.parquet_of_pixels(tmp_path / "data")
    with pytest.raises(BadInput, match="has no column of a usual name for images"):
        init(str(tmp_path / "data"))


def test_texts_that_are_all_the_same_are_refused(init, tmp_path) -> None:
    (tmp_path / "a.csv").write_text("text\n" + "the same\n" * 9)
    with pytest.raises(BadInput, match=r"all of the 9 rows .* have the text 'the same'"):
        init(str(tmp_path / "a.csv"))


def test_no_more_videos_are_looked_at_than_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("djsandbox_ray.dataset.recognise._WATCHED", 5)
    held.csv_of_videos(tmp_path / "data")
    found = recognise(str(tmp_path / "data"))
    assert (found.usable, found.rejected) == (5, 0)

"""Conversations in the shapes that people hold, from lists and from lines."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from djsandbox_ray.dataset.media import Turn, VideosConfig
from djsandbox_ray.dataset.prepare import ANY_VIDEO, prepared
from djsandbox_ray.dataset.references import read_reference
from djsandbox_ray.dataset.source import Rejection, Sample
from djsandbox_ray.identity import media_digest

ASK, SAY = "<image>\nWhat is it?", "A star."
TURNS = (Turn("user", "<__dj__image>\nWhat is it?"), Turn("assistant", SAY))


def said(*texts: str, who: str = "from", what: str = "value") -> list[dict[str, str]]:
    return [{who: ("human", "gpt")[n % 2], what: text} for n, text in enumerate(texts)]


@pytest.fixture
def read(open_source, tmp_path: Path, jpeg, video) -> Callable[..., list[Any]]:
    """Write conversations, with two images and a video in a folder of their own; read them."""
    files = {"0.jpg": jpeg(0), "1.jpg": jpeg(1), "0.mp4": video(0)}
    for name, data in files.items():
        (tmp_path / "media" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "media" / name).write_bytes(data)

    def read(
        *entries: Any, name: str = "a.json", videos: VideosConfig = ANY_VIDEO, **options: Any
    ) -> list[Any]:
        lines = "".join(f"{json.dumps(entry)}\n" for entry in entries)
        (tmp_path / name).write_text(json.dumps(entries) if name == "a.json" else lines)
        options = {"path": str(tmp_path / name), "images": str(tmp_path / "media"), **options}
        source = open_source("llava", **options)
        shards = pickle.loads(pickle.dumps(prepared(source, videos=videos)))
        return [item for shard in shards for item in shard.read()]

    return read


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_llava_as_a_list_or_as_lines(read, jpeg, name) -> None:
    first, second = read(
        {"id": "7", "image": "0.jpg", "conversations": said(ASK, SAY), "model": "x"},
        {"id": "8", "conversations": said("Who?", "You.", "And?", "I.")},
        name=name,
    )
    assert (first.source, first.text, first.turns) == (f"{name}#0", SAY, TURNS)
    assert [one.data for one in first.all_media] == [jpeg(0)]
    assert first.meta == {"id": "7", "model": "x"}
    assert (second.text, second.all_media, len(second.turns)) == ("You.\nI.", (), 4)


def test_videos_of_conversations_may_stay_where_they_lie(read, tmp_path, jpeg, video) -> None:
    entry = {"image": "0.jpg", "video": "0.mp4", "conversations": said("<image> <video>", SAY)}
    (sample,) = read(entry, videos=VideosConfig(store="reference"))
    image, clip = sample.all_media
    assert image.data == jpeg(0), "images are always copied"
    assert clip.is_reference
    assert (clip.place.uri, clip.place.name) == (str(tmp_path / "media" / "0.mp4"), "0.mp4")
    assert clip.content_digest == media_digest("video", video(0))
    assert read_reference(clip.place) == video(0)


def test_media_stand_where_their_tokens_are(read, jpeg, video) -> None:
    turns = said("Two: <image> <image>", "Yes.", "And <video> this?", "Moves.")
    entry = {"images": ["1.jpg", "0.jpg"], "video": "0.mp4", "conversations": turns}
    (item,) = read(entry)
    assert [one.data for one in item.all_media] == [jpeg(1), jpeg(0), video(0)]
    assert item.turns[0].text == "Two: <__dj__image> <__dj__image>"
    assert item.turns[2].text == "And <__dj__video> this?"


PARTS = [{"type": "image"}, {"type": "text", "text": "What is it?"}]


@pytest.mark.parametrize(
    "entry",
    [
        {"messages": [{"role": "user", "content": ASK}, {"role": "assistant", "content": SAY}]},
        {"messages": [{"role": "user", "content": PARTS}, {"role": "assistant", "content": SAY}]},
        {"turns": [{"role": "user", "text": TURNS[0].text}, {"role": "assistant", "text": SAY}]},
        {"conversations": [{"from": "user", "value": ASK}, {"from": "assistant", "value": SAY}]},
        {"conversations": {"from": ["human", "gpt"], "value": [ASK, SAY]}},
        {"query": ASK, "response": SAY},
        {"query": ASK, "response": SAY, "history": []},
        {"query": ASK, "response": SAY, "history": None},
    ],
)
def test_every_shape_gives_the_same_turns(read, entry) -> None:
    (item,) = read({**entry, "image": "0.jpg"})
    assert item.turns == TURNS
    assert item.meta == {}


def test_what_was_said_before_comes_first(read) -> None:
    (item,) = read({"query": "c", "response": "d", "history": [["a", "b"]], "system": "Be brief."})
    assert [turn.text for turn in item.turns] == ["a", "b", "c", "d"]
    assert item.meta == {"system": "Be brief."}


def test_what_the_system_is_told_is_kept_as_meta_data(read) -> None:
    system = {"from": "system", "value": "Answer in one word, about <image> too."}
    (item,) = read({"conversations": [system, *said("a", "b")], "system": None})
    assert [turn.role for turn in item.turns] == ["user", "assistant"]
    assert item.meta == {"system": system["value"]}


@pytest.mark.parametrize(
    ("entry", "reason", "detail"),
    [
        ({"id": 1}, "bad_turns", "query with response is there (there are id)"),
        ({}, "bad_turns", "there are no keys"),
        ({"conversations": "a"}, "bad_turns", "not str"),
        ({"conversations": []}, "bad_turns", "these are: none"),
        ({"conversations": said("a")}, "bad_turns", "these are: user"),
        ({"conversations": said("a", " ")}, "bad_turns", "turn 1 (assistant) has no text"),
        ({"conversations": {"from": ["gpt"], "value": []}}, "bad_turns", "not dict"),
        ({"conversations": ["a"]}, "bad_turns", "turn 0 is no object but str"),
        ({"conversations": said("a", "b"), "messages": said("a", "b")}, "bad_turns", "may hold"),
        ({"conversations": [{"from": "tool", "value": "a"}]}, "bad_turns", "not 'tool'"),
        ({"conversations": [{"value": "a"}]}, "bad_turns", "'role' or 'from' is one of user"),
        ({"conversations": [{"from": "human"}]}, "bad_turns", "turn 0 (human) has no text"),
        ({"conversations": said("a", "b", "c")}, "bad_turns", "alternate"),
        ({"conversations": said("a", "b")[::-1]}, "bad_turns", "alternate"),
        (
            {"conversations": [*said("a", "b"), {"from": "system", "value": "x"}]},
            "bad_turns",
            "turn 2 is the system's",
        ),
        (
            {"system": "y", "conversations": [{"from": "system", "value": "x"}, *said("a", "b")]},
            "bad_turns",
            "told both in turn 0 and by key 'system'",
        ),
        ({"query": "a", "response": 3}, "bad_turns", "turn 1 (assistant) has no text"),
        ({"query": "a", "response": "b", "history": [["a"]]}, "bad_turns", "pairs of a question"),
        ({"conversations": said(ASK, SAY)}, "bad_tokens", "1 tokens of images, there are 0"),
        ({"image": "0.jpg", "conversations": said("a", "b")}, "bad_turns", "not 1 image"),
        ({"image": ["0.jpg"] * 2, "conversations": said(ASK, "b")}, "bad_tokens", "there are 2"),
        ({"image": "none.jpg", "conversations": said(ASK, SAY)}, "missing_image", "no such file"),
        ({"image": "../a.json", "conversations": said(ASK, SAY)}, "escaping_path", "leads out"),
        ({"image": "0.mp4", "conversations": said(ASK, SAY)}, "bad_image", ""),
        ({"image": 5, "conversations": said(ASK, SAY)}, "media_count", "not int"),
        ({"image": ["0.jpg", None], "conversations": said(ASK, SAY)}, "media_count", "not nothing"),
        (
            {"image": "0.jpg", "images": ["1.jpg"], "conversations": said(ASK, SAY)},
            "media_count",
            "both 'image' and 'images'",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "bad_turns",
            "turn 0: a part is",
        ),
        ({"conversations": said("half \ud800", "b")}, "bad_text", "turn 0 (user) is no text"),
    ],
)
def test_what_does_not_fit_is_set_aside_and_the_others_kept(read, entry, reason, detail) -> None:
    good = {"conversations": said("a", "b")}
    first, second, third = read(good, entry, good)
    assert isinstance(first, Sample)
    assert isinstance(third, Sample)
    assert isinstance(second, Rejection)
    assert (second.source, second.reason) == ("a.json#1", reason)
    assert detail in second.detail


def test_media_lie_beside_the_file_where_nobody_says(read, tmp_path) -> None:
    entry = {"image": "media/0.jpg", "conversations": said(ASK, SAY)}
    (item,) = read(entry, images=None)
    assert item.turns == TURNS


def test_a_damaged_list_says_how_much_is_lost(open_source, tmp_path) -> None:
    text = json.dumps([{"conversations": said("a", "b")}] * 9)
    (tmp_path / "a.json").write_text(text[: len(text) // 2])
    source = open_source("llava", path=str(tmp_path))
    *kept, last = [item for shard in prepared(source) for item in shard.read()]
    assert (len(kept), last.reason, last.lost) == (4, "broken_shard", 1)


@pytest.mark.parametrize(
    ("name", "lost"), [("a.json", ["broken_shard"]), ("a.JSON", ["broken_shard"]), ("a.jsonl", [])]
)
def test_an_empty_file_is_no_list_but_may_be_no_lines(open_source, tmp_path, name, lost) -> None:
    (tmp_path / name).write_bytes(b"\n")
    source = open_source("llava", path=str(tmp_path))
    assert [item.reason for shard in prepared(source) for item in shard.read()] == lost


def lines(open_source, path: str, **options: Any) -> list[Any]:
    source = open_source("jsonl", path=path, **options)
    return [item for shard in prepared(source) for item in shard.read()]


def test_jsonl_reads_conversations(open_source, write_jsonl, jpeg) -> None:
    entry = {"talk": said(ASK, SAY), "images": ["0.jpg"], "id": 3}
    path = write_jsonl([entry, {"id": 4}], {"0.jpg": jpeg(0)})
    first, second = lines(open_source, path, content="conversations", turns="talk")
    assert (first.turns, first.text, first.meta) == (TURNS, SAY, {"id": 3})
    assert [one.data for one in first.all_media] == [jpeg(0)]
    assert (second.reason, second.detail) == (
        "bad_turns",
        "key 'talk': a list of turns is needed, not NoneType",
    )


def test_among_anything_a_line_without_a_text_may_have_turns(open_source, write_jsonl) -> None:
    path = write_jsonl(
        [{"messages": said("a", "b")}, {"text": "t", "messages": said("a", "b")}, {"id": 1}], {}
    )
    first, second, third = lines(open_source, path, content="any")
    assert (first.text, len(first.turns)) == ("b", 2)
    assert (second.text, second.turns) == ("t", ())
    assert second.meta == {"messages": said("a", "b")}
    assert third.reason == "bad_text"

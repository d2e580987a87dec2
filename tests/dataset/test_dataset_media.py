"""Samples of every modality: what makes sense, what is set aside, and what a table gives back."""

from __future__ import annotations

import io
from pathlib import Path

import av
import numpy as np
import pytest
from written_tables import Listed, written

from djsandbox_ray.dataset.fragments import SCHEMA
from djsandbox_ray.dataset.media import (
    IMAGE_TOKEN,
    VIDEO_TOKEN,
    Kind,
    Media,
    Turn,
    VideosConfig,
    assistant_text,
    content_fault,
    plain_text,
    tagged_text,
    tokens_in,
    video_fault,
    without_tokens,
)
from djsandbox_ray.dataset.prepare import SHUFFLE_BLOCK, check, prepared
from djsandbox_ray.dataset.source import Item, Rejection, Sample, Shard, Source, SourceConfig
from djsandbox_ray.errors import Damaged
from djsandbox_ray.identity import document_digest, sample_digest
from djsandbox_ray.stats.datajuicer import load

ENDS, ALL = VideosConfig(), VideosConfig(check="all")


def reasons(data: bytes, config: VideosConfig = ENDS) -> str | None:
    found = video_fault(data, config)
    return found[0] if found else None


@pytest.mark.parametrize("form", ["mp4", "matroska", "webm", "avi", "gif", "mpegts"])
def test_videos_of_every_container_are_used(video, form: str) -> None:
    data = video(0, form=form, frames=30)
    assert (video_fault(data, ENDS), video_fault(data, ALL)) == (None, None)


def test_what_is_no_video_is_set_aside(video, jpeg) -> None:
    whole = video(0, frames=48)
    assert reasons(b"") == "bad_video"
    assert reasons(b"no video at all" * 100) == "bad_video"
    assert reasons(jpeg(0)) == "bad_video"
    assert video_fault(jpeg(0), ENDS)[1].startswith("it is no video (avi, gif, ")
    assert reasons(video(0, frames=1)) == "too_short"
    assert reasons(whole, VideosConfig(max_bytes=len(whole) - 1)) == "too_large"
    assert reasons(whole, VideosConfig(max_bytes=len(whole))) is None
    five = video(0, frames=5)
    assert reasons(five, VideosConfig(min_frames=5)) is None
    assert reasons(five, VideosConfig(min_frames=6)) == "too_short"
    assert reasons("clip.mp4") == "missing_video"  # type: ignore[arg-type]


def test_streams_that_come_up_late_do_not_end_the_process() -> None:
    def transport(streams: int, first: int) -> bytes:
        file = io.BytesIO()
        places = {"mpegts_start_pid": str(first), "mpegts_pmt_start_pid": str(first + 512)}
        with av.open(file, "w", format="mpegts", options=places) as container:
            some = [container.add_stream("libx264", rate=12) for _ in range(streams)]
            for stream in some:
                stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
            for number in range(16):
                pixels = np.full((32, 48, 3), 16 * number, np.uint8)
                for stream in some:
                    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                    container.mux(stream.encode(frame))
            for stream in some:
                container.mux(stream.encode())
        return file.getvalue()

    data = transport(1, 256) + transport(4, 600)
    with av.open(io.BytesIO(data)) as container:
        assert len(container.streams) == 5
    assert reasons(data) is None


@pytest.mark.parametrize(
    "data",
    [
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        b"m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        b"ffconcat version 1.0\nfile /etc/hostname\n",
    ],
)
def test_what_would_have_other_files_or_addresses_opened_is_no_video(data: bytes) -> None:
    assert reasons(data) == "bad_video"
    assert "no video" in video_fault(data, ENDS)[1]


def test_a_video_that_asks_for_more_memory_than_there_is_costs_its_row_alone(video) -> None:
    data = video(0, frames=16)
    count = data.index(b"stts") + 8  # entries of the table of times
    assert reasons(data[:count] + b"\xff" + data[count + 1 :]) == "bad_video"


def test_a_frame_that_would_fill_the_memory_is_not_decoded(video, monkeypatch) -> None:
    monkeypatch.setattr("djsandbox_ray.dataset.media._MOST_PIXELS", 48 * 32 - 1)
    for form in ("mp4", "webm", "avi", "gif"):
        assert reasons(video(0, form=form)) == "bad_video"
    monkeypatch.setattr("djsandbox_ray.dataset.media._MOST_PIXELS", 2 * 48 * 32)
    assert reasons(video(0)) is None


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("faststart", [False, True])
def test_a_video_that_was_cut_is_set_aside(video, share: float, faststart: bool) -> None:
    whole = video(0, frames=48, faststart=faststart)
    assert reasons(whole[: int(share * len(whole))]) == "bad_video"


def test_a_damaged_middle_is_found_where_all_frames_are_decoded(video) -> None:
    whole = bytearray(video(0, frames=48, faststart=True))
    middle = len(whole) // 2
    whole[middle : middle + 8000] = bytes(8000)
    assert reasons(bytes(whole), ENDS) is None
    assert reasons(bytes(whole), ALL) == "bad_video"


@pytest.mark.shared_data
def test_real_clips_are_used(shared_data: Path) -> None:
    for path in sorted((shared_data / "videos_open" / "clips").iterdir())[::12]:
        assert video_fault(path.read_bytes(), ALL) is None, path.name


IMAGE, VIDEO = Media("image", b"i"), Media("video", b"v")
ASKED = (Turn("user", "<__dj__image> what is it?"), Turn("assistant", "a star"))


@pytest.mark.parametrize(
    ("content", "text", "media", "turns", "reason"),
    [
        ("pairs", "a", [IMAGE], (), None),
        ("pairs", "a", [], (), "media_count"),
        ("pairs", "a", [IMAGE, IMAGE], (), "media_count"),
        ("pairs", "a", [IMAGE], ASKED, "bad_turns"),
        ("videos", "a", [VIDEO], (), None),
        ("videos", "a", [IMAGE], (), "media_count"),
        ("texts", "a", [], (), None),
        ("texts", "a", [VIDEO], (), "media_count"),
        ("any", "a", [VIDEO, IMAGE], (), None),
        ("any", "<__dj__video> a <__dj__image>", [VIDEO, IMAGE], (), None),
        ("any", "<__dj__image> a <__dj__video>", [VIDEO, IMAGE], (), "bad_tokens"),
        ("any", "<__dj__image> a", [IMAGE, IMAGE], (), "bad_tokens"),
        ("texts", "<__dj__image> a", [], (), "bad_tokens"),
        ("any", "a", [], (), None),
        ("conversations", "a star", [IMAGE], ASKED, None),
        ("any", "a star", [IMAGE], ASKED, None),
        ("conversations", "a star", [], ASKED, "bad_turns"),
        ("conversations", "a star", [IMAGE, IMAGE], ASKED, "bad_turns"),
        ("conversations", "a", [], (), "bad_turns"),
        ("conversations", "a", [IMAGE], ASKED[:1], "bad_turns"),
        ("conversations", "a", [IMAGE], ASKED[::-1], "bad_turns"),
        ("conversations", "a", [IMAGE], (ASKED[0], Turn("assistant", " ")), "bad_turns"),
    ],
)
def test_samples_are_what_their_source_says(content, text, media, turns, reason) -> None:
    found = content_fault(content, text, media, turns)
    assert (found[0] if found else None) == reason


def test_tokens_keep_their_order() -> None:
    text = "<__dj__video> a <__dj__image>b<|__dj__eoc|><__dj__image>"
    assert tokens_in(text) == ("video", "image", "image")
    assert without_tokens(text) == "a b"
    assert assistant_text((*ASKED, Turn("user", "sure?"), Turn("assistant", "yes"))) == (
        "a star\nyes"
    )


@pytest.mark.parametrize(
    ("text", "kinds", "tagged"),
    [
        ("a dog", ["image"], f"{IMAGE_TOKEN} a dog <|__dj__eoc|>"),
        ("a dog", ["video", "image"], f"{VIDEO_TOKEN} {IMAGE_TOKEN} a dog <|__dj__eoc|>"),
        (f"a {IMAGE_TOKEN} dog", ["image"], f"a {IMAGE_TOKEN} dog"),
        (f"a {IMAGE_TOKEN}dog", ["video"], f"{VIDEO_TOKEN} a dog <|__dj__eoc|>"),
        (" a dog", [], " a dog"),
        ("", ["image"], f"{IMAGE_TOKEN}  <|__dj__eoc|>"),
    ],
)
def test_every_medium_has_a_token_in_a_tagged_text(
    text: str, kinds: list[Kind], tagged: str
) -> None:
    assert tagged_text(text, kinds) == tagged


def test_a_plain_text_is_what_data_juicer_takes_tokens_from() -> None:
    load()
    from data_juicer.utils.mm_utils import get_special_tokens, remove_special_tokens

    tokens = get_special_tokens().values()
    texts = [" a dog ", f" {IMAGE_TOKEN} a dog", " b ".join(["", *tokens, ""])]
    assert [plain_text(text) for text in texts[1:]] == list(map(remove_special_tokens, texts[1:]))
    assert plain_text(texts[0]) == texts[0]


def test_which_medium_is_bad_is_said(jpeg, video) -> None:
    media = (Media("image", jpeg(0)), Media("video", b"none"))
    found = check(Sample(b"", "text", "s#0", media=media), "any")
    assert found is not None
    assert (found.reason, found.detail[:9]) == ("bad_video", "medium 1:")
    media = (Media("image", jpeg(0)[:200]), Media("video", video(0)))
    assert check(Sample(b"", "text", "s#0", media=media), "any").reason == "bad_image"


def documents(jpeg, video) -> list[Sample]:
    """Of every kind: a pair, a video, text only, interleaved, a conversation, and one without."""
    interleaved = (Media("image", jpeg(1)), Media("video", video(2)), Media("image", jpeg(3)))
    text = "<__dj__image> first <__dj__video> then <__dj__image>"
    asked = (Turn("user", "what is a star?"), Turn("assistant", "a sun"))
    return [
        Sample(jpeg(0), "a pair", "s#0", {"label": 1}),
        Sample(b"", "a clip", "s#1", media=(Media("video", video(1)),)),
        Sample(b"", "nothing but text", "s#2"),
        Sample(b"", text, "s#3", media=interleaved),
        Sample(jpeg(4), "a star", "s#4", turns=ASKED),
        Sample(b"", "a sun", "s#5", turns=asked),
    ]


def test_a_table_gives_back_what_was_written(jpeg, video, tmp_path: Path) -> None:
    samples = documents(jpeg, video)
    table, manifest = written(samples, tmp_path)
    rows = [3, 0, 5, 3, 2, 1, 4]
    assert table.media(rows) == [samples[row].all_media for row in rows]
    assert table.turns(rows) == [samples[row].turns for row in rows]
    assert table.take(rows, ["text"])["text"].to_pylist() == [samples[row].text for row in rows]
    assert table.column("row_id").to_pylist() == list(range(6))
    clips = table.media(rows, "video")
    assert clips == [
        tuple(one for one in samples[row].all_media if one.kind == "video") for row in rows
    ]
    assert table.media([]) == []
    table.check(np.arange(6))
    assert (manifest.modalities, manifest.pairs) == (["image", "turns", "video"], False)


def test_pairs_keep_columns_and_digests(jpeg, tmp_path: Path) -> None:
    samples = [Sample(jpeg(seed), f"caption {seed}", f"s#{seed}") for seed in range(3)]
    table, manifest = written([*samples], tmp_path / "pairs", wide=False)
    assert table._table.schema.names == [*SCHEMA.names, "row_id"]
    wide, same = written([*samples], tmp_path / "wide")
    digests = [sample_digest(one.image, one.text) for one in samples]
    for one in (table, wide):
        assert one.column("digest").to_pylist() == digests
        assert one.media([2, 0]) == [samples[2].all_media, samples[0].all_media]
        assert one.turns([1]) == [()]
        one.check(np.arange(3))
    assert manifest.digest == same.digest
    assert manifest.pairs
    assert same.pairs


def test_texts_are_read_without_media(video, tmp_path: Path) -> None:
    data = video(0) * 50
    samples = [
        Sample(b"", f"clip {row}", f"s#{row}", media=(Media("video", data),)) for row in range(20)
    ]
    table, _ = written([*samples], tmp_path)
    before = _read_bytes()
    assert table.scan(0, 20, ["text", "media", "turns", "digest"]).num_rows == 20
    assert _read_bytes() - before < min(len(data), 100_000)


def _read_bytes() -> int:
    """Return the bytes that this process has read so far."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("rchar"))


def test_damaged_media_are_found_when_they_are_read(jpeg, video, tmp_path: Path) -> None:
    samples = documents(jpeg, video)
    table, _ = written(samples, tmp_path)
    (file,) = [
        path
        for path in tmp_path.rglob("*.lance")
        if path.parent.name == "data" and samples[1].media[0].data[100:140] in path.read_bytes()
    ]
    content = bytearray(file.read_bytes())
    content[content.index(samples[1].media[0].data[100:140])] ^= 1
    file.write_bytes(content)
    table.media([0, 3])
    with pytest.raises(Damaged, match="row 1 is not what was ingested"):
        table.media([0, 1])


def test_digests_tell_order_text_turns_and_kind() -> None:
    image, clip = IMAGE.digest, VIDEO.digest
    plain = [turn.plain() for turn in ASKED]
    found = [
        document_digest("a", [image, clip]),
        document_digest("a", [clip, image]),
        document_digest("b", [image, clip]),
        document_digest("a", [image, clip], plain),
        document_digest("a", [image, clip], plain[::-1]),
        document_digest("a", []),
        sample_digest(b"", "a"),
        Media("video", b"i").digest,
        IMAGE.digest,
    ]
    assert len(set(found)) == len(found)
    # Caches are found by these.
    assert document_digest("a", [image], plain).hex() == "fd14b94b8c51738a0f9317d02024ed20"


class _Own(Source):
    """A user's own source."""

    def __init__(self, config: SourceConfig, samples: list[Item]) -> None:
        super().__init__(config)
        self.samples = samples

    def shards(self) -> list[Shard]:
        return [Shard("own", 0, Listed(self.samples))]


def own(samples: list[Item], **options: object) -> Source:
    return _Own(SourceConfig.model_validate({"type": "own", **options}), samples)


def test_a_source_says_what_its_samples_are(jpeg, video) -> None:
    samples = documents(jpeg, video)
    for content, kept in {
        "pairs": [0],
        "videos": [1],
        "texts": [2],
        "conversations": [4, 5],
        "any": [0, 1, 2, 3, 4, 5],
    }.items():
        (shard,) = prepared(own([*samples], content=content))
        items = list(shard.read())
        assert [place for place, item in enumerate(items) if isinstance(item, Sample)] == kept
        assert all(isinstance(item, Sample | Rejection) for item in items)


def test_captions_of_videos_are_exchanged_and_their_videos_kept(video) -> None:
    clips = [video(seed) for seed in range(3)]
    count = 2 * SHUFFLE_BLOCK + 10
    samples: list[Item] = [
        Sample(b"", f"clip {row}", f"s#{row}", media=(Media("video", clips[row % 3]),))
        for row in range(count)
    ]
    source = own(samples, content="videos", shuffle_captions={"fraction": 0.5})
    (shard,) = prepared(source, videos=VideosConfig(max_bytes=10**7))
    found = list(shard.read())
    assert [item.source for item in found] == [item.source for item in samples]
    assert [item.media for item in found] == [item.media for item in samples]
    assert sum(item.meta["shuffled"] for item in found) == count // 2


@pytest.mark.parametrize("content", ["texts", "conversations", "any"])
def test_only_captions_can_be_spoilt(content: str) -> None:
    with pytest.raises(ValueError, match="need captions"):
        own([], content=content, boilerplate={"fraction": 0.5})

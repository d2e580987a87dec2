"""What samples are made of beside their text: images, videos and turns; and which make sense.

Where a text says where its media belong it does so with the tokens of Data-Juicer, one for each
medium, in order. A text without tokens follows its media.
"""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import psutil
from pydantic import Field

from djsandbox_ray.dataset.videos import announced
from djsandbox_ray.errors import SandboxError, require
from djsandbox_ray.identity import media_digest, place_digest
from djsandbox_ray.settings.sections import Section

Kind: TypeAlias = Literal["image", "video"]
Content: TypeAlias = Literal["pairs", "videos", "texts", "conversations", "any"]
"""What every sample of a source is to hold; see :func:`content_fault`."""

MODALITIES: dict[Content, tuple[str, ...]] = {
    "pairs": ("text", "image"),
    "videos": ("text", "video"),
    "texts": ("text",),
    "conversations": ("text", "image", "video", "turns"),
    "any": ("text", "image", "video", "turns"),
}
"""What there may be in a sample, by content."""

IMAGE_TOKEN, VIDEO_TOKEN, END_OF_CHUNK = "<__dj__image>", "<__dj__video>", "<|__dj__eoc|>"
TOKENS: dict[str, Kind] = {IMAGE_TOKEN: "image", VIDEO_TOKEN: "video"}
PAIR_TOKENS = (IMAGE_TOKEN, END_OF_CHUNK)
"""What may stand in the caption of an image, and is no part of it."""

TAGGED_KEY = "text_with_tokens"
"""Field of the text with tokens, where it lies beside the text as it is; see :func:`tagged_text`.
"""

_TOKEN_OF: dict[Kind, str] = {kind: token for token, kind in TOKENS.items()}
_MARK = "__dj__"
"""Stands in every token."""
_NO_TEXT = (*TOKENS, "<__dj__audio>", END_OF_CHUNK)
"""What Data-Juicer's operators take out of a text."""
_UNSEEN = frozenset({"Cc", "Cf", "Zl", "Zp", "Zs"})
"""Unicode's general categories of what shows nothing."""
_TOKEN = re.compile("|".join(map(re.escape, TOKENS)))
CONTAINERS = ("avi", "gif", "matroska", "mov", "mp4", "mpegts", "webm")
"""By the names that FFmpeg gives them. It would open others too: a JPEG as a video of one frame,
and lists that name further files, or addresses to listen at."""
_MOST_PIXELS = 1 << 26
"""Of a frame, twice those of 8K: a few bytes may announce frames that fill the memory."""
_ROOM = 4 << 30
"""Bytes of memory in which every video fits whose frames are no larger."""
VIDEO_EXTENSIONS = ("mp4", "m4v", "mov", "webm", "mkv", "avi", "gif", "ts")
"""What the names of videos end in."""
_INDEXED = frozenset({"mov", "mp4"})
"""These say how long they are, to the frame."""
_SEEKABLE = _INDEXED | {"matroska", "webm", "avi"}
"""In these the last frame from which decoding can begin is found; others are decoded whole."""


class VideosConfig(Section):
    """Which videos can be used, and where they are kept."""

    store: Literal["copy", "reference"] = "copy"
    """Whether they are copied into the table, or stay where they lie and are read there; then a
    file that changes fails whoever reads it."""

    max_bytes: int = Field(default=64_000_000, gt=0)
    """A larger file is set aside (``too_large``)."""
    check: Literal["ends", "all"] = "ends"
    """Which frames must decode: the first two and the last ones, or all of them."""
    min_frames: int = Field(default=2, ge=2, le=1 << 20)
    """A video with fewer is set aside (``too_short``)."""


@dataclass(frozen=True)
class Place:
    """Where a file lies, and which one it is."""

    uri: str
    """An absolute path, or a URL that fsspec opens."""
    name: str
    """Below the root of its source: the same wherever the data lies."""
    size: int = 0
    """Bytes; like the version, known of a file that stays there."""
    version: str = ""
    """Its hash, or the time of its last change."""


@dataclass(frozen=True)
class Media:
    """An encoded image or video."""

    kind: Kind
    data: bytes = b""
    """The file as it was found (JPEG, PNG, MP4, ...); empty where it stays in its place."""
    place: Place | None = None
    """Where it lies, if it is a file of its own and its source says so."""
    content: bytes = b""
    """Of a reference: the digest that its file had when it was read."""

    @property
    def is_reference(self) -> bool:
        """Whether it stays in its place."""
        return self.place is not None and not self.data

    @cached_property
    def digest(self) -> bytes:
        """16 bytes of kind and file; of a reference, of kind, name, size and version."""
        if self.place is not None and self.is_reference:
            return place_digest(self.kind, self.place.name, self.place.size, self.place.version)
        return media_digest(self.kind, self.data)

    @property
    def content_digest(self) -> bytes:
        """16 bytes of kind and file, whether it is a reference or not."""
        return self.content if self.is_reference else self.digest


@dataclass(frozen=True)
class Turn:
    """What one side of a conversation says at a time."""

    role: Literal["user", "assistant"]
    text: str
    """With a token where a medium belongs."""

    def plain(self) -> dict[str, str]:
        """Return it as plain data."""
        return {"role": self.role, "text": self.text}


def assistant_text(turns: Iterable[Turn]) -> str:
    """Return what text operators see of a conversation: the answers, joined by line breaks."""
    return "\n".join(turn.text for turn in turns if turn.role == "assistant")


def without_tokens(text: str, tokens: Iterable[str] = (*TOKENS, END_OF_CHUNK)) -> str:
    """Return a text without Data-Juicer's tokens, stripped."""
    for token in tokens:
        text = text.replace(token, "")
    return text.strip()


def is_blank(text: str) -> bool:
    """Say whether a text shows nothing: there are but spaces, control and format characters."""
    return all(unicodedata.category(sign) in _UNSEEN for sign in text)


def plain_text(text: str) -> str:
    """Return a text as operators see it that do not look for media; as it is without tokens."""
    return without_tokens(text, _NO_TEXT) if _MARK in text else text


def tagged_text(text: str, kinds: Sequence[Kind]) -> str:
    """Return a text as operators need it that look for media, with a token for each of them.

    Statistics are computed of it, and recipes run on it.

    Args:
        text: where it has tokens itself, one for every medium, it stays as it is.
        kinds: what the media are, in order: of their tokens in front of another text.
    """
    own = tokens_in(text)
    if all(own.count(kind) == kinds.count(kind) for kind in {*kinds}):
        return text
    front = [_TOKEN_OF[kind] for kind in kinds]
    return " ".join([*front, plain_text(text), END_OF_CHUNK])


def tokens_in(text: str) -> tuple[Kind, ...]:
    """Return the kinds of media whose tokens stand in a text, in order."""
    return tuple(TOKENS[token] for token in _TOKEN.findall(text))


def content_fault(
    content: Content, text: str, media: Sequence[Media], turns: Sequence[Turn]
) -> tuple[str, str] | None:
    """Return why a sample is not what its source is said to hold: reason and detail.

    ``pairs`` are one image and a caption, ``videos`` one video and a caption, ``texts`` nothing but
    a text, ``conversations`` have turns and any media, and ``any`` is all of these and interleaved
    documents.
    """
    kinds = tuple(medium.kind for medium in media)
    sole: dict[Content, tuple[Kind, ...]] = {"pairs": ("image",), "videos": ("video",), "texts": ()}
    wanted = sole.get(content, kinds)
    if kinds != wanted:
        return "media_count", f"content {content!r} is {_counted(wanted)}, not {_counted(kinds)}"
    if turns and content not in ("conversations", "any"):
        return "bad_turns", f"content {content!r} has no turns"
    if content == "conversations" or turns:
        return _turns_fault(kinds, turns)
    tokens = tokens_in(text)
    if tokens and tokens != kinds and content != "pairs":
        said = f"the text has tokens of {_counted(tokens)}, there is {_counted(kinds)}"
        return "bad_tokens", said
    return None


def _turns_fault(kinds: tuple[Kind, ...], turns: Sequence[Turn]) -> tuple[str, str] | None:
    """Turns alternate, the user begins and the assistant ends, and every medium has its place."""
    roles = [turn.role for turn in turns]
    if not turns or roles != ["user", "assistant"] * (len(turns) // 2):
        said = ", ".join(map(str, roles[:8])) or "none"
        return "bad_turns", f"turns alternate between user and assistant; these are: {said}"
    for place, turn in enumerate(turns):
        if not isinstance(turn.text, str) or (turn.role == "assistant" and is_blank(turn.text)):
            return "bad_turns", f"turn {place} ({turn.role}) has no text"
        try:
            turn.text.encode()
        except UnicodeEncodeError as error:
            return "bad_text", f"turn {place} ({turn.role}) is no text: {error}"
    tokens = tokens_in("".join(turn.text for turn in turns))
    if tokens != kinds:
        return "bad_turns", f"the turns have tokens of {_counted(tokens)}, not {_counted(kinds)}"
    return None


def _counted(kinds: Sequence[Kind]) -> str:
    """Say how many there are, in order where it matters."""
    if not kinds:
        return "no media"
    if len(set(kinds)) == 1:
        return f"{len(kinds)} {kinds[0]}{'s' if len(kinds) > 1 else ''}"
    return " ".join(kinds[:12]) + (" ..." if len(kinds) > 12 else "")


def video_fault(data: object, config: VideosConfig) -> tuple[str, str] | None:
    """Return why a video cannot be used, reason and detail; None where it can.

    Raises:
        MissingExtra: PyAV is not installed.
        MemoryError: there was no room for it.
    """
    if not isinstance(data, bytes):
        return "missing_video", f"the video is of type {type(data).__name__}, not bytes"
    if len(data) > config.max_bytes:
        said = f"{len(data)} bytes are more than ingest.videos.max_bytes: {config.max_bytes}"
        return "too_large", said
    av = require("av", "video")
    try:
        # Of the container alone: PyAV ends the process where options of streams are given, too, and
        # a stream is found that was not there at the beginning.
        allowed = {"format_whitelist": ",".join(CONTAINERS)}
        try:
            opened = av.open(io.BytesIO(data), mode="r", container_options=allowed)
        except av.error.ValueError:  # so FFmpeg refuses what is not allowed
            return "bad_video", f"it is no video ({', '.join(CONTAINERS)} are)"
        with opened as container:
            names = set(container.format.name.split(","))
            if not container.streams.video:
                return "bad_video", "it has no video stream"
            every = config.check == "all" or not names & _SEEKABLE
            fault = _frames_fault(container, every, bool(names & _INDEXED))
        if (
            fault is None
            and config.min_frames > 2
            and (count := announced(data)) < config.min_frames
        ):
            least = f"ingest.videos.min_frames: {config.min_frames}"
            return "too_short", f"it has {count} frames, fewer than {least}"
        return fault
    except MemoryError:
        if psutil.virtual_memory().available < _ROOM:
            raise
        return "bad_video", f"cannot be decoded: it asks for more than {_ROOM >> 30} GiB of memory"
    except SandboxError:
        raise
    except Exception as error:  # whatever a decoder stumbles over
        return "bad_video", f"cannot be decoded: {error or type(error).__name__}"


def _frames_fault(container: Any, every: bool, indexed: bool) -> tuple[str, str] | None:
    """Decode the first two frames, and the last ones, or all in between."""
    stream = container.streams.video[0]
    stream.codec_context.options = {"err_detect": "explode", "max_pixels": str(_MOST_PIXELS)}
    packets = container.demux(stream)
    decoded = 0
    while decoded < 2 and (packet := next(packets, None)) is not None:
        decoded += len(packet.decode())
    if not decoded:
        return "bad_video", "its first frame does not decode"
    if decoded == 1:
        return "too_short", "it has one frame; at least 2 are needed"
    end = (stream.start_time or 0) + stream.duration if stream.duration else None
    if not every:
        # Backwards to the last frame from which decoding can begin.
        if end is None:
            container.seek(container.duration or 0, backward=True)
        else:
            container.seek(end, stream=stream, backward=True)
        packets, decoded = container.demux(stream), 0
    reached = length = 0
    for packet in packets:
        decoded += len(packet.decode())
        if packet.pts is not None:
            length = packet.duration or length
            reached = max(reached, packet.pts + length)
    if not decoded:
        return "bad_video", "its last frame does not decode"
    if indexed and end is not None and 0 < reached < end - length:
        seconds = float((end - reached) * stream.time_base)
        return "bad_video", f"its last {seconds:.2f} seconds are missing"
    return None

"""What an object of some file says of a sample: its text or turns, its media, and the rest.

The object may be a line of JSON, an entry of a list or a row of a table; media are paths, the
files themselves, or Hugging Face's ``{bytes, path}``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from djsandbox_ray.dataset.beside import medium_beside
from djsandbox_ray.dataset.conversation import has_turns, take_turns
from djsandbox_ray.dataset.faults import META_LEFT_OUT, Unusable, kept_meta
from djsandbox_ray.dataset.media import (
    TAGGED_KEY,
    Content,
    Kind,
    Media,
    assistant_text,
    tagged_text,
    tokens_in,
    without_tokens,
)
from djsandbox_ray.dataset.source import Item, Remark, Sample
from djsandbox_ray.dataset.source_files import SourceFile


@dataclass(frozen=True)
class Keys:
    """Under which keys an object holds what."""

    text: str = "text"
    images: tuple[str, ...] = ("images",)
    """One of these."""
    videos: tuple[str, ...] = ("videos",)
    turns: str | None = None
    """None for the usual ones, see :mod:`.conversation`."""


def read_entry(
    place: SourceFile, keys: Keys, content: Content, source: str, entry: dict[str, Any]
) -> list[Item]:
    """Return the sample that an object is, of any content but pairs.

    Args:
        place: a file beside which the media lie.
        keys: under which it holds what.
        content: of the source; where it is ``any``, an object without a text may have turns, or
            with no other text than what the assistant says in them.
        source: where it stands.
        entry: is used up.

    Raises:
        Unusable: it is none.
    """
    has = ", ".join(entry)
    text = entry.get(keys.text)
    if content == "conversations" or (content == "any" and _is_talk(entry, keys)):
        turns = take_turns(entry, keys.turns)
        said = "".join(turn.text for turn in turns)
        if text == (answers := assistant_text(turns)):
            entry.pop(keys.text, None)  # another one is kept as meta data
        text = answers
    elif isinstance(text, str):
        del entry[keys.text]
        turns, said = (), text
        text = text.strip() if content == "any" else without_tokens(text)
    else:
        raise no_text(keys.text, text, has)
    by_kind: dict[Kind, list[Any]] = {
        "image": _named(keys.images, entry, has),
        "video": _named(keys.videos, entry, has),
    }
    media = _in_order(place, by_kind, tokens_in(said))
    if entry.get(TAGGED_KEY) == tagged_text(text, [medium.kind for medium in media]):
        del entry[TAGGED_KEY]  # says nothing more
    meta, remarks = meta_beside(source, entry)
    return [Sample(b"", text, source, meta, media, turns), *remarks]


def _is_talk(entry: Mapping[str, Any], keys: Keys) -> bool:
    """Say whether an object that may be anything is a conversation.

    One with a text is, if that is what the assistant says, as our own files have it.
    """
    if not has_turns(entry, keys.turns):
        return False
    text = entry.get(keys.text)
    if text is None:
        return True
    try:
        return bool(text == assistant_text(take_turns({**entry}, keys.turns)))
    except Unusable:
        return False


def no_text(key: str, value: object, has: str) -> Unusable:
    """Return what to raise where there is no text under a key."""
    return Unusable("bad_text", f"key {key!r}: {type_named(value)} is no text (the line has {has})")


def type_named(value: object) -> str:
    """Say what was found in place of something else."""
    return "nothing" if value is None else type(value).__name__


def meta_beside(source: str, entry: dict[str, Any]) -> tuple[dict[str, Any], list[Item]]:
    """Join the keys that are left with those of ``meta``; the former hold if both do."""
    below = entry.pop("meta", None)
    meta, remarks = kept_meta(source, lambda: below)
    beside, more = kept_meta(source, lambda: entry)
    if twice := beside.keys() & meta.keys():
        said = f"keys both in 'meta' and beside it: {', '.join(sorted(twice))}"
        more = [*more, Remark(source, META_LEFT_OUT, said)]
    return {**meta, **beside}, [*remarks, *more][:1]


def read_medium(place: SourceFile, kind: Kind, value: Any) -> Media:
    """Return a medium that is given as a path, as its file, or as ``{bytes, path}``.

    Raises:
        Unusable: it is not there.
    """
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return Media(kind, value)
    if not isinstance(value, str):
        raise Unusable(f"missing_{kind}", f"a path is needed, not {type_named(value)}")
    return medium_beside(place, value, kind)


def _named(keys: tuple[str, ...], entry: dict[str, Any], has: str) -> list[Any]:
    """Take the media under one of some keys; none where all are missing or empty."""
    held = {key: value for key in keys if (value := entry.pop(key, None)) not in (None, "", [])}
    if len(held) > 1:
        raise Unusable("media_count", f"both {' and '.join(map(repr, held))} hold media")
    for key, value in held.items():
        listed = value if isinstance(value, list) else [value]
        for one in listed:
            if not isinstance(one, str | bytes | dict):
                said = f"key {key!r}: paths are needed, not {type_named(one)} (it has {has})"
                raise Unusable("media_count", said)
        return listed
    return []


def _in_order(
    place: SourceFile, named: Mapping[Kind, list[Any]], tokens: tuple[Kind, ...]
) -> tuple[Media, ...]:
    """Read media in the order of their tokens; where there are none, images before videos."""
    order = tokens or tuple(kind for kind, some in named.items() for _ in some)
    for kind, some in named.items():
        if order.count(kind) != len(some):
            said = f"the text has {order.count(kind)} tokens of {kind}s, there are {len(some)}"
            raise Unusable("bad_tokens", said)
    left = {kind: iter(some) for kind, some in named.items()}
    return tuple(read_medium(place, kind, next(left[kind])) for kind in order)

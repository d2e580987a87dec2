"""What is done to the shards of every source: take rows, check samples, spoil captions.

Everything happens inside a shard and is a function of the shard alone, so it is the same on any
cluster. Samples are checked before captions are shuffled: a bad sample hands its caption to nobody.
Images that wait for the others of their block lie on the local disk meanwhile.
"""

from __future__ import annotations

import hashlib
import math
import tempfile
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import IO, TypeAlias

import numpy as np

from djsandbox_ray.dataset.faults import Unusable, described, is_no_fault
from djsandbox_ray.dataset.images import decode
from djsandbox_ray.dataset.media import (
    Content,
    VideosConfig,
    content_fault,
    is_blank,
    video_fault,
)
from djsandbox_ray.dataset.references import referred
from djsandbox_ray.dataset.source import Item, Rejection, Remark, Sample, Shard, Source
from djsandbox_ray.dataset.world import BLOCK, BOILERPLATE
from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.identity import canonical

ANY_VIDEO = VideosConfig()
FILE_BYTES = 64 << 20
"""A file is given up once so much was written to it and all of it was taken."""

_SPARE_LEVELS = 300
"""Meta data could be nested by so much more: who reads them later may stand deeper in calls, and
one row whose meta data cannot be read would end an export."""

Read: TypeAlias = Callable[[], Iterator[Item]]

Parts: TypeAlias = Callable[[list[Shard]], Iterable[list[Shard]]]
"""Returns for each of some shards, in order, what it is made of."""

_FIRST = 100
"""Rows of a source, none of which can be used, that are enough to say that it is not what it is
taken for."""

SHUFFLE_BLOCK = 1024
"""Captions are exchanged within so many samples of a shard, or up to twice as many at its end."""


def split(shard: Shard) -> list[Shard]:
    """Return what a shard is made of: itself, where it is not to be split.

    Raises:
        SandboxError: it cannot be read through.
    """
    if shard.split is None:
        return [shard]
    try:
        return shard.split()
    except SandboxError:
        raise
    except Exception as error:
        raise SandboxError(f"{shard.name} cannot be read through: {described(error)}") from error


def split_here(shards: list[Shard]) -> Iterable[list[Shard]]:
    """Split shards in this process."""
    return map(split, shards)


def prepared(
    source: Source,
    labels: Collection[str] = (),
    parts: Parts = split_here,
    videos: VideosConfig = ANY_VIDEO,
) -> list[Shard]:
    """Return the shards of a source, split, with its common options applied.

    Args:
        source: what to read.
        labels: keys of the meta data that hold classes; a number is rejected where the source
            names others, but not this one.
        parts: splits them, where that is to be done elsewhere.
        videos: which of them can be used.

    Raises:
        BadInput: ``rows`` asks for more than there are, or the source contradicts itself.
    """
    shards = [part for found in parts(source.shards()) for part in found]
    known = {key: len(names) for key, names in named_classes(source, labels).items()}
    if source.config.rows is not None:
        shards = sliced(shards, *source.config.rows)
    usable = partial(_usable, known=known, content=source.config.content, videos=videos)
    shards = [
        replace(shard, read=partial(_checked, shard.read, shard.name, usable)) for shard in shards
    ]
    shuffle = source.config.shuffle_captions
    if shuffle is not None:
        shards = [
            replace(
                shard,
                read=partial(_shuffled, shard.read, shard.name, shuffle.fraction, shuffle.seed),
            )
            for shard in shards
        ]
    inject = source.config.boilerplate
    if inject is not None:
        shards = [
            replace(
                shard, read=partial(_injected, shard.read, shard.name, inject.fraction, inject.seed)
            )
            for shard in shards
        ]
    return shards


def refuse_unusable(shards: Iterable[Shard], content: Content) -> None:
    """Read the first rows of a source, until one can be used: most often that is the first one.

    Args:
        shards: as the source lists them.
        content: what its samples are to be.

    Raises:
        BadInput: none of the first hundred can be used; says what is wrong with the first.
        SandboxError: disk or network fail.
    """
    first: Rejection | None = None
    looked_at = 0
    for shard in shards:
        for item in _named(shard.read, shard.name):
            found = check(item, content) if isinstance(item, Sample) else item
            if found is None:
                return
            if isinstance(found, Rejection):
                first, looked_at = first or found, looked_at + 1
            if first is not None and looked_at == _FIRST:
                raise _none_of(first, f"the first {_FIRST} rows")
    if first is not None:
        raise _none_of(first, f"its {looked_at} rows" if looked_at > 1 else "its rows")


def _none_of(first: Rejection, rows: str) -> BadInput:
    return BadInput(f"none of {rows} can be used: {first.source}: {first.reason}: {first.detail}")


def named_classes(source: Source, labels: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return how a source whose shards were listed names the classes under some keys, if it does.

    Raises:
        BadInput: it contradicts itself.
    """
    named = {key: source.class_names(key) for key in sorted(labels)}
    return {key: names for key, names in named.items() if names}


def sliced(shards: list[Shard], start: int, stop: int) -> list[Shard]:
    """Keep the rows from ``start`` up to ``stop``; a rejection is as many as it stands for.

    A shard that does not know its number of rows is read through once, here.

    Raises:
        BadInput: there are fewer than ``stop`` rows.
    """
    kept, first = [], 0
    for shard in shards:
        rows = shard.rows
        if rows is None:
            rows = sum(_rows(item) for item in _named(shard.read, shard.name))
        low, high = max(start - first, 0), min(stop - first, rows)
        if low < high:
            read = partial(_slice, shard.read, low, high)
            kept.append(replace(shard, read=read, rows=high - low))
        first += rows
        if first >= stop:
            return kept
    raise BadInput(f"rows: [{start}, {stop}] asks for more than the {first} rows of the source")


def _rows(item: Item) -> int:
    """Return of how many rows of a source an item tells."""
    if isinstance(item, Remark):
        return 0
    return item.lost if isinstance(item, Rejection) else 1


def _slice(read: Read, low: int, high: int) -> Iterator[Item]:
    first = 0
    for item in read():
        start, first = first, first + _rows(item)
        inside = min(first, high) - max(start, low)
        if isinstance(item, Rejection) and inside > 0:
            yield replace(item, lost=inside)
        elif inside > 0 or (isinstance(item, Remark) and low < first):
            yield item
        if first >= high:
            return


def _checked(read: Read, name: str, usable: Callable[[Item], Item]) -> Iterator[Item]:
    """Yield what a shard holds, with a rejection in place of what cannot be used."""
    return _named(lambda: map(usable, read()), name)


def _usable(
    item: Item, *, known: Mapping[str, int], content: Content, videos: VideosConfig
) -> Item:
    if not isinstance(item, Sample):
        return item
    rejection = check(item, content, videos) or _nameless(item, known)
    if rejection is not None or videos.store == "copy":
        return rejection or item
    try:
        media = [referred(one) if one.kind == "video" else one for one in item.media]
    except Unusable as error:
        return Rejection(str(item.source), error.reason, error.detail)
    return replace(item, media=tuple(media))


def _nameless(sample: Sample, known: Mapping[str, int]) -> Rejection | None:
    """Return the rejection of a sample of a class that has no name, -1 ("none known") among them.

    Args:
        sample: to look at.
        known: by key of its meta data, how many classes have one.
    """
    for key, classes in known.items():
        label = sample.meta.get(key)
        if isinstance(label, int) and not 0 <= label < classes:
            said = f"{key!r} is {label}, but the data names the classes 0 to {classes - 1}"
            return Rejection(sample.source, "bad_label", said)
    return None


def _named(read: Read, name: str) -> Iterator[Item]:
    """Yield what a shard holds; what it raises says which shard it is, and where.

    Raises:
        SandboxError: it cannot be read on.
    """
    place, items = "at its start", iter(read())
    while True:
        try:
            item = next(items)
            if not isinstance(item, Sample | Rejection | Remark):
                raise TypeError(f"a source gives samples and rejections, not {item!r:.80}")
        except StopIteration:
            return
        except SandboxError:
            raise
        except Exception as error:
            said = f"shard {name}, {place}: {described(error)}"
            raise SandboxError(f"{said}; once that is mended, the same command goes on") from error
        place = f"after {item.source}"
        yield item


def _shuffled(read: Read, name: str, fraction: float, seed: int) -> Iterator[Item]:
    """Shuffle captions in blocks; rejections pass through.

    The number of samples chosen up to the end of any block is the rounded fraction of all so far.
    """
    rng = _generator(name, seed)
    held: list[Sample] = []
    done = 0

    def shuffle(block: list[Sample]) -> list[Sample]:
        nonlocal done
        before, done = _rounded(fraction * done), done + len(block)
        return shuffle_block(block, _rounded(fraction * done) - before, rng)

    with Aside() as files:
        for item in read():
            if not isinstance(item, Sample):
                yield item
                continue
            for data in (item.image, *(one.data for one in item.media)):
                files.append(data)
            media = tuple(replace(one, data=b"") for one in item.media)
            held.append(replace(item, image=b"", media=media))
            # What follows is kept at hand, so that the last block is never too small to exchange.
            if len(held) == 2 * SHUFFLE_BLOCK:
                for sample in shuffle(held[:SHUFFLE_BLOCK]):
                    yield _filled(sample, files)
                del held[:SHUFFLE_BLOCK]
        for sample in shuffle(held):
            yield _filled(sample, files)


def _filled(sample: Sample, files: Aside) -> Sample:
    """Return a sample with its image and its media, which are the next ones aside."""
    image = files.popleft()
    media = tuple(replace(one, data=files.popleft()) for one in sample.media)
    return replace(sample, image=image, media=media)


def _injected(read: Read, name: str, fraction: float, seed: int) -> Iterator[Item]:
    """Replace captions by boilerplate, the rounded share of every 100 samples; others pass."""
    rng = _generator(name, seed)
    chosen: set[int] = set()
    done = 0
    for item in read():
        if not isinstance(item, Sample):
            yield item
            continue
        if done % BLOCK == 0:
            chosen = set(rng.permutation(BLOCK)[: _rounded(fraction * BLOCK)].tolist())
        hit = done % BLOCK in chosen
        done += 1
        text = BOILERPLATE[rng.integers(len(BOILERPLATE))] if hit else item.text
        yield replace(item, text=text, meta={**item.meta, "boilerplate": hit})


def _generator(name: str, seed: int) -> np.random.Generator:
    """Return the chance of one shard."""
    spelled = name.encode(errors="backslashreplace")  # a file's name may be no text
    digest = hashlib.blake2b(spelled, digest_size=16).digest()
    return np.random.default_rng([seed, *np.frombuffer(digest, "<u4").tolist()])


def _rounded(value: float) -> int:
    return math.floor(value + 0.5)


def shuffle_block(samples: list[Sample], count: int, rng: np.random.Generator) -> list[Sample]:
    """Permute the captions of ``count`` random samples among themselves.

    No sample keeps its caption, nor gets the same words from another one, unless more than half of
    the chosen captions are the same. ``meta["shuffled"]`` says whose caption has changed.
    """
    chosen = rng.permutation(len(samples))[:count]
    own = [samples[index].text for index in chosen]
    # A cyclic shift of a random order moves every caption; the swaps part equal neighbours.
    given = own[1:] + own[:1]
    for here in [i for i in range(count) if given[i] == own[i]]:
        for there in rng.permutation(count):
            if given[there] != own[here] and given[here] != own[there]:
                given[here], given[there] = given[there], given[here]
                break
    captions = dict(zip(chosen.tolist(), given, strict=True))
    return [
        _recaptioned(sample, captions.get(index, sample.text))
        for index, sample in enumerate(samples)
    ]


def _recaptioned(sample: Sample, text: str) -> Sample:
    return replace(sample, text=text, meta={**sample.meta, "shuffled": text != sample.text})


def check(
    sample: Sample, content: Content = "pairs", videos: VideosConfig = ANY_VIDEO
) -> Rejection | None:
    """Return why a sample is set aside, or None when it can be used.

    Types are checked too, since sources may be a user's own.

    Args:
        sample: to look at.
        content: what it is to hold.
        videos: which of them can be used.

    Raises:
        Exception: what is no fault of the sample.
    """
    try:
        found = (
            _talk_fault(sample, content)
            or _text_fault(sample.text)
            or _media_fault(sample, content, videos)
            or _meta_fault(sample.meta)
        )
    except Exception as error:
        if is_no_fault(error):
            raise
        found = "unreadable", described(error)
    return Rejection(str(sample.source), *found) if found else None


def _talk_fault(sample: Sample, content: Content) -> tuple[str, str] | None:
    """Return what is wrong with turns, before their lack is taken for that of a caption."""
    if content == "conversations" or (content == "any" and sample.turns):
        return content_fault(content, sample.text, sample.all_media, sample.turns)
    return None


def _text_fault(text: object) -> tuple[str, str] | None:
    if not isinstance(text, str):
        return "bad_text", f"the caption is of type {type(text).__name__}, not text"
    if is_blank(text):
        return "empty_caption", "the caption is empty or blank"
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return "bad_text", f"the caption is no text: {error}"
    return None


def _media_fault(sample: Sample, content: Content, videos: VideosConfig) -> tuple[str, str] | None:
    if content == "pairs" and not sample.media:  # it lacks no image that is only damaged
        found = _image_fault(sample.image)
        return found or content_fault(content, sample.text, sample.all_media, sample.turns)
    if not isinstance(sample.image, bytes):
        return "missing_image", f"the image is of type {type(sample.image).__name__}, not bytes"
    media = sample.all_media
    found = content_fault(content, sample.text, media, sample.turns)
    for place, medium in enumerate(media):
        if found is None:
            is_image = medium.kind == "image"
            found = _image_fault(medium.data) if is_image else video_fault(medium.data, videos)
            if found and len(media) > 1:
                found = found[0], f"medium {place}: {found[1]}"
    return found


def _image_fault(image: object) -> tuple[str, str] | None:
    if not isinstance(image, bytes):
        return "missing_image", f"the image is of type {type(image).__name__}, not bytes"
    try:
        decode(image)
    except ValueError as error:
        return "bad_image", str(error)
    return None


def _meta_fault(meta: object) -> tuple[str, str] | None:
    if not isinstance(meta, dict):
        return "bad_meta", f"the meta data is of type {type(meta).__name__}, not an object"
    nested: object = meta
    for _ in range(_SPARE_LEVELS):
        nested = [nested]
    try:
        canonical(nested)
    except (TypeError, ValueError, RecursionError) as error:
        return "bad_meta", described(error)
    return None


class Aside:
    """First in, first out. Its files have no names: they are gone with the process."""

    def __enter__(self) -> Aside:
        self._files: deque[IO[bytes]] = deque()
        self._places: deque[tuple[IO[bytes], int, int]] = deque()
        return self

    def __exit__(self, *error: object) -> None:
        for file in self._files:
            file.close()

    def append(self, data: bytes) -> None:
        """Add to the end."""
        end = self._files[-1].seek(0, 2) if self._files else FILE_BYTES
        if end >= FILE_BYTES:
            self._files.append(tempfile.TemporaryFile())  # noqa: SIM115 - closed in __exit__
            end = 0
        self._files[-1].write(data)
        self._places.append((self._files[-1], end, len(data)))

    def popleft(self) -> bytes:
        """Take the first one.

        Raises:
            IndexError: there is none.
        """
        file, start, size = self._places.popleft()
        while self._files[0] is not file:
            self._files.popleft().close()
        file.seek(start)
        return file.read(size)

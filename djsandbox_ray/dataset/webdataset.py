"""WebDataset tars: the files of a sample follow each other and share a name up to the first dot.

Where that gives no samples because names hold dots of their own (``scan_v1.5_000001.jpg``), they
share it up to the ending. Tars are streamed and nothing is extracted to disk, so names inside them
cannot do harm.
"""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import ClassVar

from djsandbox_ray.dataset.columns import is_img2dataset, require_downloaded
from djsandbox_ray.dataset.faults import Unusable, attempt, kept_meta, printable, shown
from djsandbox_ray.dataset.json_files import Decoder
from djsandbox_ray.dataset.media import VIDEO_EXTENSIONS, Content, Kind, Media
from djsandbox_ray.dataset.source import (
    Item,
    Rejection,
    Remark,
    Sample,
    Shard,
    SourceConfig,
    estimated_loss,
)
from djsandbox_ray.dataset.source_files import MOST_BYTES, FileSource, SourceFile
from djsandbox_ray.dataset.tars import LINKS, Broken, Member, read_tar

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp")
PASSED_OVER = "members passed over"

_HELD = 64
"""Members of one key whose data are kept: with more, it names no sample."""
_LEFT_BY_TOOLS = re.compile(r"__MACOSX|PaxHeaders?(\.\d+)?")
_ABOUT = {"readme", "license", "licence", "copying", "notice", "changelog", "citation"}


class WebDatasetConfig(SourceConfig):
    """Where the tars are and which members to read."""

    FOR_KIND: ClassVar[dict[Kind, frozenset[str]]] = {
        "image": frozenset({"image"}),
        "video": frozenset({"video"}),
    }

    path: str | tuple[str, ...]
    """A tar, a folder or a glob, local or a URL; or a list of these."""
    image: tuple[str, ...] = IMAGE_EXTENSIONS
    """Extensions of the image, in lower case; a sample has exactly one."""
    video: tuple[str, ...] = VIDEO_EXTENSIONS
    """Extensions of the video, likewise; read for ``content: videos``."""
    text: str = "txt"
    """Extension of the caption. A member ``json`` (an object) becomes ``meta``; others are left."""


class WebDatasetSource(FileSource):
    """A shard is a tar."""

    SUFFIXES: ClassVar[tuple[str, ...]] = (".tar", ".tar.gz", ".tgz")
    Config = WebDatasetConfig
    VERSION: ClassVar[int | None] = 2
    CONTENTS: ClassVar[tuple[Content, ...]] = ("pairs", "videos", "texts")
    config: WebDatasetConfig

    def shards(self) -> list[Shard]:
        """Find the tars; none is opened."""
        names = _names(self.config)
        return [Shard(file.name, file.stamp, partial(_read, file, names)) for file in self.files()]


@dataclass(frozen=True)
class _Part:
    """A member that may be part of a sample."""

    name: str
    key: str
    """Folder and name up to the first dot."""
    stem: str
    """Folder and name up to the wanted extension."""
    extension: str
    """The wanted extension; empty where there is none."""
    data: bytes | None
    said: str
    """How it is named in messages."""
    is_link: bool = False
    """Whether it is the name of another member, or of a file elsewhere."""


class _Names:
    """What the names of members say.

    Args:
        kind: of the media; None where only texts are read.
        media: extensions of their files.
        text: extension of the texts.
    """

    def __init__(self, kind: Kind | None, media: tuple[str, ...], text: str) -> None:
        self.kind, self.media, self.text = kind, media, text
        # The longest first: "caption.txt" is not a "txt" where both are wanted.
        self._wanted = sorted({*media, text, "json"}, key=lambda name: (-len(name), name))

    def extension(self, name: str) -> str | None:
        """Return the wanted extension of a member, if it has one and may be part of a sample."""
        if self.passed_over(name) is not None:
            return None
        lower = posixpath.basename(name).lower()
        return next((end for end in self._wanted if lower.endswith(f".{end}")), None)

    def passed_over(self, name: str) -> str | None:
        """Say why a member is no part of a sample."""
        *folders, base = name.split("/")
        if any(_LEFT_BY_TOOLS.fullmatch(folder) for folder in folders):
            return "left by a tool"
        if base.startswith(".") or any(
            folder.startswith(".") and folder not in (".", "..") for folder in folders
        ):
            return "hidden"
        return None if "." in base else "without an extension"

    def part(self, member: Member) -> _Part:
        folder, base = posixpath.split(member.name)
        first, _, rest = base.partition(".")
        extension = self.extension(member.name) or ""
        stem = base[: -len(extension) - 1] if extension else first
        join = partial(posixpath.join, folder)
        said = f".{rest.lower()}"
        is_link = member.other is not None
        return _Part(member.name, join(first), join(stem), extension, member.data, said, is_link)


def _names(config: WebDatasetConfig) -> _Names:
    media: dict[Content, tuple[Kind, tuple[str, ...]]] = {
        "pairs": ("image", config.image),
        "videos": ("video", config.video),
    }
    kind, extensions = media.get(config.content, (None, ()))
    return _Names(kind, extensions, config.text)


def _read(file: SourceFile, names: _Names) -> Iterator[Item]:
    group, passed, counted = _Group(file.name, names), _Passed(file.name), 0
    try:
        for member in read_tar(file, names.extension):
            why = member.other or names.passed_over(member.name)
            # A link that is called as a part of a sample is one, whose data are not here.
            if why and not (member.other == LINKS and names.extension(member.name)):
                passed.add(member.name, why)
                continue
            part = names.part(member)
            if group.is_over(part):
                for item in group.items(passed):
                    counted += not isinstance(item, Remark)
                    yield item
                group = group.next(part.key)
            group.add(part)
        yield from group.items(passed)
    except Broken as broken:
        # What was read of the last key is a sample if it is as whole as the one before.
        if group.is_whole:
            for item in group.items(passed):
                counted += not isinstance(item, Remark)
                yield item
        begun = [] if group.is_whole else group.parts
        lost = _lost(broken, counted, names, begun)
        where = f"after {group.last!r}" if group.last else "at its start"
        said = f"the tar ends {where}: {broken}; about {lost} samples are lost"
        yield Rejection(f"{file.name}#{group.last}", "broken_shard", said, lost)
    yield from passed.remarks()


def _lost(broken: Broken, samples: int, names: _Names, begun: list[_Part]) -> int:
    """Count the samples in what cannot be read, with the one that was begun."""
    least = 1 if begun else 0
    after = broken.after + Counter({part.extension for part in begun})
    seen = max(after[names.text], sum(after[end] for end in names.media))
    if broken.cut:  # how much is missing cannot be seen; as much again, at the worst guess
        return max(1, samples)
    if broken.unread == 0:
        return 1
    mean = broken.read / samples if samples else 0
    if seen and seen * mean >= broken.unread / 2:
        return seen
    return max(seen, least + estimated_loss(broken.unread, broken.read, samples))


class _Passed:
    """Members that are no samples, counted by why."""

    def __init__(self, file: str) -> None:
        self._file, self._first = file, ""
        self._reasons: Counter[str] = Counter()

    def add(self, name: str, why: str) -> None:
        self._first = self._first or name
        self._reasons[why] += 1

    def remarks(self) -> list[Item]:
        if not self._reasons:
            return []
        said = ", ".join(f"{count} {why}" for why, count in self._reasons.most_common())
        source, count = f"{self._file}#{self._first}", self._reasons.total()
        return [Remark(source, PASSED_OVER, said, count)]


@dataclass
class _Group:
    """Members of one key that follow each other: a sample, or several with dots in their names."""

    file: str
    names: _Names
    key: str = ""
    parts: list[_Part] = field(default_factory=list)
    others: list[_Part] = field(default_factory=list)
    """Members whose extension is not wanted."""
    usual: frozenset[str] = frozenset()
    """Extensions of the sample before."""
    last: str = ""
    """The last name, for messages."""
    has: dict[str, set[str]] = field(default_factory=dict)
    """By name, the extensions whose data are kept."""

    def is_over(self, part: _Part) -> bool:
        """Say whether a member begins another sample."""
        if part.key != self.key:
            return True
        if not self.parts or not part.extension:
            return False
        newest = self.parts[-1].stem
        return not _related(part.stem, newest) and self._is_complete(newest)

    def next(self, key: str) -> _Group:
        return _Group(self.file, self.names, key, usual=self._extensions() or self.usual)

    def add(self, part: _Part) -> None:
        self.key, self.last = part.key, printable(part.stem)
        if not part.extension:
            self.others.append(part)
            return
        kept = self.has.setdefault(part.stem, set())
        if part.extension in kept:
            part = replace(part, data=None)
        elif part.data is not None:
            kept.add(part.extension)
        self.parts.append(part)
        if len(self.parts) > _HELD:
            old = self.parts[-_HELD - 1]
            if old.stem != self.key and old.data is not None:
                self.parts[-_HELD - 1] = replace(old, data=None)
                self.has[old.stem].discard(old.extension)

    @property
    def is_whole(self) -> bool:
        """Whether it has what the sample before it had."""
        return any(map(self._is_complete, self.has)) and self._extensions() >= self.usual

    def _extensions(self) -> frozenset[str]:
        return frozenset(
            end for stem, ends in self.has.items() if self._is_complete(stem) for end in ends
        )

    def _is_complete(self, stem: str) -> bool:
        ends = self.has[stem]
        media = self.names.media
        return self.names.text in ends and (not media or any(end in ends for end in media))

    def items(self, passed: _Passed) -> Iterator[Item]:
        """Yield the samples, or what is wrong."""
        by_stem: dict[str, list[_Part]] = {}
        for part in self.parts:
            by_stem.setdefault(part.stem, []).append(part)
        whole = {stem for stem in by_stem if self._is_complete(stem)}
        complete = set() if self._is_about() else whole
        if not complete and any(map(self._is_content, by_stem.get(self.key, []))):
            by_stem = {self.key: self.parts}  # one sample with something missing
        for stem, parts in by_stem.items():
            if stem in complete:
                yield from self._sample(stem, parts)
            elif self._is_side(stem, complete):
                continue
            elif why := self._no_sample(parts, len(by_stem)):
                for part in parts:
                    passed.add(part.name, why)
            else:
                yield from self._sample(stem, parts)
        if not self.parts:
            for part in self.others:
                passed.add(part.name, "of another kind")

    def _is_content(self, part: _Part) -> bool:
        return part.extension != "json"

    def _is_side(self, stem: str, complete: set[str]) -> bool:
        """Say whether a name is that of a sample, with one more part to its extension."""
        dots = (at for at, sign in enumerate(stem) if sign == ".")
        return any(stem[:at] in complete for at in dots)

    def _no_sample(self, parts: list[_Part], names: int) -> str:
        """Say why members do not belong to a sample that lacks something."""
        if names > 1 and not any(map(self._is_content, parts)):
            return "of no sample"
        return "about the data" if self._is_about() else ""

    def _is_about(self) -> bool:
        """Say whether it is a text such as README, and no sample."""
        return posixpath.basename(self.key).lower() in _ABOUT and not any(
            part.extension in self.names.media for part in self.parts
        )

    def _sample(self, stem: str, parts: list[_Part]) -> Iterator[Item]:
        source = f"{self.file}#{stem}"
        yield from attempt(source, partial(self._items, source, stem, parts))

    def _items(self, source: str, stem: str, parts: list[_Part]) -> list[Item]:
        exact = [part for part in parts if part.stem == stem]
        kind = self.names.kind
        files = [part for part in exact if part.extension in self.names.media]
        texts = [part for part in exact if part.extension == self.names.text]
        metas = [part for part in exact if part.extension == "json"]
        ((most, times),) = Counter(part.extension for part in exact).most_common(1) or [("", 0)]
        if times > 1 and most != "json":
            raise Unusable("duplicate_member", f"members: {_listed(exact)}", times)
        if len(files) > 1:
            reason = "image_count" if kind == "image" else "media_count"
            raise Unusable(reason, f"several {kind}s: {_listed(files)}")
        meta, remarks = kept_meta(source, partial(_meta, metas))
        if kind is not None and is_img2dataset(meta):
            require_downloaded(meta)
        has = ", ".join([part.said for part in (*parts, *self.others)][:12])
        if kind is not None and not files:
            said = f"no {kind} ({', '.join(self.names.media)}); it has {has}"
            raise Unusable("missing_member", said)
        if not texts:
            raise Unusable("missing_member", f"no .{self.names.text}; it has {has}")
        data = [part.data for part in (*files, texts[0])]
        if None in data:
            if links := [part for part in (*files, texts[0]) if part.is_link]:
                raise Unusable("missing_member", f"links, which have no data: {_listed(links)}")
            said = (
                f"a member has more than {MOST_BYTES} bytes, or {_HELD} others are between: {has}"
            )
            raise Unusable("missing_member", said)
        *media, text = (one for one in data if one is not None)
        try:
            caption = text.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise Unusable("bad_text", str(error)) from None
        if kind == "image":
            return [Sample(media[0], caption, source, meta), *remarks]
        found = tuple(Media(kind, one) for one in media) if kind is not None else ()
        return [Sample(b"", caption, source, meta, found), *remarks]


def _related(stem: str, other: str) -> bool:
    return stem == other or stem.startswith(f"{other}.") or other.startswith(f"{stem}.")


def _listed(parts: list[_Part]) -> str:
    return ", ".join(part.extension for part in parts[:12])


def _meta(members: list[_Part]) -> object:
    if len(members) > 1:
        raise ValueError("there are several json members")
    if not members:
        return None
    if members[0].data is None:
        raise ValueError(f"the json member is a link, or has more than {MOST_BYTES} bytes")
    decoder = Decoder()
    meta = decoder.decode(members[0].data.decode("utf-8-sig"))
    if twice := decoder.twice:
        raise ValueError(f"keys that stand twice: {shown(', '.join(twice))}")
    return meta

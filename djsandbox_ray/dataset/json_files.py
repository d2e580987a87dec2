"""Files of JSON objects, one on each line or all in one list, cut by offsets into shards.

Neither is ever held as a whole. A task reads through a file once to find where shards begin; a
shard then reads from there. A damaged line costs itself; in a list that is damaged nothing tells
where the next entry begins, so the rest of it is lost, and counted by the keys that stand there.
"""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import IO, Any, TypeAlias

from djsandbox_ray.dataset.faults import Unusable, attempt, described, is_failing, shown
from djsandbox_ray.dataset.source import Item, Rejection, Remark, Shard
from djsandbox_ray.dataset.source_files import SourceFile
from djsandbox_ray.errors import BadInput

Items: TypeAlias = Callable[[str, dict[str, Any]], list[Item]]
"""Returns what an object is, given its place; picklable."""
Marks: TypeAlias = tuple[tuple[str, ...], ...]
"""Keys that each object has, once, or the other ones: they count objects that cannot be read."""

PEEKED = 1 << 16
_SHARD_ENTRIES = 1024
_CHUNK = 1 << 20
_LONGEST = 64 << 20
"""Characters of an entry of a list; what is longer is taken for damage."""
_TAIL = 16
"""An error so near to the end of what was read may be due to the end."""
_BLANK = re.compile(r"\ufeff?[ \t\r\n]*")
_MOST_DIGITS = 4000
"""Of a whole number: Python reads no longer ones, since that takes the square of them."""
KEY_TWICE = "objects in which a key stands twice, of which the last one counts"


class Decoder(json.JSONDecoder):
    """Reads JSON as Python does, and says what that passes over.

    A whole number too long to be read is infinite, as a fraction too large is.
    """

    def __init__(self) -> None:
        super().__init__(object_pairs_hook=self._object, parse_int=_whole)
        self.twice: list[str] = []
        """Keys that stand twice in an object of what was read last."""

    def raw_decode(self, s: str, idx: int = 0) -> tuple[Any, int]:
        """Read a value that begins at a place of a text; return it, and where it ends."""
        self.twice = []
        return super().raw_decode(s, idx)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            counts = Counter(key for key, _ in pairs)
            self.twice += [key for key, count in counts.items() if count > 1]
        return found


def _whole(digits: str) -> int | float:
    return int(digits) if len(digits) <= _MOST_DIGITS else float(digits)


def is_list(file: SourceFile) -> bool:
    """Say whether a file begins as a JSON list does, or has its name and nothing in it.

    No lines are none; but what has no brackets is no list, and was cut off.
    """
    with file.open() as handle:
        start = handle.read(PEEKED).removeprefix(codecs.BOM_UTF8).lstrip()
    return start.startswith(b"[") or (not start and file.name.lower().endswith(".json"))


def first_object(file: SourceFile) -> dict[str, Any] | None:
    """Return the first object of a file, a line or an entry; None where it begins otherwise."""
    with file.open() as handle:
        text = _Text(handle)
        try:
            if text.sign() == "[":
                text.skip("[")
            text.sign()
            entry = text.value()
        except (ValueError, RecursionError):
            return None
    return entry if isinstance(entry, dict) else None


def lines_of(file: SourceFile, marks: Marks, items: Items) -> Shard:
    """Return the shard of a file with an object on each line, to be split.

    Args:
        file: to read.
        marks: see :data:`Marks`.
        items: makes samples of an object.
    """
    parts = partial(_line_shards, file, marks, items)
    return Shard(file.name, file.stamp, partial(_read_whole, parts), split=partial(_listed, parts))


def list_of(file: SourceFile, marks: Marks, items: Items) -> Shard:
    """Return the shard of a file that is one list of objects, to be split."""
    parts = partial(_split_list, file, marks, items)
    return Shard(file.name, file.stamp, partial(_read_whole, parts), split=parts)


def _read_whole(parts: Callable[[], Iterable[Shard]]) -> Iterator[Item]:
    for shard in parts():
        yield from shard.read()


def _listed(parts: Callable[[], Iterable[Shard]]) -> list[Shard]:
    return list(parts())


def _line_shards(file: SourceFile, marks: Marks, items: Items) -> Iterator[Shard]:
    """Read on in a file for the byte offsets of its lines, as far as somebody asks."""
    for offset, line, rows in _chunks(file):
        yield Shard(
            f"{file.name}#{line}",
            file.stamp,
            partial(_read_lines, file, marks, items, offset, line, rows),
            rows,
        )


def _chunks(file: SourceFile) -> Iterator[tuple[int, int, int]]:
    """Yield (byte offset, first line, number of lines that are not blank) of each shard."""
    start = offset = first = rows = line = 0
    with file.open() as handle:
        for content in handle:
            line += 1
            offset += len(content)
            rows += not content.isspace()
            if rows == _SHARD_ENTRIES:
                yield start, first, rows
                start, first, rows = offset, line, 0
    if rows:
        yield start, first, rows


def _read_lines(
    file: SourceFile, marks: Marks, items: Items, offset: int, line: int, rows: int
) -> Iterator[Item]:
    decoder = Decoder()
    with file.open() as handle:
        handle.seek(offset)
        while rows:
            content = handle.readline()
            if not content:
                raise BadInput(f"{file.name} has changed while it was read: it is shorter now")
            if not content.isspace():
                source = f"{file.name}#{line}"
                make = partial(_line_items, marks, items, source, content, decoder)
                yield from attempt(source, make)
                rows -= 1
            line += 1


def _line_items(
    marks: Marks, items: Items, source: str, line: bytes, decoder: Decoder
) -> list[Item]:
    try:
        entry = decoder.decode(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        said = f"{described(error)}; each line is to be an object of its own"
        raise Unusable("bad_json", said, _marked(line, marks)) from None
    return _entry_items(items, source, entry, decoder.twice)


def _entry_items(items: Items, source: str, entry: Any, twice: list[str]) -> list[Item]:
    if not isinstance(entry, dict):
        raise Unusable("bad_json", f"an object is needed, not {type(entry).__name__}")
    remarks = [Remark(source, KEY_TWICE, shown(", ".join(twice)))] if twice else []
    return [*items(source, entry), *remarks]


def _marked(content: bytes, marks: Marks) -> int:
    """Return of how many objects something is made; a line, of two if their break is damaged."""
    counts = (
        min(content.count(json.dumps(key).encode()) for key in together) for together in marks
    )
    return max(1, *counts)


def _split_list(file: SourceFile, marks: Marks, items: Items) -> list[Shard]:
    """Read through a list for the byte offsets of its entries."""
    shards: list[Shard] = []
    start = first = number = 0

    def close() -> None:
        if number > first:
            read = partial(_read_list, file, items, start, first, number - first)
            shards.append(Shard(f"{file.name}#{first}", file.stamp, read, number - first))

    with file.open() as handle:
        text = _Text(handle)
        try:
            for offset in _entries(text):
                if number - first == _SHARD_ENTRIES:
                    close()
                    first = number
                start = offset if number == first else start
                number += 1
        except (ValueError, RecursionError) as error:
            if is_failing(error):
                raise
            close()
            lost = max(1, _marks_after(handle, text.offset, marks))
            if isinstance(error, _Damage) and error.place > text.offset:
                # The key of the damaged entry may be what is damaged.
                lost = max(lost, 1 + _marks_after(handle, error.place, marks))
            said = f"after {number} entries, at byte {text.offset}: {described(error)}"
            broken = Rejection(f"{file.name}#{number}", "broken_shard", said, lost)
            shards.append(Shard(broken.source, file.stamp, partial(iter, (broken,)), lost))
            return shards
    close()
    return shards


def _entries(text: _Text) -> Iterator[int]:
    """Walk over a list; yield the byte offset of each entry that can be read.

    Raises:
        ValueError: here the list is damaged.
        RecursionError: an entry is nested too deeply.
    """
    text.skip("[")
    if text.sign() == "]":
        text.skip("]")
    else:
        ended = False
        while not ended:
            text.sign()
            offset = text.offset
            text.value()
            ended = text.sign() == "]"
            yield offset
            text.skip("]" if ended else ",")
    if text.sign():
        raise ValueError("something follows the end of the list")


def _read_list(
    file: SourceFile, items: Items, offset: int, first: int, rows: int
) -> Iterator[Item]:
    with file.open() as handle:
        text = _Text(handle, offset)
        for number in range(first, first + rows):
            source = f"{file.name}#{number}"
            try:
                if number > first:
                    text.skip(",")
                text.sign()
                entry = text.value()
            except ValueError as error:
                said = f"{file.name} has changed while it was read: {described(error)}"
                raise BadInput(said) from None
            except RecursionError as error:  # it was found with more of the stack left
                yield Rejection(source, "broken_shard", described(error), first + rows - number)
                return
            make = partial(_entry_items, items, source, entry, text.decoder.twice)
            yield from attempt(source, make)


def _marks_after(handle: IO[bytes], offset: int, marks: Marks) -> int:
    """Estimate how many entries follow an offset, by the keys that each of them has."""
    handle.seek(offset)
    lost = 0
    while content := handle.read(_CHUNK):
        lost += max(min(content.count(json.dumps(k).encode()) for k in keys) for keys in marks)
    return lost


class _Damage(ValueError):
    """An entry that cannot be read."""

    def __init__(self, said: str, place: int) -> None:
        super().__init__(said)
        self.place = place
        """In bytes, where that is seen."""


class _Text:
    """The text of a file from an offset on, of which only what is looked at is held.

    Bytes that are no Unicode are kept as halves of characters: offsets stay true.
    """

    def __init__(self, handle: IO[bytes], offset: int = 0) -> None:
        handle.seek(offset)
        self._handle = handle
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._held, self._at = "", 0
        self.decoder = Decoder()
        """Reads the values."""
        self.offset = offset
        """In bytes, of what comes next."""

    def sign(self) -> str:
        """Pass over white space and return the character that follows; none at the end."""
        while True:
            blank = _BLANK.match(self._held, self._at)
            self._pass(blank.end() if blank else self._at)
            if self._at < len(self._held):
                return self._held[self._at]
            if not self._more():
                return ""

    def skip(self, wanted: str) -> None:
        """Pass over one character.

        Raises:
            ValueError: another one stands there.
        """
        found = self.sign()
        if found != wanted:
            raise ValueError(f"{wanted!r} is needed, not {found!r}" if found else "it ends here")
        self._pass(self._at + 1)

    def value(self) -> Any:
        """Read a value, which begins right here.

        Raises:
            _Damage: there is none.
            RecursionError: it is nested too deeply.
        """
        while True:
            try:
                value, end = self.decoder.raw_decode(self._held, self._at)
                if end < len(self._held) or not self._more():  # a number may go on
                    self._pass(end)
                    return value
            except json.JSONDecodeError as error:
                unread = error.msg.startswith("Unterminated") or (
                    error.pos > len(self._held) - _TAIL
                )
                if not unread or len(self._held) - self._at > _LONGEST or not self._more():
                    raise _Damage(error.msg, self._offset_of(error.pos)) from None

    def _pass(self, end: int) -> None:
        self.offset = self._offset_of(end)
        self._at = end

    def _offset_of(self, place: int) -> int:
        passed = self._held[self._at : place]
        return self.offset + len(passed.encode(errors="surrogateescape"))

    def _more(self) -> bool:
        """Read on, twice as much as is held; return whether there was something."""
        size = max(_CHUNK, len(self._held) - self._at)
        content = self._handle.read(size)
        self._held = self._held[self._at :] + self._decode(content, not content)
        self._at = 0
        return bool(content)

"""The files of MMBench: a row for every question, or one for each rotation of its options."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

from djsandbox_ray.dataset.source_files import SourceFile
from djsandbox_ray.dataset.tables import csv_rows, header
from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.evaluation.vqa.made_elsewhere import dialect_of
from djsandbox_ray.evaluation.vqa.options import LETTERS
from djsandbox_ray.evaluation.vqa.pictures import (
    BenchmarkImage,
    PicturesConfig,
    PicturesSource,
    decoded,
    objects_of,
    text_at,
)

Language = Literal["en", "cn"]

PASS = 1_000_000
"""What the index of a question goes up by from one rotation of its options to the next."""
_LONGEST_INDEX = 64
"""A cell of so many characters is no image, but the index of the row that has it."""
_NOTHING = ("", "nan", "None")
"""What stands in cells without a value."""
_SPOKEN: dict[str, Language] = {"en": "en", "zh": "cn", "cn": "cn"}


class MmBenchFilesConfig(PicturesConfig):
    """MMBench's table, or JSON Lines with ``image`` as a path."""

    language: Language = "en"
    """Which lines of a file that says so (``lang``) are read."""


class MmBenchFiles(PicturesSource):
    """MMBench's TSV files, with images in base64; or JSON Lines with their paths.

    Columns are ``index``, ``question``, ``hint``, ``A`` to ``D``, ``answer``, ``l2-category`` or
    ``category``, and ``image``. Rows whose ``index`` is a million higher are the same question with
    its options moved on by one.
    """

    SUFFIXES: ClassVar[tuple[str, ...]] = (".tsv", ".jsonl")
    Config = MmBenchFilesConfig
    BENCHMARK: ClassVar[str] = "mmbench"
    config: MmBenchFilesConfig

    def pictures(self, files: Sequence[SourceFile]) -> list[BenchmarkImage]:
        """Read the questions, each with all of its rotations that there are."""
        rows = [row for file in files for row in self._rows(file)]
        by_question: dict[int, list[MmBenchRow]] = {}
        for row in rows:
            by_question.setdefault(row.index % PASS, []).append(row)
        by_index = {row.index: row for row in rows}
        found: dict[Any, BenchmarkImage] = {}
        for passes in map(_in_order, by_question.values()):
            image, place = _shown(by_index, passes[0]), passes[0].place
            picture = BenchmarkImage(place, image.paths, image.read)
            picture = found.setdefault((image.paths, image.content), picture)
            picture.questions.append(_question(passes))
        return list(found.values())

    def _rows(self, file: SourceFile) -> Iterator[MmBenchRow]:
        if file.path.lower().endswith(".tsv"):
            yield from _table_rows(file)
            return
        for place, entry in objects_of(file):
            spoken = _SPOKEN.get(str(entry.get("lang", self.config.language)))
            if spoken == self.config.language:
                image = ImageCell((text_at(place, entry, "image"),))
                yield row_of(place, entry, entry.get("options"), image)


@dataclass(frozen=True)
class ImageCell:
    """Where an image is: a path, a cell of a table, or in another row."""

    paths: tuple[str, ...] = ()
    read: partial[bytes] | None = None
    content: bytes = b""
    """Tells its cell from others."""
    row: int | None = None
    """The index of the row that has it."""


@dataclass(frozen=True)
class MmBenchRow:
    """A rotation of a question, as it stands in a file."""

    place: str
    index: int
    question: str
    hint: str
    category: str
    options: dict[str, str]
    answer: str
    image: ImageCell


def _table_rows(file: SourceFile) -> Iterator[MmBenchRow]:
    """Read a table; of the images only where they stand, and what tells them apart."""
    dialect = dialect_of(file)
    names = header(file, dialect)
    if lacking := [name for name in ("index", "question", "A", "B", "image") if name not in names]:
        raise BadInput(
            f"{file.name}: no column {', '.join(lacking)} (there are: {', '.join(names)})"
        )
    start = line = 0
    for row in csv_rows(file, dialect, names):
        place, offset, first = f"{file.name}:{row.line + 1}", start, line
        start, line = row.end, row.line + row.lines
        if row.fault:
            raise BadInput(f"{place}: {row.fault}")
        if row.line == 0:
            continue
        cell = row.values["image"].strip()
        if len(cell) > _LONGEST_INDEX:
            read = partial(_cell, file, names, offset, first, place)
            image = ImageCell((), read, hashlib.blake2b(cell.encode(), digest_size=16).digest())
        else:
            image = ImageCell(row=whole_number(place, "image", cell))
        options = {name: row.values[name] for name in names if name in LETTERS}
        yield row_of(place, row.values, options, image)


def _cell(file: SourceFile, names: list[str], offset: int, line: int, place: str) -> bytes:
    """Return the image of a row of a table that begins at an offset in bytes."""
    for row in csv_rows(file, dialect_of(file), names, offset, line):
        if row.fault or f"{file.name}:{row.line + 1}" != place:
            break
        return decoded(place, row.values["image"].strip())
    raise SandboxError(f"{place}: the file has changed while it was read")


def row_of(place: str, entry: Mapping[str, Any], listed: Any, image: ImageCell) -> MmBenchRow:
    """Return a rotation of a question.

    Args:
        place: of the entry, for messages.
        entry: holds index, question, answer, and hint and category if it has them.
        listed: texts by letter; an empty one is none.
        image: that is asked about.

    Raises:
        BadInput: it has no answer, or none that is one of its options.
    """
    if not isinstance(listed, dict):
        raise BadInput(f"{place}: 'options' is to hold texts by letter")
    options = {
        str(letter): str(text).strip()
        for letter, text in sorted(listed.items())
        if str(text).strip() not in _NOTHING and text is not None
    }
    answer = str(entry.get("answer") or "").strip()
    if answer in _NOTHING:
        raise BadInput(
            f"{place}: it has no answer: those of MMBench's test part are not published; its dev "
            "part has them"
        )
    if len(options) < 2 or not set(options) <= set(LETTERS) or answer not in options:
        found = ", ".join(options) or "none"
        raise BadInput(f"{place}: the answer {answer!r} is none of at least two options ({found})")
    index = next((entry[key] for key in ("index", "id") if entry.get(key) is not None), None)
    hint = str(entry.get("hint") or "").strip()
    category = next((str(entry[key]) for key in ("l2-category", "category") if entry.get(key)), "")
    return MmBenchRow(
        place,
        whole_number(place, "index", index),
        text_at(place, entry, "question").strip(),
        "" if hint in _NOTHING else hint,
        category,
        options,
        answer,
        image,
    )


def whole_number(place: str, key: str, value: Any) -> int:
    """Return a number that tables may hold as a fraction, or as text.

    Raises:
        BadInput: it is none from 0 on.
    """
    try:
        number = float(value)
        if number < 0 or not number.is_integer():
            raise ValueError
    except (TypeError, ValueError):
        raise BadInput(f"{place}: {key!r} is to be a whole number, not {value!r}") from None
    return int(number)


def _in_order(rows: list[MmBenchRow]) -> list[MmBenchRow]:
    """Return the rotations of a question; there is one, or there are all."""
    passes = sorted(rows, key=lambda row: row.index)
    numbers = [row.index // PASS for row in passes]
    if numbers not in ([0], list(range(len(passes[0].options)))):
        raise BadInput(
            f"{passes[0].place}: the question {passes[0].index % PASS} stands there in the passes "
            f"{numbers}, with {len(passes[0].options)} options: pass 0 alone is needed, or one for "
            "each option"
        )
    for row in passes[1:]:
        if len(row.options) != len(passes[0].options):
            raise BadInput(f"{row.place}: it has other options than {passes[0].place}")
    return passes


def _shown(images: Mapping[int, MmBenchRow], row: MmBenchRow) -> ImageCell:
    """Return the image of a row, which may be that of another one."""
    if row.image.row is None:
        return row.image
    found = images.get(row.image.row)
    if found is None or found.image.row is not None:
        why = "there is no such row" if found is None else "that row has none itself"
        raise BadInput(f"{row.place}: its image is that of row {row.image.row}, but {why}")
    return found.image


def _question(passes: Sequence[MmBenchRow]) -> dict[str, Any]:
    first = passes[0]
    return {
        "id": str(first.index),
        "question": first.question,
        "hint": first.hint,
        "category": first.category,
        "passes": [{"options": row.options, "answer": row.answer} for row in passes],
    }

"""Answers that other programs have written, one to every question of a benchmark.

Nothing is skipped: an answer without a question is an error, and so is a question without one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from djsandbox_ray.dataset.faults import shown
from djsandbox_ray.dataset.source_files import SourceFile, find_files
from djsandbox_ray.dataset.tables import Dialect, csv_rows, header
from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.vqa.pictures import document_of, objects_of, text_at

SUFFIXES = (".jsonl", ".json", ".tsv", ".csv")
"""What files of answers end in."""
LONGEST = 64 << 20
"""Characters of one value of a table: it may be an image in base64."""
_SHOWN = 3


@dataclass(frozen=True)
class Line:
    """An answer as it stands in a file."""

    file: SourceFile = field(repr=False)
    place: str
    """``file:line``, from 1 on."""
    values: Mapping[str, Any]

    def text(self, *keys: str) -> str:
        """Return the text under one of some keys; it may be empty.

        Raises:
            BadInput: none is there.
        """
        return text_at(self.place, self.values, *keys, blank=True)


def answer_lines(path: str) -> list[Line]:
    """Return the answers of a file, or of all files of a folder.

    Args:
        path: JSON Lines, a JSON list of objects, or a table with a line of names (CSV, TSV).

    Raises:
        BadInput: there are none, or a line is none; says which.
    """
    lines = [line for file in answer_files(path) for line in _lines(file)]
    if not lines:
        raise BadInput(f"{path!r} holds no answers")
    return lines


def answer_files(path: str, suffixes: tuple[str, ...] = SUFFIXES) -> list[SourceFile]:
    """Find files of answers.

    Raises:
        BadInput: there are none, or they are Excel's.
    """
    if path.lower().endswith((".xlsx", ".xls")):
        raise BadInput(
            f"{path!r}: tables of Excel are not read; save it as .csv or .tsv (in Python: "
            "pandas.read_excel(...).to_csv(..., index=False)), or as .jsonl"
        )
    return find_files(path, suffixes)


def _lines(file: SourceFile) -> Iterator[Line]:
    ending = file.path.lower().rpartition(".")[2]
    if ending in ("csv", "tsv"):
        for line, values in table_rows(file):
            yield Line(file, f"{file.name}:{line}", values)
    elif _is_document(file):
        document = document_of(file)
        entries = document if isinstance(document, list) else [document]
        for number, entry in enumerate(entries):
            place = f"{file.name}[{number}]"
            if not isinstance(entry, dict):
                raise BadInput(f"{place}: an object is needed, not {type(entry).__name__}")
            yield Line(file, place, entry)
    else:
        for place, values in objects_of(file):
            yield Line(file, place, values)


def _is_document(file: SourceFile) -> bool:
    """Say whether a file is one list; those of POPE end in .json, and have lines."""
    with file.open() as handle:
        return handle.read(1 << 10).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def table_rows(file: SourceFile) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows of a CSV or TSV file with their lines, from 1 on.

    Raises:
        BadInput: a row cannot be read.
    """
    dialect = dialect_of(file)
    rows = csv_rows(file, dialect, header(file, dialect))
    next(rows, None)
    for row in rows:
        if row.fault:
            raise BadInput(f"{file.name}:{row.line + 1}: {row.fault}")
        yield row.line + 1, row.values


def dialect_of(file: SourceFile) -> Dialect:
    """Return how the values of a table are told apart, by the name of its file."""
    return Dialect("\t" if file.path.lower().endswith(".tsv") else ",", longest=LONGEST)


def assigned(
    lines: Sequence[Line],
    wanted: Mapping[Any, Sequence[str]],
    told: Callable[[Line], Hashable],
    said: Callable[[Line], str],
) -> dict[str, str]:
    """Return the answer to every question, by its key.

    Args:
        lines: the answers.
        wanted: keys of questions, by what tells them from others; several have an answer each,
            in order.
        told: returns which question a line answers.
        said: returns the answer of a line.

    Raises:
        BadInput: questions have no answer, or answers no question; says how many and which.
    """
    open_questions = {ident: deque(keys) for ident, keys in wanted.items()}
    found: dict[str, str] = {}
    surplus = []
    for line in lines:
        ident = told(line)
        if keys := open_questions.get(ident):
            found[keys.popleft()] = said(line)
        else:
            again = "one more to" if ident in open_questions else "none is"
            surplus.append(f"{line.place} ({again} {shown(_shortly(ident))})")
    total = sum(map(len, wanted.values()))
    lacking = [ident for ident, keys in open_questions.items() for _ in keys]
    if lacking or surplus:
        raise BadInput(
            " and ".join(
                part
                for part in (
                    f"{len(lacking)} of {total} questions have no answer: "
                    f"{_some([shown(_shortly(ident)) for ident in lacking])}" * bool(lacking),
                    f"{len(surplus)} of {len(lines)} answers belong to no question: "
                    f"{_some(surplus)}" * bool(surplus),
                )
                if part
            )
        )
    return found


def _shortly(ident: Hashable) -> str:
    return " / ".join(map(str, ident)) if isinstance(ident, tuple) else str(ident)


def _some(names: Sequence[str]) -> str:
    more = f", ... ({len(names)} in all)" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more

"""What models have answered, kept in the storage: no question is asked of a model twice.

``answers/<training id>/<samples>/<asking id>.parquet`` is a folder with a part per batch of
questions, written as soon as the batch is answered: a kill loses one batch. A part is named after
its content, so that one that is not what was written is known, and does not count: only what it
held is asked again. The training id is that of a trial without its evaluators.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from djsandbox_ray.errors import SandboxError
from djsandbox_ray.evaluation.asking import Answer, Answerer, Asked
from djsandbox_ray.storage.store import Storage

logger = logging.getLogger(__name__)

FOLDER = "answers"
BATCH = 256
"""Questions that are answered before their answers are kept."""
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("row", pa.int64()),
        ("prompt", pa.string()),
        ("max_new_tokens", pa.int64()),
        ("text", pa.string()),
        ("tokens", pa.int64()),
        ("cut", pa.bool_()),
    ]
)
"""Of a part: what was asked, and what was answered."""
_SUFFIX = ".parquet"
_DIGEST_BYTES = 16
_READERS = 8


class Unanswered(SandboxError):
    """Answers are not stored, and there is no model to ask."""


@dataclass(frozen=True)
class AnswerStore:
    """The answers of a model: of one training, after so many samples."""

    storage: Storage
    training: str
    """Id of the training."""
    samples: int
    """Seen in training when it was asked."""

    def of(self, asking: str, answerer: Answerer | None = None) -> StoredAnswers:
        """Return the answers to what one evaluator asks.

        Args:
            asking: id of what is asked.
            answerer: the model, for what is not stored; None where there is none.
        """
        folder = f"{FOLDER}/{self.training}/{self.samples}/{asking}{_SUFFIX}"
        return StoredAnswers(self.storage, folder, answerer)


class StoredAnswers:
    """Answers out of a folder of the storage, and of a model where they are not there.

    Args:
        storage: where they are kept.
        folder: in it.
        answerer: the model; None where there is none.
    """

    def __init__(self, storage: Storage, folder: str, answerer: Answerer | None = None) -> None:
        self._storage, self._folder, self._answerer = storage, folder, answerer
        self._kept: dict[tuple[Any, ...], Answer] | None = None

    def answers(self, asked: Sequence[Asked]) -> dict[str, Answer]:
        """Return the answer to every question, by key.

        A stored answer counts only where it is one to the same text about the same row.

        Raises:
            Unanswered: some are not stored, and there is no model.
            SandboxError: the model leaves out a question, or answers one that it was not asked.
        """
        if self._kept is None:
            self._kept = dict(self._read())
        kept = self._kept
        lacking = [one for one in asked if _asked(one) not in kept]
        if lacking and self._answerer is None:
            raise Unanswered(
                f"{self._storage.shown}/{self._folder}: {len(lacking)} of {len(asked)} answers are "
                f"not there, the first to {lacking[0].key!r}; they take the model, which is gone"
            )
        for start in range(0, len(lacking), BATCH):
            batch = lacking[start : start + BATCH]
            kept.update(self._answered(batch, self._answerer))
        return {one.key: kept[_asked(one)] for one in asked}

    def _answered(
        self, batch: Sequence[Asked], answerer: Answerer | None
    ) -> dict[tuple[Any, ...], Answer]:
        """Have a batch answered, and keep the answers."""
        assert answerer is not None
        given = {answer.key: answer for answer in answerer.answer(batch)}
        keys = {one.key for one in batch}
        if given.keys() != keys:
            odd = sorted(given.keys() ^ keys)
            what = "none" if odd[0] in keys else "one that nobody asked for"
            raise SandboxError(
                f"the model was asked {len(batch)} questions; of {odd[0]!r} it gave {what} "
                f"({len(odd)} such in all)"
            )
        rows = [(*_asked(one), *_said(given[one.key])) for one in batch]
        columns = [list(column) for column in zip(*rows, strict=True)]
        self._write(pa.table(columns, schema=SCHEMA))
        return {_asked(one): given[one.key] for one in batch}

    def _write(self, part: pa.Table) -> None:
        buffer = pa.BufferOutputStream()
        pq.write_table(part, buffer)
        data = buffer.getvalue().to_pybytes()
        self._storage.write_bytes(f"{self._folder}/{_digest(data)}{_SUFFIX}", data)

    def _read(self) -> Iterator[tuple[tuple[Any, ...], Answer]]:
        """Yield what all parts hold, by what was asked.

        One key may have been that of several questions, as a user's code has changed.
        """
        names = sorted(name for name in self._storage.names(self._folder) if name.endswith(_SUFFIX))
        with ThreadPoolExecutor(_READERS) as readers:
            for part in readers.map(self._part, names):
                for row in part:
                    question = (row["key"], row["row"], row["prompt"], row["max_new_tokens"])
                    yield question, Answer(row["key"], row["text"], row["tokens"], row["cut"])

    def _part(self, name: str) -> list[dict[str, Any]]:
        """Return the rows of a part; none if it is not what was written."""
        path = f"{self._folder}/{name}"
        data = self._storage.read_bytes(path)
        if f"{_digest(data)}{_SUFFIX}" == name:
            return list(pq.read_table(pa.BufferReader(data)).to_pylist())
        logger.warning(
            "%s/%s is not what was written: its questions are asked again",
            self._storage.shown,
            path,
        )
        return []


def _asked(one: Asked) -> tuple[Any, ...]:
    """Return what an answer belongs to, beside the model and the set."""
    return (one.key, one.row, one.text, one.max_new_tokens)


def _said(answer: Answer) -> tuple[Any, ...]:
    return (answer.text, answer.tokens, answer.cut)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()

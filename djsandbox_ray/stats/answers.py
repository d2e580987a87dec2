"""Answers that were paid for: kept one by one, so that no kill makes a run pay for one again.

``answers/<operator id>/`` in the storage, for samples of any dataset, by the digest of what was
asked about. An answer is a file of its own in ``open/`` until the batch that it belongs to is
through; then the batch is one file, and the folder of its single ones goes. What lies there singly
when another run begins, that one brings together in a file beside it, and writes over none: who is
at the batch may live, as a run on another dataset does, and answers lie in more than one file then.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any

from djsandbox_ray.errors import Missing
from djsandbox_ray.storage.store import Storage


@dataclass(frozen=True)
class Reply:
    """What became of one sample."""

    values: Mapping[str, float]
    """Per statistic; empty where no answer could be read."""
    tokens: int
    """What all its requests cost, those that were in vain included."""
    reason: str = ""
    """Why there are no values."""


def digest_of(text: str) -> str:
    """Hash what is asked about; 32 hex digits."""
    return blake2b(text.encode(), digest_size=16).hexdigest()


class Answers:
    """The answers about one operator; safe for many threads.

    Where none of earlier runs could be read, they are asked for again: what was wrong may have been
    mended since, and it was nothing that a sample holds.

    Args:
        storage: where they lie.
        operator_id: whose statistics they give.

    Raises:
        Damaged: a file of earlier answers is not what was written.
    """

    def __init__(self, storage: Storage, operator_id: str) -> None:
        self._storage, self._folder = storage, f"answers/{operator_id}"
        self._lock = threading.Lock()
        self._known: dict[str, Reply] = {}
        self._batch: dict[str, Reply] = {}
        self._open = self._new()
        self._tokens = 0
        self._any_readable = False
        for batch in storage.names(f"{self._folder}/open"):  # of killed runs, or of one elsewhere
            self._bring_together(batch)
        batches: dict[str, dict[str, Any]] = {}
        for name in storage.names(self._folder):
            if name.endswith(".json"):
                batch = name.removesuffix(".json").partition("-")[0]
                batches.setdefault(batch, {}).update(self._read(name))
        for answers in batches.values():
            for digest, fields in answers.items():
                self._note(digest, Reply(**fields))
        if not self._any_readable:
            self._known.clear()

    def __len__(self) -> int:
        return len(self._known)

    @property
    def tokens(self) -> int:
        """What all answers cost, those of earlier runs included."""
        return self._tokens

    @property
    def any_readable(self) -> bool:
        """Whether at least one answer could be read."""
        return self._any_readable

    def get(self, digest: str) -> Reply | None:
        """Return the answer about a sample, if there is one."""
        return self._known.get(digest)

    def put(self, digest: str, answer: Reply) -> None:
        """Keep an answer; it is in the storage when this returns.

        Raises:
            StorageFailed: there is no room.
        """
        path = f"{self._folder}/open/{self._open}/{digest}.json"
        self._storage.write_sealed(path, {"answers": {digest: asdict(answer)}})
        with self._lock:
            self._batch[digest] = answer
            self._note(digest, answer)

    def close_batch(self) -> None:
        """Make one file of the answers since the last call."""
        with self._lock:
            batch, self._batch = self._batch, {}
            name, self._open = self._open, self._new()
        if batch:
            self._write(name, {digest: asdict(answer) for digest, answer in batch.items()})
            self._storage.remove(f"{self._folder}/open/{name}")

    def _bring_together(self, batch: str) -> None:
        """Make one file of what a batch holds singly, by a name that only the same answers give."""
        folder = f"open/{batch}"
        names = self._storage.names(f"{self._folder}/{folder}")
        found: dict[str, Any] = {}
        for name in names:
            with suppress(Missing):  # the batch has become one file meanwhile
                found |= self._read(f"{folder}/{name}")
        if found:
            self._write(f"{batch}-{digest_of(' '.join(sorted(found)))}", found)
        # One by one: whoever is at work elsewhere may have written another one beside them.
        for name in names:
            self._storage.remove(f"{self._folder}/{folder}/{name}")
        self._storage.remove_empty(f"{self._folder}/{folder}")

    def _read(self, name: str) -> dict[str, Any]:
        answers: dict[str, Any] = self._storage.read_sealed(f"{self._folder}/{name}")["answers"]
        return answers

    def _write(self, name: str, answers: Mapping[str, Any]) -> None:
        listed = dict(sorted(answers.items()))
        self._storage.write_sealed(f"{self._folder}/{name}.json", {"answers": listed})

    def _note(self, digest: str, answer: Reply) -> None:
        self._tokens += answer.tokens
        if answer.values or digest not in self._known:
            self._known[digest] = answer
        self._any_readable |= bool(answer.values)

    @staticmethod
    def _new() -> str:
        return uuid.uuid4().hex

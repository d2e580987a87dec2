"""Answers that were paid for: kept one by one, so that no kill makes a run pay for one again.

``answers/<operator id>/`` in the storage, for samples of any dataset, by the digest of what was
asked about. An answer is a file of its own in ``open/`` until the batch that it belongs to is
through; then the batch is one file, and the folder of its single ones goes. Those that a killed run
has left, the next makes a batch.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from hashlib import blake2b

from djsandbox_ray.errors import Missing
from djsandbox_ray.storage.store import Storage


@dataclass(frozen=True)
class Answer:
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

    Args:
        storage: where they lie.
        operator_id: whose statistics they give.

    Raises:
        Damaged: a file of earlier answers is not what was written.
    """

    def __init__(self, storage: Storage, operator_id: str) -> None:
        self._storage, self._folder = storage, f"answers/{operator_id}"
        self._lock = threading.Lock()
        self._known: dict[str, Answer] = {}
        self._batch: dict[str, Answer] = {}
        self._open = self._new()
        self._tokens = 0
        left = []
        for batch in storage.names(f"{self._folder}/open"):  # of killed runs, or of one elsewhere
            for name in storage.names(f"{self._folder}/open/{batch}"):
                with suppress(Missing):  # its batch has become one file, which is read below
                    self._take(f"open/{batch}/{name}")
                    left.append((batch, name))
        self._write_batch(self._new(), self._known)
        for name in storage.names(self._folder):
            if name.endswith(".json"):
                self._take(name)
        # One by one: whoever is at work elsewhere may have written another one beside them.
        for batch, name in left:
            storage.remove(f"{self._folder}/open/{batch}/{name}")
        for batch in {batch for batch, _ in left}:
            storage.remove_empty(f"{self._folder}/open/{batch}")

    def __len__(self) -> int:
        return len(self._known)

    @property
    def tokens(self) -> int:
        """What all answers cost, those of earlier runs included."""
        return self._tokens

    def get(self, digest: str) -> Answer | None:
        """Return the answer about a sample, if there is one."""
        return self._known.get(digest)

    def put(self, digest: str, answer: Answer) -> None:
        """Keep an answer; it is in the storage when this returns.

        Raises:
            StorageFailed: there is no room.
        """
        path = f"{self._folder}/open/{self._open}/{digest}.json"
        self._storage.write_sealed(path, {"answers": {digest: asdict(answer)}})
        with self._lock:
            self._batch[digest] = self._known[digest] = answer
            self._tokens += answer.tokens

    def close_batch(self) -> None:
        """Make one file of the answers since the last call."""
        with self._lock:
            batch, self._batch = self._batch, {}
            name, self._open = self._open, self._new()
        if batch:
            self._write_batch(name, batch)
            self._storage.remove(f"{self._folder}/open/{name}")

    def _write_batch(self, name: str, batch: Mapping[str, Answer]) -> None:
        if batch:
            listed = {digest: asdict(answer) for digest, answer in sorted(batch.items())}
            self._storage.write_sealed(f"{self._folder}/{name}.json", {"answers": listed})

    def _take(self, name: str) -> None:
        listed = self._storage.read_sealed(f"{self._folder}/{name}")["answers"]
        for digest, fields in listed.items():
            if digest not in self._known:  # a kill may leave one in its batch and by itself
                self._known[digest] = answer = Answer(**fields)
                self._tokens += answer.tokens

    @staticmethod
    def _new() -> str:
        return uuid.uuid4().hex

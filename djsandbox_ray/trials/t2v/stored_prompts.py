"""Embeddings of prompts, stored once: by a hash of the text, each with its own shape and type."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from djsandbox_ray.errors import BadInput, require
from djsandbox_ray.trials.growing import GrownRows
from djsandbox_ray.trials.t2v.base_folder import in_half
from djsandbox_ray.trials.t2v.denoisers import Prompts
from djsandbox_ray.trials.t2v.objective import PromptBook

TEXT = "text_hash"
"""The column that embeddings are known by."""
_DATA = "data"
SCHEMA = pa.schema([(TEXT, pa.int64()), (_DATA, pa.large_binary())])
"""Of a table of embeddings: each a file of safetensors."""
_HELD_BYTES = 1 << 29
"""Of embeddings that a trial keeps in memory; of more, it reads those of a batch."""
Encode = Callable[[Sequence[str]], Prompts]


def text_key(text: str) -> int:
    """Return what a text is known by: the first 64 bits of its BLAKE2b hash."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)


def text_keys(texts: Sequence[str]) -> NDArray[np.int64]:
    """Return what texts are known by; shape (n,)."""
    return np.array([text_key(text) for text in texts], dtype=np.int64)


def prompt_batch(texts: Sequence[str], prompts: Prompts, half: bool) -> pa.RecordBatch:
    """Return embeddings as rows of a table.

    Args:
        texts: n of them.
        prompts: what was made of them.
        half: whether they are kept in bfloat16, which they must be exactly.
    """
    save = require("safetensors.torch", "t2v").save
    rows = []
    for place in range(len(texts)):
        one = prompts.take(slice(place, place + 1))
        known = {field.name: getattr(one, field.name) for field in fields(one)}
        tensors = {
            name: (in_half(value) if half else value)[0].contiguous()
            for name, value in known.items()
            if value is not None
        }
        rows.append(save(tensors))
    return pa.RecordBatch.from_arrays(
        [pa.array(text_keys(texts)), pa.array(rows, pa.large_binary())], schema=SCHEMA
    )


class StoredPrompts:
    """Random access to stored embeddings, by text. Opened on first use.

    Args:
        uri: of a table of :data:`SCHEMA`.
    """

    def __init__(self, uri: str) -> None:
        self.uri, self._rows = uri, GrownRows(uri, TEXT)

    def holds(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """Return which of some texts are there; shape (n,)."""
        return self._rows.holds(text_keys(texts))

    def take(self, texts: Sequence[str]) -> Prompts:
        """Return what the text encoder made of texts, in order, in float32.

        Raises:
            BadInput: one is not there.
        """
        torch, load = require("torch", "clip"), require("safetensors.torch", "t2v").load
        if not (held := self.holds(texts)).all():
            text = texts[int(np.flatnonzero(~held)[0])]
            raise BadInput(f"{self.uri}: there is no embedding of {text!r:.80}")
        read = [load(row) for row in self._rows.take(text_keys(texts), _DATA).to_pylist()]
        return Prompts(
            **{
                name: torch.stack([_as_it_was(one[name]) for one in read])
                for name in (field.name for field in fields(Prompts))
                if name in read[0]
            }
        )


def _as_it_was(value: Any) -> Any:
    return value.float() if value.is_floating_point() else value


class StoredFirst:
    """Embeddings of prompts that are stored, and of others, by the text encoder.

    Args:
        stored: None where nothing is.
        otherwise: makes those that are not stored.
    """

    def __init__(self, stored: StoredPrompts | None, otherwise: Encode) -> None:
        self._stored, self._otherwise = stored, otherwise

    def __call__(self, texts: Sequence[str]) -> Prompts:
        """Return the embeddings of texts, in order, on the CPU."""
        torch = require("torch", "clip")
        if self._stored is None:
            return self._otherwise(texts)
        different = list(dict.fromkeys(texts))
        held = self._stored.holds(different)
        there = [text for text, is_held in zip(different, held, strict=True) if is_held]
        lacking = [text for text, is_held in zip(different, held, strict=True) if not is_held]
        parts = [*self._parts(there, lacking)]
        found = parts[0] if len(parts) == 1 else parts[0].joined(parts[1])
        place = {text: at for at, text in enumerate([*there, *lacking])}
        return found.take(torch.tensor([place[text] for text in texts]))

    def _parts(self, there: list[str], lacking: list[str]) -> Iterator[Prompts]:
        if there and self._stored is not None:
            yield self._stored.take(there)
        if lacking:
            yield self._otherwise(lacking)

    def book(self, captions: Sequence[str]) -> PromptBook:
        """Return the embeddings of all captions of a training.

        They are in memory, unless they are many and stored.
        """
        stored, different = self._stored, ["", *dict.fromkeys(captions)]
        if stored is None or not stored.holds(different).all():
            return PromptBook(captions, self)
        one = stored.take(different[:1])
        tensors = (one.embeddings, one.mask, one.pooled)
        each = sum(value.nbytes for value in tensors if value is not None)
        if each * len(different) <= _HELD_BYTES:
            return PromptBook(captions, self)
        return _StoredBook(captions, stored)


class _StoredBook(PromptBook):
    """Embeddings that are read when they are asked for."""

    def __init__(self, texts: Sequence[str], stored: StoredPrompts) -> None:
        self._texts = list(dict.fromkeys(["", *texts]))
        self._place = {text: place for place, text in enumerate(self._texts)}
        self._stored = stored

    def take(self, places: NDArray[np.int64]) -> Prompts:
        """Read the prompts at some places."""
        return self._stored.take([self._texts[place] for place in places.tolist()])

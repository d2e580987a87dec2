"""What a model that answers is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable


@dataclass(frozen=True)
class Asked:
    """One question about the media of one row of an evaluation set."""

    key: str
    """Tells it from all others of its evaluator."""
    data: str
    """Id of the evaluation set."""
    row: int
    """Row of the set with the image; its media stand before the text."""
    text: str
    """The user's turn, without any token of an image and without a template."""
    max_new_tokens: int


@dataclass(frozen=True)
class Answer:
    """What a model has said to one question, by greedy decoding."""

    key: str
    """Of the question."""
    text: str
    """Without tokens of the template."""
    tokens: int
    """How many were generated, without an end token."""
    cut: bool
    """Whether ``max_new_tokens`` was reached without an end token."""


@runtime_checkable
class Answerer(Protocol):
    """What a trained model that answers questions offers to evaluators."""

    def answer(self, asked: Sequence[Asked]) -> list[Answer]:
        """Answer every question; the order of the answers does not count."""

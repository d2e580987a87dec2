"""What models that answer by greedy decoding have in common, whatever reads the images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.errors import BadInput, SandboxError, require
from djsandbox_ray.evaluation.asking import Answer, Asked
from djsandbox_ray.trials.conversations import images_of

GREEDY: Mapping[str, Any] = {
    "do_sample": False,
    "num_beams": 1,
    "temperature": None,
    "top_p": None,
    "top_k": None,
    "use_cache": True,
}
"""For ``generate``: the likeliest token each time, whatever a model's own files say."""


class SetImages:
    """The images of evaluation sets.

    Args:
        sets: URIs of their tables, by id.
    """

    def __init__(self, sets: Mapping[str, str]) -> None:
        self._tables = {id: SampleTable(uri) for id, uri in sets.items()}

    def counts(self, asked: Sequence[Asked]) -> list[int]:
        """Return how many images each question is about."""
        rows: dict[str, list[int]] = {}
        for question in asked:
            rows.setdefault(question.data, []).append(question.row)
        counts: dict[tuple[str, int], int] = {}
        for data, some in rows.items():
            table, some = self._table(data), sorted(set(some))
            if table.is_wide:
                found = [len(media) for media in table.media(some, "image")]
            else:
                found = [1] * len(some)
            counts |= {(data, row): count for row, count in zip(some, found, strict=True)}
        return [counts[question.data, question.row] for question in asked]

    def files(self, data: str, rows: Sequence[int]) -> dict[int, tuple[bytes, ...]]:
        """Return the files of the images of some rows of a set, by row."""
        some = sorted(set(rows))
        return dict(zip(some, images_of(self._table(data), some), strict=True))

    def _table(self, data: str) -> SampleTable:
        if data not in self._tables:
            raise SandboxError(f"the model was not given the evaluation set {data}")
        return self._tables[data]


def batches(order: Sequence[int], asked: Sequence[Asked], size: int) -> Iterator[list[int]]:
    """Cut questions into batches of one set, and of one length that answers may have.

    Args:
        order: numbers of questions, those of one length together.
        asked: all questions.
        size: of a batch, at most.
    """
    some: list[int] = []
    for at in order:
        one, first = asked[at], asked[some[0]] if some else asked[at]
        alike = (one.data, one.max_new_tokens) == (first.data, first.max_new_tokens)
        if len(some) == size or not alike:
            yield some
            some = []
        some.append(at)
    if some:
        yield some


def check_room(question: Asked, tokens: int, max_tokens: int) -> None:
    """Look whether a question and its answer fit.

    Args:
        question: that is asked.
        tokens: that it has, its images included.
        max_tokens: of both.

    Raises:
        BadInput: they do not.
    """
    if tokens + question.max_new_tokens > max_tokens:
        raise BadInput(
            f"the question {question.key!r} has {tokens} tokens, and {question.max_new_tokens} may "
            f"be answered: trials.model.max_tokens allows {max_tokens} together"
        )


def read_answer(
    question: Asked, ids: Sequence[int], ends: frozenset[int], decode: Callable[[list[int]], str]
) -> Answer:
    """Return what a model has said.

    Args:
        question: that was asked.
        ids: the tokens that it went on with, padding behind them included.
        ends: tokens at each of which an answer is over.
        decode: makes text of tokens.
    """
    ended = [at for at, token in enumerate(ids) if token in ends]
    length = ended[0] if ended else len(ids)
    return Answer(question.key, decode(list(ids[:length])), length, cut=not ended)


@contextmanager
def evaluating(model: Any, device: str, half: bool) -> Iterator[None]:
    """Put a model into evaluation mode, without gradients, and back.

    Args:
        model: a torch module.
        device: that it is on.
        half: whether it computes in bfloat16.
    """
    torch = require("torch", "clip")
    training, kind = model.training, torch.device(device).type
    model.eval()
    try:
        with torch.inference_mode(), torch.autocast(kind, torch.bfloat16, enabled=half):
            yield
    finally:
        model.train(training)

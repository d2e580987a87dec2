"""Conversations as a processor reads them, and which of the tokens are learnt: proven, not sought.

A processor's chat template writes a conversation out, and the processor makes tokens of that, of
which an image takes as many as it likes. So it is asked several times: for the conversation up to
where an answer begins, up to where it ends, and for the whole. The first must be an exact beginning
of the second, and that of the third; then what lies between is the answer, and anything else is an
error. An image is thus processed twice for a pair.

What users write is text: where it spells a special token, a blank behind the first character breaks
that up, as a processor would read it as one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from djsandbox_ray.dataset.faults import described
from djsandbox_ray.dataset.images import decode, shortened
from djsandbox_ray.dataset.media import IMAGE_TOKEN, VIDEO_TOKEN, Turn
from djsandbox_ray.errors import BadInput
from djsandbox_ray.trials.conversations import NOT_LEARNT
from djsandbox_ray.trials.model_folders import first_line
from djsandbox_ray.trials.text_limit import within

_OTHERWISE = "; a model that is trained otherwise than others is for type: command"
_SIDE = 1024
"""Pixels: an image so long that it would fill the memory, were its shorter side so large, is cut to
its middle. Some processors refuse it."""
_PROBE = (Turn("user", "a"), Turn("assistant", "a"))


@dataclass(frozen=True)
class Processed:
    """A conversation in tokens, with all that a model reads beside them; torch tensors."""

    ids: NDArray[np.int64]
    """Shape (length,)."""
    labels: NDArray[np.int64]
    """Shape (length,): the id where it is learnt, else :data:`NOT_LEARNT`."""
    marks: Mapping[str, Any]
    """Further numbers of every token by name, such as whether it stands for an image; shape
    (1, length, ...)."""
    media: Mapping[str, Any]
    """What stands for the images, by name; the processor puts those of several samples in a row
    along the first axis."""

    @property
    def targets(self) -> int:
        """How many tokens are learnt."""
        return int((self.labels != NOT_LEARNT).sum())

    def cut(self, length: int) -> Processed:
        """Return the first tokens; the images stay."""
        marks = {name: values[:, :length] for name, values in self.marks.items()}
        return Processed(self.ids[:length], self.labels[:length], marks, self.media)


class Script:
    """Turns conversations into tokens by a processor of transformers.

    Args:
        processor: with a chat template.
        max_tokens: longer conversations are cut on the right, but never inside an image.

    Attributes:
        processor: as it was given.
        max_tokens: likewise.

    Raises:
        BadInput: the template does not say where an answer begins and ends.
    """

    def __init__(self, processor: Any, max_tokens: int) -> None:
        self.processor, self._tokenizer = processor, processor.tokenizer
        self.max_tokens = max_tokens
        special = _special(processor)
        self._spelt = re.compile("|".join(map(re.escape, special)) or r"(?!)")
        ids = {int(self._tokenizer.convert_tokens_to_ids(token)) for token in special}
        prompt, whole = (
            self._process(self._messages(_PROBE)[:stop], [], asks=stop == 1) for stop in (1, 2)
        )
        _check_begins(prompt, whole, 1)
        behind = [token for token in whole.ids[len(prompt.ids) :].tolist() if token in ids]
        if not behind:
            raise BadInput(f"the processor's chat template: no token ends an answer{_OTHERWISE}")
        self._end: int = behind[0]
        self._nothing = prompt

    @property
    def ends(self) -> frozenset[int]:
        """The token that ends an answer, and the end of the text."""
        eos = self._tokenizer.eos_token_id
        return frozenset({self._end} if eos is None else {self._end, int(eos)})

    def sample(self, turns: Sequence[Turn], files: Sequence[bytes]) -> Processed:
        """Return a conversation to be learnt; what is too long may have no targets left.

        Args:
            turns: of user and assistant in turns.
            files: of its images, in order.

        Raises:
            BadInput: it cannot be told which tokens are learnt, or the processor refuses it.
        """
        messages, images = self._messages(turns), _decoded(files)
        seen = list(accumulate(turn.text.count(IMAGE_TOKEN) for turn in turns))

        def upto(stop: int, asks: bool = False) -> Processed:
            return self._process(messages[:stop], images[: seen[stop - 1]], asks)

        whole, kept = upto(len(turns)), self._nothing
        labels = np.full(len(whole.ids), NOT_LEARNT, np.int64)
        for place, turn in enumerate(turns):
            if turn.role != "assistant":
                continue
            prompt = upto(place, asks=True)
            if len(prompt.ids) >= self.max_tokens:
                break  # images stand in what users say: none is cut through
            kept = whole if place + 1 == len(turns) else upto(place + 1)
            _check_begins(prompt, kept, place)
            _check_begins(kept, whole, place)
            start = len(prompt.ids)
            ends = np.flatnonzero(kept.ids[start:] == self._end)
            if not len(ends):
                raise BadInput(
                    f"the processor's chat template: turn {place} ends otherwise than the answer "
                    f"of a conversation of two turns{_OTHERWISE}"
                )
            learnt = slice(start, start + int(ends[0]) + 1)
            labels[learnt] = whole.ids[learnt]
        if kept is self._nothing:
            return kept
        return replace(kept, labels=labels[: len(kept.ids)]).cut(self.max_tokens)

    def prompt(self, turns: Sequence[Turn], files: Sequence[bytes]) -> Processed:
        """Return a conversation that waits for an answer, up to where that begins."""
        return self._process(self._messages(turns), _decoded(files), asks=True)

    def together(self, samples: Sequence[tuple[Sequence[Turn], Sequence[bytes]]]) -> dict[str, Any]:
        """Return what the processor makes of several conversations with images at a time.

        They are padded on the right, and not cut.
        """
        messages = [self._messages(turns) for turns, _ in samples]
        images = [_decoded(files) for _, files in samples]
        return self._run([self._written(some, asks=False) for some in messages], images)

    def decode(self, ids: Sequence[int]) -> str:
        """Return what an answer says, without special tokens."""
        text: str = self._tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text.strip()

    def _messages(self, turns: Sequence[Turn]) -> list[dict[str, Any]]:
        """Return turns as chat templates read them.

        The line breaks beside an image, as LLaVA's data have them, are the template's affair.
        """
        found = []
        for turn in turns:
            if VIDEO_TOKEN in turn.text:
                raise BadInput("the conversation has a video; this model reads images alone")
            if turn.role == "assistant" and IMAGE_TOKEN in turn.text:
                raise BadInput("the conversation has an image in an answer: a model reads it only")
            first, *others = map(self._plain, turn.text.split(IMAGE_TOKEN))
            content: list[dict[str, str]] = []
            if not others:
                content = [{"type": "text", "text": first}]
            elif text := first.strip("\n"):
                content = [{"type": "text", "text": text}]
            for other in others:
                content.append({"type": "image"})
                if text := other.strip("\n"):
                    content.append({"type": "text", "text": text})
            found.append({"role": turn.role, "content": content})
        return found

    def _plain(self, text: str) -> str:
        read = within(text, self.max_tokens)
        return self._spelt.sub(lambda found: f"{found[0][0]} {found[0][1:]}", read)

    def _process(
        self, messages: Sequence[dict[str, Any]], images: Sequence[Image.Image], asks: bool
    ) -> Processed:
        """Return what the processor makes of a conversation, with nothing learnt yet."""
        found = self._run([self._written(messages, asks)], [images] if images else [])
        ids = found.pop("input_ids")[0].numpy().astype(np.int64)
        found.pop("attention_mask", None)
        marks = {
            name: values
            for name, values in found.items()
            if tuple(values.shape[:2]) == (1, len(ids)) and not values.is_floating_point()
        }
        media = {name: values for name, values in found.items() if name not in marks}
        return Processed(ids, np.full(len(ids), NOT_LEARNT, np.int64), marks, media)

    def _written(self, messages: Sequence[dict[str, Any]], asks: bool) -> str:
        try:
            text: str = self.processor.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=asks
            )
        except Exception as error:  # a template may raise anything
            raise BadInput(f"the processor's chat template: {first_line(error)}") from error
        return text

    def _run(self, texts: list[str], images: Sequence[Sequence[Image.Image]]) -> dict[str, Any]:
        bos = self._tokenizer.bos_token
        try:
            found = self.processor(
                text=texts,
                images=[list(some) for some in images] or None,
                return_tensors="pt",
                padding=len(texts) > 1,
                padding_side="right",
                # Where a template writes the token that begins a text, there is one already.
                add_special_tokens=not (bos and texts[0].startswith(bos)),
            )
        except (ValueError, TypeError, KeyError, IndexError, RuntimeError) as error:
            name = type(self.processor).__name__
            raise BadInput(f"{name} cannot read a sample: {described(error)}") from error
        if lists := [name for name, values in found.items() if not hasattr(values, "shape")]:
            raise BadInput(f"{type(self.processor).__name__} gives {lists[0]} as no tensor")
        return dict(found)


def _special(processor: Any) -> list[str]:
    """Return the tokens that a processor does not read as text, long ones first."""
    tokenizer = processor.tokenizer
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    own = [value for name, value in vars(processor).items() if name.endswith("_token")]
    tokens = {*tokenizer.all_special_tokens, *added, *(one for one in own if isinstance(one, str))}
    return sorted((one for one in tokens if len(one.strip()) > 1), key=lambda one: (-len(one), one))


def _decoded(files: Sequence[bytes]) -> list[Image.Image]:
    return [shortened(decode(data), _SIDE) for data in files]


def _check_begins(part: Processed, whole: Processed, turn: int) -> None:
    """Look whether a conversation begins with the very tokens that a part of it has.

    Raises:
        BadInput: it does not.
    """
    if not np.array_equal(whole.ids[: len(part.ids)], part.ids):
        raise BadInput(
            f"the processor's chat template: the tokens up to turn {turn} are not those that the "
            f"whole conversation begins with, so that it cannot be told what is learnt{_OTHERWISE}"
        )

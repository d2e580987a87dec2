"""Conversations as tokens, and which of them are learnt: by construction.

A template cuts a conversation into pieces: some text, tokens given by their ids, or the place of an
image; each is learnt or not. Neighbours of a kind are joined and tokenised alone, so that the
boundary of what is learnt is known and never searched for. Whoever tokenises a conversation whole
and then looks for the answers by comparing lengths finds other places with every second tokenizer,
and trains on nothing (LLaVA's "tokenization mismatch", its issues 1166, 1706, 1710).

What users write is text all through: a caption that spells ``</s>`` or ``<image>`` has no such
token.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from djsandbox_ray.dataset.media import IMAGE_TOKEN, VIDEO_TOKEN, Turn
from djsandbox_ray.errors import BadInput, unknown
from djsandbox_ray.trials.conversations import DESCRIBE, NOT_LEARNT
from djsandbox_ray.trials.text_limit import within

CAPTION = "{caption}"
"""Stands for the caption in a template of the user's."""
PLAIN, CHAT = "plain", "chat"
"""Names of templates: that of the first stage, and the tokenizer's own."""
_SENTINELS = (0xE000, 0xF8FF)
"""Unicode's private use area: what no text has, and no template changes."""


@dataclass(frozen=True)
class Span:
    """A part of a conversation as the model reads it: a text, or tokens, or an image."""

    text: str = ""
    ids: tuple[int, ...] = ()
    image: bool = False
    learnt: bool = False


@dataclass(frozen=True)
class Encoded:
    """A conversation in tokens."""

    ids: NDArray[np.int32]
    """Shape (length,)."""
    labels: NDArray[np.int32]
    """Shape (length,): the id where it is learnt, else :data:`NOT_LEARNT`."""
    images: int
    """How many of the conversation's images are in it, from the first on."""

    @property
    def targets(self) -> int:
        """How many tokens are learnt."""
        return int((self.labels != NOT_LEARNT).sum())


class Template(ABC):
    """Where what is said stands, between which words.

    Args:
        tokenizer: of the language model.

    Raises:
        BadInput: the tokenizer lacks a token that the template needs.
    """

    NAME: ClassVar[str]

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        first = tokenizer("a")["input_ids"][:1]
        bos = tokenizer.bos_token_id
        self._start = [Span(ids=(bos,))] if bos is not None and first == [bos] else []

    @property
    @abstractmethod
    def ends(self) -> frozenset[int]:
        """The tokens at each of which an answer is over."""

    @abstractmethod
    def pieces(self, turns: Sequence[Turn]) -> list[Span]:
        """Return the pieces of a conversation; one that ends with the user's turn is a prompt."""

    def _token(self, name: str) -> Span:
        found = self._tokenizer.get_vocab().get(name)
        if found is None:
            raise BadInput(f"template {self.NAME!r}: the tokenizer has no token {name!r}")
        return Span(ids=(int(found),))

    def _end(self) -> Span:
        if self._tokenizer.eos_token_id is None:
            raise BadInput(f"template {self.NAME!r}: the tokenizer has no token that ends a text")
        return Span(ids=(int(self._tokenizer.eos_token_id),), learnt=True)

    def _with_end_of_text(self, *ids: int) -> frozenset[int]:
        eos = self._tokenizer.eos_token_id
        return frozenset(ids) | (frozenset() if eos is None else {int(eos)})

    def _lead(self) -> str:
        """Return what stands before a word behind another one, where pieces are tokenised alone.

        A tokenizer in the manner of SentencePiece begins every text with a blank of its own.
        """
        return "" if self._tokenizer.tokenize("a")[0].startswith("▁") else " "


class Plain(Template):
    """LLaVA's first stage: the image and what is said about it, to the end of the line.

    What the user says is left out.
    """

    NAME = PLAIN
    _SEPARATOR = "\n"

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer)
        word, line = (
            tokenizer(text, add_special_tokens=False)["input_ids"]
            for text in ("a", f"a{self._SEPARATOR}")
        )
        if len(line) <= len(word):
            raise BadInput(
                "template 'plain': the tokenizer has no token for the end of a line, which ends a "
                "caption; another template (caption) ends it by the end of the text"
            )
        self._stop = int(line[-1])

    @property
    def ends(self) -> frozenset[int]:
        """The end of a line, and of the text."""
        return self._with_end_of_text(self._stop)

    def pieces(self, turns: Sequence[Turn]) -> list[Span]:
        """Return the images, and the answers, one a line."""
        images = sum(turn.text.count(IMAGE_TOKEN) for turn in turns)
        found = [*self._start, *([Span(image=True)] * images)]
        for turn in turns:
            if turn.role == "assistant":
                said = turn.text.replace(IMAGE_TOKEN, "")
                found.append(Span(f"{said}{self._SEPARATOR}", learnt=True))
        return found


class Captioned(Template):
    """The images, some words, and what is said about them, to the end of the text.

    Args:
        tokenizer: of the language model.
        words: with ``{caption}`` at their end.
    """

    NAME = "caption"

    def __init__(self, tokenizer: Any, words: str = f"{DESCRIBE} {CAPTION}") -> None:
        super().__init__(tokenizer)
        before, found, behind = words.partition(CAPTION)
        if not found or behind:
            raise BadInput(f"template {words!r}: {CAPTION} must stand in it once, at its end")
        self._before = before.removesuffix(" ")
        self._gap = self._lead() if before != self._before or not before else ""
        self._last = self._end()

    @property
    def ends(self) -> frozenset[int]:
        """The end of the text."""
        return self._with_end_of_text()

    def pieces(self, turns: Sequence[Turn]) -> list[Span]:
        """Return images, words and the answers, a line each."""
        images = sum(turn.text.count(IMAGE_TOKEN) for turn in turns)
        found = [*self._start, *([Span(image=True)] * images), Span(self._before)]
        said = [turn.text.replace(IMAGE_TOKEN, "") for turn in turns if turn.role == "assistant"]
        if said:
            found += [Span(self._gap + "\n".join(said), learnt=True), self._last]
        return found


class Vicuna(Template):
    """LLaVA 1.5's conversations (``vicuna_v1``)."""

    NAME = "vicuna_v1"
    _SYSTEM = (
        "A chat between a curious user and an artificial intelligence assistant. "
        "The assistant gives helpful, detailed, and polite answers to the user's questions."
    )

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer)
        self._last, self._gap = self._end(), self._lead()

    @property
    def ends(self) -> frozenset[int]:
        """The end of the text."""
        return self._with_end_of_text()

    def pieces(self, turns: Sequence[Turn]) -> list[Span]:
        """Return what the system is told, then ``USER: ... ASSISTANT: ...</s>``."""
        found = [*self._start, Span(f"{self._SYSTEM} ")]
        for turn in turns:
            if turn.role == "user":
                found += [Span("USER: "), *_spoken(turn), Span(" ASSISTANT:")]
            else:
                found += [Span(self._gap, learnt=True), *_spoken(turn), self._last]
        return found


class Gemma(Template):
    """Gemma's turns (``gemma``)."""

    NAME = "gemma"

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer)
        self._open, self._close = self._token("<start_of_turn>"), self._token("<end_of_turn>")

    @property
    def ends(self) -> frozenset[int]:
        """The end of a turn, and of the text."""
        return self._with_end_of_text(*self._close.ids)

    def pieces(self, turns: Sequence[Turn]) -> list[Span]:
        """Return the turns, each between its two tokens."""
        found = [*self._start]
        for place, turn in enumerate(turns):
            if turn.role == "user":
                found += [Span("\n")] * bool(place)
                found += [self._open, Span("user\n"), *_spoken(turn), self._close, Span("\n")]
                found += [self._open, Span("model\n")]
            else:
                found += [*_spoken(turn), replace(self._close, learnt=True)]
        return found


class Chat(Template):
    """The tokenizer's own chat template (``chat``).

    It is asked what stands around the turns, with a sign in place of what each of them says: where
    these stand then is known.
    """

    NAME = CHAT

    def __init__(self, tokenizer: Any) -> None:
        super().__init__(tokenizer)
        if not getattr(tokenizer, "chat_template", None):
            raise BadInput("template 'chat': the tokenizer has no chat template")
        self._special = {
            token: int(tokenizer.get_vocab()[token])
            for token in {*tokenizer.all_special_tokens, *_added(tokenizer)}
            if token in tokenizer.get_vocab()
        }
        self._frames: dict[int, list[list[Span]]] = {}
        prompt, told = self._frame(1), self._frame(2)
        if told[:1] != prompt[:1] or told[1] != prompt[1]:
            raise BadInput(
                "template 'chat': an answer does not stand where the template has a model begin "
                "one (it adds words of its own); take another template"
            )
        self._tail: list[Span] = []
        for piece in told[2]:
            self._tail.append(replace(piece, learnt=True))
            if piece.ids:
                break
        else:
            raise BadInput("template 'chat': no token ends an answer")

    @property
    def ends(self) -> frozenset[int]:
        """The token that ends an answer, and the end of the text."""
        return self._with_end_of_text(*self._tail[-1].ids)

    def pieces(self, turns: Sequence[Turn]) -> list[Span]:
        """Return the frame, with what the turns say."""
        frame = self._frame(len(turns))
        found = list(frame[0])
        for place, turn in enumerate(turns):
            behind = frame[place + 1]
            if turn.role == "user":
                found += [*_spoken(turn), *behind]
                continue
            if behind[: len(self._tail)] != [replace(one, learnt=False) for one in self._tail]:
                raise BadInput(f"template 'chat': turn {place} ends otherwise than the last one")
            found += [*_spoken(turn), *self._tail]
            if place + 1 < len(turns):
                found += behind[len(self._tail) :]
        return found

    def _frame(self, turns: int) -> list[list[Span]]:
        """Return what stands before the first turn, between two, and behind the last."""
        if turns not in self._frames:
            signs = [chr(_SENTINELS[0] + place) for place in range(turns)]
            if _SENTINELS[0] + turns > _SENTINELS[1]:
                raise BadInput(f"template 'chat': {turns} turns are too many")
            messages = [
                {"role": ("user", "assistant")[place % 2], "content": sign}
                for place, sign in enumerate(signs)
            ]
            try:
                left = self._tokenizer.apply_chat_template(
                    messages, tokenize=False, add_generation_prompt=turns % 2 == 1
                )
            except Exception as error:  # a template may raise anything
                raise BadInput(f"template 'chat': the tokenizer's template: {error}") from error
            parts = []
            for sign in signs:
                part, found, left = left.partition(sign)
                if not found or sign in left:
                    raise BadInput("template 'chat': the template repeats a turn, or leaves it out")
                parts.append(part)
            self._frames[turns] = [self._cut(part) for part in (*parts, left)]
        return self._frames[turns]

    def _cut(self, text: str) -> list[Span]:
        """Cut a text of the template at its tokens, which are no words there."""
        found: list[Span] = []
        while text:
            at = {name: text.find(name) for name in self._special if name in text}
            name = min(at, key=lambda one: (at[one], -len(one)), default=None)
            before = text if name is None else text[: at[name]]
            found += [Span(before)] * bool(before)
            if name is None:
                return found
            found.append(Span(ids=(self._special[name],)))
            text = text[at[name] + len(name) :]
        return found


def _added(tokenizer: Any) -> list[str]:
    """Return the tokens that stand for themselves, whether or not they are called special."""
    return [str(token) for token in tokenizer.added_tokens_decoder.values()]


def _spoken(turn: Turn) -> list[Span]:
    """Return what a turn says: its text, cut at its images; the assistant's is learnt."""
    learnt = turn.role == "assistant"
    first, *others = turn.text.split(IMAGE_TOKEN)
    found = [Span(first, learnt=learnt)]
    for text in others:
        found += [Span(image=True), Span(text, learnt=learnt)]
    return [piece for piece in found if piece.image or piece.text]


TEMPLATES: Mapping[str, type[Template]] = {
    template.NAME: template for template in (Plain, Captioned, Vicuna, Gemma, Chat)
}


def check_template(name: str) -> str:
    """Return a template's name, or one of the user's own, as it is.

    Raises:
        ValueError: it is neither.
    """
    if name not in TEMPLATES and CAPTION not in name:
        otherwise = f"words with {CAPTION} at their end"
        raise ValueError(str(unknown("template", name, TEMPLATES, otherwise=otherwise)))
    if CAPTION in name and (not name.endswith(CAPTION) or name.count(CAPTION) > 1):
        raise ValueError(f"{CAPTION} must stand in it once, at its end")
    return name


def template_of(name: str, tokenizer: Any) -> Template:
    """Return a template by its name, or one of the user's own, for a tokenizer.

    Raises:
        BadInput: the tokenizer cannot be used with it.
    """
    if name in TEMPLATES:
        return TEMPLATES[name](tokenizer)
    return Captioned(tokenizer, name)


class Transcript:
    """Turns conversations into tokens for one model, in one template.

    Args:
        tokenizer: of the language model.
        template: its name, or words with ``{caption}``.
        image_id: the token that stands for a part of an image.
        image_tokens: how many stand for an image.
        max_tokens: longer ones are cut on the right.

    Raises:
        BadInput: the tokenizer cannot be used with the template.
    """

    def __init__(
        self, tokenizer: Any, template: str, image_id: int, image_tokens: int, max_tokens: int
    ) -> None:
        self._tokenizer = tokenizer
        self.template = template_of(template, tokenizer)
        self.image_id, self.image_tokens, self.max_tokens = image_id, image_tokens, max_tokens

    @property
    def ends(self) -> frozenset[int]:
        """The tokens at each of which an answer is over."""
        return self.template.ends

    def sample(self, turns: Sequence[Turn]) -> Encoded:
        """Return a conversation to be learnt; what is too long may have no targets left."""
        encoded = self._encode(turns)
        return self._cut(encoded) if len(encoded.ids) > self.max_tokens else encoded

    def prompt(self, turns: Sequence[Turn]) -> NDArray[np.int32]:
        """Return a conversation that waits for an answer, up to where that begins."""
        return self._encode(turns).ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return what an answer says, without tokens of the template."""
        text: str = self._tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text.strip()

    def _encode(self, turns: Sequence[Turn]) -> Encoded:
        if any(VIDEO_TOKEN in turn.text for turn in turns):
            raise BadInput("the conversation has a video; this model reads images alone")
        ids: list[int] = []
        labels: list[int] = []
        images = 0
        for piece in _joined(self.template.pieces(turns)):
            new = list(piece.ids) or self._ids(piece.text)
            if piece.image:
                new, images = [self.image_id] * self.image_tokens, images + 1
            ids += new
            labels += new if piece.learnt else [NOT_LEARNT] * len(new)
        labels[:1] = [NOT_LEARNT]  # nothing stands before the first token that could foretell it
        return Encoded(np.array(ids, np.int32), np.array(labels, np.int32), images)

    def _cut(self, encoded: Encoded) -> Encoded:
        """Cut on the right, and never inside an image."""
        ids, stop = encoded.ids, self.max_tokens
        before = int((ids[:stop] == self.image_id).sum())
        part = before % self.image_tokens
        stop -= part
        return Encoded(ids[:stop], encoded.labels[:stop], before // self.image_tokens)

    def _ids(self, text: str) -> list[int]:
        if not text:
            return []
        ids: list[int] = self._tokenizer(
            within(text, self.max_tokens),
            add_special_tokens=False,
            split_special_tokens=True,
            verbose=False,
        )["input_ids"]
        return ids


def _joined(pieces: Sequence[Span]) -> Iterator[Span]:
    """Join neighbours that are text and both learnt, or both not."""
    kept: Span | None = None
    for piece in pieces:
        is_text = not piece.image and not piece.ids
        if kept is not None and is_text and kept.learnt == piece.learnt:
            kept = replace(kept, text=kept.text + piece.text)
            continue
        if kept is not None:
            yield kept
        kept = piece if is_text else None
        if not is_text:
            yield piece
    if kept is not None:
        yield kept

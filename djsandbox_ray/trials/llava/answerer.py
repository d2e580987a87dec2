"""A trained LLaVA as evaluators see it: it answers questions, and says how likely captions are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from djsandbox_ray.errors import SandboxError, require
from djsandbox_ray.evaluation.asking import Answer, Asked
from djsandbox_ray.evaluation.caption_nll import Likelihoods
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.trials.conversations import asked as question_about
from djsandbox_ray.trials.conversations import described
from djsandbox_ray.trials.exporting import Exported, emptied, load_whole
from djsandbox_ray.trials.greedy import (
    GREEDY,
    SetImages,
    batches,
    check_room,
    evaluating,
    read_answer,
)
from djsandbox_ray.trials.llava.base_folder import save
from djsandbox_ray.trials.llava.objective import Batch
from djsandbox_ray.trials.llava.pixels import Looks, Pixels
from djsandbox_ray.trials.llava.text import Transcript
from djsandbox_ray.trials.lora import merged_weights


class LlavaAnswerer:
    """Answers by greedy decoding: the likeliest token, until one that ends the template's answer.

    What is longer than others in a batch is padded on the left: an answer must not hang on what
    else is asked.

    Args:
        model: a :class:`~.modules.Reader` on ``device``.
        tokenizer: of the language model.
        talk: makes tokens of questions.
        captions: makes tokens of captions: the template of the first stage.
        looks: makes of the images of rows of a set, by its id, what the model is given.
        pixels: of the base, for others who get the model.
        sets: URIs of the tables of evaluation sets, by id.
        device: a torch device name.
        batch: how many are computed at once.
        half: whether in bfloat16.

    Raises:
        SandboxError: the tokenizer pads on the other side.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        talk: Transcript,
        captions: Transcript,
        looks: Callable[[str, Sequence[int]], Looks],
        pixels: Pixels,
        sets: Mapping[str, str],
        device: str,
        batch: int = 64,
        half: bool = False,
    ) -> None:
        if tokenizer.padding_side != "left":
            raise SandboxError(
                f"the tokenizer pads on the {tokenizer.padding_side}: a model that goes on behind "
                "padding says something else"
            )
        self._model, self._talk, self._captions = model, talk, captions
        self._tokenizer = tokenizer
        self._looks, self._pixels, self._device = looks, pixels, device
        self._images = SetImages(sets)
        self._batch, self._half = batch, half
        self._pad = next(
            int(one)
            for one in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
            if one is not None
        )

    def export(self, folder: Path) -> Exported:
        """Write a LLaVA of transformers, adapters in its matrices.

        Raises:
            BadInput: transformers has no such projector.
        """
        llava = self._model.llava
        whole = load_whole(emptied(type(llava), llava.config), merged_weights(llava))
        whole.tie_weights()
        save(whole, self._tokenizer, self._pixels, folder)
        loading = (
            "from transformers import AutoImageProcessor, AutoTokenizer\n"
            "from transformers import LlavaForConditionalGeneration\n"
            "model = LlavaForConditionalGeneration.from_pretrained(folder)\n"
            "tokenizer = AutoTokenizer.from_pretrained(folder)\n"
            "images = AutoImageProcessor.from_pretrained(folder)"
        )
        return Exported("transformers", "image-text-to-text", loading)

    def answer(self, asked: Sequence[Asked]) -> list[Answer]:
        """Answer every question, in the order that they are asked in.

        Raises:
            BadInput: a question is longer than ``max_tokens`` with its answer.
        """
        images = self._images.counts(asked)
        prompts = [
            self._prompt(question, count) for question, count in zip(asked, images, strict=True)
        ]
        order = sorted(
            range(len(asked)), key=lambda at: (asked[at].max_new_tokens, len(prompts[at]))
        )
        answers: dict[int, Answer] = {}
        with evaluating(self._model, self._device, self._half):
            for some in batches(order, asked, self._batch):
                first = asked[some[0]]
                looks, seen = self._seen(first.data, [asked[at].row for at in some])
                said = self._generate(
                    [prompts[at] for at in some], looks, seen, first.max_new_tokens
                )
                for at, ids in zip(some, said, strict=True):
                    answers[at] = read_answer(
                        asked[at], ids.tolist(), self._talk.ends, self._talk.decode
                    )
        return [answers[at] for at in range(len(asked))]

    def nll(self, data: EvaluationSet, rows: Sequence[int]) -> Likelihoods:
        """Return how likely the captions of some rows are, given their images."""
        functional, torch = require("torch.nn.functional", "clip"), require("torch", "clip")
        encoded = [self._captions.sample(described(data.texts[row])) for row in rows]
        nll = np.zeros(len(rows))
        order = sorted(range(len(rows)), key=lambda at: len(encoded[at].ids))
        with evaluating(self._model, self._device, self._half):
            for start in range(0, len(order), self._batch):
                some = order[start : start + self._batch]
                looks, seen = self._seen(data.id, [rows[at] for at in some])
                texts = tuple(encoded[at] for at in some)
                whole = Batch(texts, tuple(map(tuple, seen)), tuple(some))
                (micro,) = whole.split(len(some), self._pad)
                micro = micro.to(self._device)
                images = None if micro.images is None else looks.given(micro.images)
                logits = self._model(micro.ids, micro.mask, micro.places, images)
                each = functional.cross_entropy(logits.float(), micro.targets, reduction="none")
                lines = torch.div(micro.places, micro.ids.shape[1], rounding_mode="floor")
                sums = torch.zeros(len(some), dtype=torch.float64, device=each.device)
                sums.index_add_(0, lines, each.double())
                nll[list(micro.numbers)] = sums.cpu().numpy()
        return Likelihoods(nll, np.array([one.targets for one in encoded]))

    def _prompt(self, question: Asked, images: int) -> Any:
        ids = self._talk.prompt(question_about(images, question.text))
        check_room(question, len(ids), self._talk.max_tokens)
        return ids

    def _generate(
        self, prompts: Sequence[Any], looks: Looks, seen: Sequence[Any], most: int
    ) -> list[Any]:
        """Return the tokens that the model goes on with, padding behind them included."""
        torch = require("torch", "clip")
        longest = max(map(len, prompts))
        ids = np.full((len(prompts), longest), self._pad, np.int64)
        mask = np.zeros((len(prompts), longest), np.int64)
        for line, prompt in enumerate(prompts):
            ids[line, longest - len(prompt) :] = prompt
            mask[line, longest - len(prompt) :] = 1
        every = [image for some in seen for image in some]
        images = None
        if every:
            given = torch.from_numpy(np.stack(every)).to(self._device)
            images = self._model.project(looks.given(given))
        embedded = self._model.placed(torch.from_numpy(ids).to(self._device), images)
        said = self._model.llava.generate(
            inputs_embeds=embedded,
            attention_mask=torch.from_numpy(mask).to(self._device),
            max_new_tokens=most,
            eos_token_id=sorted(self._talk.ends),
            pad_token_id=self._pad,
            **GREEDY,
        )
        return list(said.cpu().numpy())

    def _seen(self, data: str, rows: Sequence[int]) -> tuple[Looks, list[list[Any]]]:
        """Return what stands for the images of some rows, each made once, and who makes it."""
        looks, files = self._looks(data, rows), self._images.files(data, rows)
        made = dict(zip(files, looks.of([*files], [*files.values()]), strict=True))
        return looks, [made[row] for row in rows]

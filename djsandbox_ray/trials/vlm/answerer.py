"""A trained model as evaluators see it: it answers questions, and says how likely captions are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from djsandbox_ray.errors import require
from djsandbox_ray.evaluation.asking import Answer, Asked
from djsandbox_ray.evaluation.caption_nll import Likelihoods
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.trials.conversations import asked as question_about
from djsandbox_ray.trials.conversations import described, naming
from djsandbox_ray.trials.exporting import Exported, emptied, load_whole
from djsandbox_ray.trials.greedy import (
    GREEDY,
    SetImages,
    batches,
    check_room,
    evaluating,
    read_answer,
)
from djsandbox_ray.trials.lora import merged_weights
from djsandbox_ray.trials.vlm.joined import join
from djsandbox_ray.trials.vlm.text import Processed, Script


class VlmAnswerer:
    """Answers by greedy decoding: the likeliest token, until one that ends the template's answer.

    What is longer than others in a batch is padded on the left: an answer must not hang on what
    else is asked.

    Args:
        model: a :class:`~.modules.Speaker` on ``device``.
        script: makes tokens of questions and captions.
        caption_prompt: what is asked about the image of a caption.
        sets: URIs of the tables of evaluation sets, by id.
        device: a torch device name.
        pad_id: fills up what is shorter than others; any token of text.
        batch: how many are computed at once.
        half: whether in bfloat16.
    """

    def __init__(
        self,
        model: Any,
        script: Script,
        caption_prompt: str,
        sets: Mapping[str, str],
        device: str,
        pad_id: int,
        batch: int = 16,
        half: bool = False,
    ) -> None:
        self._model, self._script, self._prompt = model, script, caption_prompt
        self._images, self._device, self._pad_id = SetImages(sets), device, pad_id
        self._batch, self._half = batch, half

    def export(self, folder: Path) -> Exported:
        """Write a model of transformers with its processor, adapters in its matrices."""
        vlm = self._model.vlm
        whole = load_whole(emptied(type(vlm), vlm.config), merged_weights(vlm))
        whole.tie_weights()
        whole.save_pretrained(folder)
        self._script.processor.save_pretrained(folder)
        loading = (
            "from transformers import AutoModelForImageTextToText, AutoProcessor\n"
            "model = AutoModelForImageTextToText.from_pretrained(folder)\n"
            "processor = AutoProcessor.from_pretrained(folder)"
        )
        return Exported("transformers", "image-text-to-text", loading)

    def answer(self, asked: Sequence[Asked]) -> list[Answer]:
        """Answer every question, in the order that they are asked in.

        Raises:
            BadInput: a question is longer than ``max_tokens`` with its answer.
        """
        order = sorted(
            range(len(asked)),
            key=lambda at: (asked[at].data, asked[at].max_new_tokens, len(asked[at].text)),
        )
        answers: dict[int, Answer] = {}
        with evaluating(self._model, self._device, self._half):
            for some in batches(order, asked, self._batch):
                questions = [asked[at] for at in some]
                said = self._generate(self._prompts(questions), questions[0].max_new_tokens)
                for at, ids in zip(some, said, strict=True):
                    answers[at] = read_answer(
                        asked[at], ids.tolist(), self._script.ends, self._script.decode
                    )
        return [answers[at] for at in range(len(asked))]

    def nll(self, data: EvaluationSet, rows: Sequence[int]) -> Likelihoods:
        """Return how likely the captions of some rows are, given their images."""
        functional, torch = require("torch.nn.functional", "clip"), require("torch", "clip")
        nll, tokens = np.zeros(len(rows)), np.zeros(len(rows), np.int64)
        order = sorted(range(len(rows)), key=lambda at: len(data.texts[rows[at]]))
        with evaluating(self._model, self._device, self._half):
            for start in range(0, len(order), self._batch):
                some = order[start : start + self._batch]
                files = self._images.files(data.id, [rows[at] for at in some])
                samples = [self._captioned(data, rows[at], files[rows[at]]) for at in some]
                joined = join(samples, range(len(some)), self._pad_id).to(self._device)
                logits = self._model(joined.inputs, joined.places)
                each = functional.cross_entropy(logits.float(), joined.targets, reduction="none")
                lines = torch.div(joined.places, joined.ids.shape[1], rounding_mode="floor")
                sums = torch.zeros(len(some), dtype=torch.float64, device=each.device)
                nll[some] = sums.index_add_(0, lines, each.double()).cpu().numpy()
                tokens[some] = [one.targets for one in samples]
        return Likelihoods(nll, tokens)

    def _captioned(self, data: EvaluationSet, row: int, files: Sequence[bytes]) -> Processed:
        with naming(f"evaluation set {data.id}, row {row}"):
            return self._script.sample(described(data.texts[row], self._prompt), files)

    def _prompts(self, questions: Sequence[Asked]) -> list[Processed]:
        """Return questions of one set as the model reads them."""
        files = self._images.files(questions[0].data, [one.row for one in questions])
        found = []
        for question in questions:
            own = files[question.row]
            with naming(f"the question {question.key!r} about row {question.row}"):
                prompt = self._script.prompt(question_about(len(own), question.text), own)
            check_room(question, len(prompt.ids), self._script.max_tokens)
            found.append(prompt)
        return found

    def _generate(self, prompts: Sequence[Processed], most: int) -> list[Any]:
        """Return the tokens that the model goes on with, padding behind them included."""
        joined = join(prompts, range(len(prompts)), self._pad_id, side="left").to(self._device)
        said = self._model.vlm.generate(
            **self._model.read(joined.inputs),
            max_new_tokens=most,
            eos_token_id=sorted(self._script.ends),
            pad_token_id=self._pad_id,
            **GREEDY,
        )
        return list(said[:, joined.ids.shape[1] :].cpu().numpy())

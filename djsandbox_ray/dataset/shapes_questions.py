"""A generator of questions on the world of shapes, whose answers are known.

They are conversations, or stand in the meta data of their image, where evaluators find them. They
have the forms of the benchmarks that models of images and text are judged by: pairs of yes and
no (MME, POPE), one word (TextVQA), and four options (MMBench), each with the prompt that is usual
for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from djsandbox_ray.dataset.media import IMAGE_TOKEN, Content, Turn, assistant_text
from djsandbox_ray.dataset.planted import PlantedSource
from djsandbox_ray.dataset.shapes import ShapesConfig, encoded, facts
from djsandbox_ray.dataset.source import Sample
from djsandbox_ray.dataset.world import (
    COLOURS,
    IMAGE_DEFECTS,
    POSITIONS,
    SHAPES,
    Scene,
    draw_scene,
    random_scene,
    with_article,
)

FORMS = ("present", "absent", "colour", "shape", "background", "texture", "options")
"""The first two are answered by yes and no, the last by a letter, the others by a word."""
WORD = "Answer the question using a single word or phrase."
LETTER = "Answer with the option's letter from the given choices directly."
LETTERS = "ABCD"
SUBTASKS = ("existence", "position", "color")
"""Of MME, those that an image is asked about."""
SPLITS = ("random", "adversarial")
"""Of POPE: what is not there is anything, or shares the colour or the shape of what is. No thing is
more popular than another in this world."""

_PEOPLE = 10
"""Who answer a question of TextVQA."""
_STREAM = 1
"""Keeps these scenes apart from those of ``shapes`` with the same seed."""


class ShapesQuestionsConfig(ShapesConfig):
    """How many images of which world, and how they are asked about.

    With ``content: pairs`` the questions of an image stand in its meta data, for the evaluators
    ``textvqa``, ``mmbench``, ``mme`` and ``pope``; else they are turns of a conversation. Defects:
    mismatched, which asks and answers about another image, blur, low_contrast, odd_size.
    """

    KNOWN: ClassVar[tuple[str, ...]] = ("mismatched", *IMAGE_DEFECTS)

    content: Content = "conversations"
    questions: int = Field(default=len(FORMS), ge=1, le=len(FORMS))
    """How many are asked about an image, each of another form, in random order."""

    @model_validator(mode="after")
    def _turns(self) -> ShapesQuestionsConfig:
        if self.content == "pairs" and self.questions != len(FORMS):
            raise ValueError("questions: evaluators choose among all (content: pairs)")
        return self


class ShapesQuestionsSource(PlantedSource):
    """A shard is 500 conversations or images with questions.

    ``meta`` holds the defect, what the image shows and, of a conversation, the forms of its
    questions in order; else the questions, by benchmark.
    """

    Config = ShapesQuestionsConfig
    CONTENTS: ClassVar[tuple[Content, ...]] = ("conversations", "pairs")
    NAME: ClassVar[str] = "shapes_questions"
    WORLD: ClassVar[int] = 1

    @classmethod
    def sample(cls, config: Any, index: int, defects: Sequence[str]) -> Sample:
        """Make one conversation, or one image with all questions about it."""
        if config.content == "pairs":
            return examine(config.seed, index, defects, config.image_size)
        return converse(config.seed, index, defects, config.image_size, config.questions)


def converse(
    seed: int, index: int, defects: Sequence[str], image_size: int, questions: int
) -> Sample:
    """Make one conversation.

    Args:
        seed: of the world.
        index: of the sample.
        defects: names of :attr:`ShapesQuestionsConfig.KNOWN`, in that order.
        image_size: pixels of each side.
        questions: how many of :data:`FORMS` are asked.
    """
    rng = np.random.default_rng([seed, index, _STREAM])
    scene, asked, image = _pictured(rng, defects, image_size)
    forms = [FORMS[place] for place in rng.permutation(len(FORMS))[:questions]]
    turns: list[Turn] = []
    for form in forms:
        question, answer = ask(form, asked, rng)
        before = "" if turns else f"{IMAGE_TOKEN}\n"
        turns += [Turn("user", f"{before}{question}"), Turn("assistant", answer)]
    meta = {**facts(scene, defects), "forms": forms}
    source = f"shapes_questions#{index}"
    return Sample(encoded(image), assistant_text(turns), source, meta, (), tuple(turns))


def examine(seed: int, index: int, defects: Sequence[str], image_size: int) -> Sample:
    """Make one image with all that is asked about it, as evaluators read it from meta data.

    There is the same in it as in the conversation of the same number.

    Args:
        seed: of the world.
        index: of the sample.
        defects: names of :attr:`ShapesQuestionsConfig.KNOWN`, in that order.
        image_size: pixels of each side.
    """
    rng = np.random.default_rng([seed, index, _STREAM])
    scene, asked, image = _pictured(rng, defects, image_size)
    questions = {
        "textvqa": _words(asked, index),
        "mmbench": _choices(asked, rng, index),
        "mme": _pairs(asked, rng),
        "pope": _things(asked, rng),
    }
    text = "\n".join(str(one["question"]) for some in questions.values() for one in some)
    meta = {**facts(scene, defects), "questions": questions}
    return Sample(encoded(image), text, f"shapes_questions#{index}", meta)


def _pictured(
    rng: np.random.Generator, defects: Sequence[str], image_size: int
) -> tuple[Scene, Scene, Image.Image]:
    """Return what is shown, what is asked about, and the image."""
    scene = random_scene(rng)
    image = draw_scene(scene, rng, image_size)
    asked = scene
    for defect in defects:
        if defect == "mismatched":
            asked = _unlike(scene, rng)
        else:
            image = IMAGE_DEFECTS[defect](image, rng)
    return scene, asked, image


def _words(scene: Scene, index: int) -> list[dict[str, Any]]:
    """Return questions for a word, on whose answer all ten agree, as TextVQA has them."""
    return [
        {
            "id": f"{index}/{form}",
            "question": question,
            "answers": [str(getattr(scene, form))] * _PEOPLE,
        }
        for form, question in _for_a_word(scene).items()
    ]


def _choices(scene: Scene, rng: np.random.Generator, index: int) -> list[dict[str, Any]]:
    """Return questions with four options, as MMBench has them; the category is what they ask."""
    colours = [colour for colour in COLOURS if colour != scene.colour]
    wrong = [colours[place] for place in rng.permutation(len(colours))[: len(LETTERS) - 1]]
    asked = {
        "thing": ("What is in the picture?", _name(scene), _others(scene, rng, len(LETTERS) - 1)),
        "colour": (_for_a_word(scene)["colour"], scene.colour, wrong),
    }
    found = []
    for category, (question, right, others) in asked.items():
        names = [right, *others]
        order = rng.permutation(len(names)).tolist()
        options = {letter: names[at] for letter, at in zip(LETTERS, order, strict=True)}
        answer = LETTERS[order.index(0)]
        found.append(
            {
                "id": f"{index}/{category}",
                "question": question,
                "category": category,
                "passes": [{"options": options, "answer": answer}],
            }
        )
    return found


def _pairs(scene: Scene, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Return a question for yes and one for no of each subtask, as MME has them."""

    def other(values: Iterable[str], own: str) -> str:
        left = [value for value in values if value != own]
        return left[rng.integers(len(left))]

    things = _name(scene), _others(scene, rng, 1)[0]
    places = scene.position, other(POSITIONS, scene.position)
    colours = scene.colour, other(COLOURS, scene.colour)
    asked = {
        "existence": [f"Is there {with_article(name)} in the picture?" for name in things],
        "position": [f"Is the {scene.shape} {place}?" for place in places],
        "color": [f"Is the {scene.shape} {colour}?" for colour in colours],
    }
    return [
        {"subtask": subtask, "question": question, "answer": answer}
        for subtask in SUBTASKS
        for question, answer in zip(asked[subtask], ("yes", "no"), strict=True)
    ]


def _things(scene: Scene, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Return questions about what is there and what is not, by split, as POPE has them."""
    alike = [
        *(f"{colour} {scene.shape}" for colour in COLOURS if colour != scene.colour),
        *(f"{scene.colour} {shape}" for shape in SHAPES if shape != scene.shape),
    ]
    absent = {"random": _others(scene, rng, 1)[0], "adversarial": alike[rng.integers(len(alike))]}
    labels: dict[str, dict[str, str]] = {_name(scene): dict.fromkeys(SPLITS, "yes")}
    for split, name in absent.items():
        labels.setdefault(name, {})[split] = "no"
    return [
        {"question": f"Is there {with_article(name)} in the picture?", "labels": by_split}
        for name, by_split in labels.items()
    ]


def ask(form: str, scene: Scene, rng: np.random.Generator) -> tuple[str, str]:
    """Return a question about a scene, with its prompt, and the answer.

    Args:
        form: one of :data:`FORMS`.
        scene: what is asked about.
        rng: chooses what is not there.
    """
    if form == "options":
        names = [_name(scene), *_others(scene, rng, len(LETTERS) - 1)]
        order = rng.permutation(len(names)).tolist()
        options = [f"{letter}. {names[at]}" for letter, at in zip(LETTERS, order, strict=True)]
        lines = ["What is in the picture?", *options, LETTER]
        return "\n".join(lines), LETTERS[order.index(0)]
    if form in ("present", "absent"):
        name, answer = _name(scene), "Yes"
        if form == "absent":
            (name,), answer = _others(scene, rng, 1), "No"
        return f"Is there {with_article(name)} in the picture?\n{WORD}", answer
    return f"{_for_a_word(scene)[form]}\n{WORD}", str(getattr(scene, form))


def _for_a_word(scene: Scene) -> dict[str, str]:
    """Return the questions that a word answers, by what they ask."""
    return {
        "colour": f"What color is the {scene.shape}?",
        "shape": "What shape is in the picture?",
        "background": "What color is the background?",
        "texture": f"Is the {scene.shape} plain, striped, dotted or checked?",
    }


def _name(scene: Scene) -> str:
    return f"{scene.colour} {scene.shape}"


def _others(scene: Scene, rng: np.random.Generator, count: int) -> list[str]:
    """Return names of things that are not there; each has another colour or another shape."""
    names = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
    names.remove(_name(scene))
    return [names[place] for place in rng.permutation(len(names))[:count]]


def _unlike(scene: Scene, rng: np.random.Generator) -> Scene:
    """Return a scene of another colour, shape, background and texture: no word is right there."""
    while True:
        other = random_scene(rng)
        words = ("colour", "shape", "background", "texture")
        if all(getattr(other, word) != getattr(scene, word) for word in words):
            return other

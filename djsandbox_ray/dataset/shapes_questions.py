"""A generator of conversations on the world of shapes: questions whose answers are known.

They have the forms of the benchmarks that models of images and text are judged by: pairs of yes and
no (MME, POPE), one word (TextVQA), and four options (MMBench), each with the prompt that is usual
for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from djsandbox_ray.dataset.media import IMAGE_TOKEN, Content, Turn, assistant_text
from djsandbox_ray.dataset.planted import PlantedSource
from djsandbox_ray.dataset.shapes import ShapesConfig, encoded, facts
from djsandbox_ray.dataset.source import Sample
from djsandbox_ray.dataset.world import (
    COLOURS,
    IMAGE_DEFECTS,
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

_STREAM = 1
"""Keeps these scenes apart from those of ``shapes`` with the same seed."""


class ShapesQuestionsConfig(ShapesConfig):
    """How many conversations of which world.

    Defects: mismatched, which asks and answers about another image, blur, low_contrast, odd_size.
    """

    KNOWN: ClassVar[tuple[str, ...]] = ("mismatched", *IMAGE_DEFECTS)

    content: Content = "conversations"
    questions: int = Field(default=len(FORMS), ge=1, le=len(FORMS))
    """How many are asked about an image, each of another form, in random order."""


class ShapesQuestionsSource(PlantedSource):
    """A shard is 500 conversations, each about one image.

    ``meta`` holds the defect, what the image shows and, in order, the forms of the questions.
    """

    Config = ShapesQuestionsConfig
    CONTENTS: ClassVar[tuple[Content, ...]] = ("conversations",)
    NAME: ClassVar[str] = "shapes_questions"
    WORLD: ClassVar[int] = 1

    @classmethod
    def sample(cls, config: Any, index: int, defects: Sequence[str]) -> Sample:
        """Make one conversation."""
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
    scene = random_scene(rng)
    image = draw_scene(scene, rng, image_size)
    asked = scene
    for defect in defects:
        if defect == "mismatched":
            asked = _unlike(scene, rng)
        else:
            image = IMAGE_DEFECTS[defect](image, rng)
    forms = [FORMS[place] for place in rng.permutation(len(FORMS))[:questions]]
    turns: list[Turn] = []
    for form in forms:
        question, answer = ask(form, asked, rng)
        before = "" if turns else f"{IMAGE_TOKEN}\n"
        turns += [Turn("user", f"{before}{question}"), Turn("assistant", answer)]
    meta = {**facts(scene, defects), "forms": forms}
    source = f"shapes_questions#{index}"
    return Sample(encoded(image), assistant_text(turns), source, meta, (), tuple(turns))


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
    question = {
        "colour": f"What color is the {scene.shape}?",
        "shape": "What shape is in the picture?",
        "background": "What color is the background?",
        "texture": f"Is the {scene.shape} plain, striped, dotted or checked?",
    }[form]
    return f"{question}\n{WORD}", str(getattr(scene, form))


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

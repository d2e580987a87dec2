"""What denoisers are asked, and what becomes of their losses; without any model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.denoising import (
    DenoisingConfig,
    DenoisingLoss,
    PromptMatch,
    PromptMatchConfig,
)
from djsandbox_ray.evaluation.metric import Metric

SCENES = [(shape, colour) for shape in ("circle", "square") for colour in ("red", "green", "blue")]
DATA = EvaluationSet(
    "trusted",
    "nowhere",
    len(SCENES),
    tuple(f"a {colour} {shape}" for shape, colour in SCENES),
    tuple({"shape": shape, "colour": colour} for shape, colour in SCENES),
)


class Fake:
    """Foretells worse the more words of a caption are wrong, and notes what it is asked."""

    def __init__(self, blind: bool = False) -> None:
        self.blind = blind
        self.asked: list[tuple[Any, ...]] = []

    def losses(
        self,
        data: EvaluationSet,
        times: Sequence[float],
        seed: int,
        clips: Sequence[tuple[int, str]],
    ) -> np.ndarray:
        self.asked.append((data.id, tuple(times), seed, tuple(clips)))
        wrong = [
            sum(a != b for a, b in zip(text.split(), data.texts[row].split(), strict=True))
            for row, text in clips
        ]
        rows = np.array([row for row, _ in clips])
        return 1.0 + rows + (0 if self.blind else np.array(wrong))


def loss(**config: Any) -> DenoisingLoss:
    return DenoisingLoss(DenoisingConfig(type="denoising", **config))


def match(**config: Any) -> PromptMatch:
    return PromptMatch(PromptMatchConfig(type="prompt_match", **config))


def test_the_loss_is_the_mean_over_the_clips() -> None:
    model, evaluator = Fake(), loss(times=[0.2, 0.8], seed=5)
    evaluator.check(DATA)
    assert evaluator.evaluate(model, DATA) == {"denoising/loss": 3.5}
    asked = tuple(enumerate(DATA.texts))
    assert model.asked == [("trusted", (0.2, 0.8), 5, asked)]
    assert evaluator.metrics() == (Metric("denoising/loss", "less", low=0.0),)
    assert loss().config.times == (0.3, 0.5, 0.7, 0.9)
    assert frozenset({"frames"}) == DenoisingLoss.SEES
    assert frozenset({"captions"}) == PromptMatch.SEES


def test_a_limit_takes_the_same_rows_every_time() -> None:
    models = [Fake(), Fake()]
    for model in models:
        loss(limit=2).evaluate(model, DATA)
    assert models[0].asked == models[1].asked
    assert len(models[0].asked[0][3]) == 2
    assert DATA.some(99) == DATA.some(None) == list(range(6))


def test_a_model_that_heeds_captions_matches_them_all() -> None:
    model = Fake()
    assert match().evaluate(model, DATA) == {"prompt_match/accuracy": 1.0}
    ((_, _, _, asked),) = model.asked
    own, wrong = asked[:6], asked[6:]
    assert own == tuple(enumerate(DATA.texts))
    assert [row for row, _ in wrong] == list(range(6))
    assert all(text in DATA.texts and text != DATA.texts[row] for row, text in wrong)
    again = Fake()
    match().evaluate(again, DATA)
    assert again.asked == model.asked
    other = Fake()
    match(seed=1).evaluate(other, DATA)
    assert other.asked[0][3][6:] != asked[6:]


def test_a_tie_counts_half() -> None:
    assert match().evaluate(Fake(blind=True), DATA) == {"prompt_match/accuracy": 0.5}
    assert match().metrics()[0].chance == 0.5


def test_wrong_captions_may_differ_in_one_attribute_only() -> None:
    model = Fake()
    evaluator = match(attributes=["shape", "colour"])
    evaluator.check(DATA)
    evaluator.evaluate(model, DATA)
    for row, text in model.asked[0][3][6:]:
        _, colour, shape = text.split()
        assert (shape == SCENES[row][0]) != (colour == SCENES[row][1])
    only = Fake()
    match(attributes=["colour"]).evaluate(only, DATA)
    assert any(text.split()[2] != SCENES[row][0] for row, text in only.asked[0][3][6:])


def test_without_a_wrong_caption_nothing_is_compared() -> None:
    alike = EvaluationSet("alike", "x", 2, ("a red circle",) * 2, ({"colour": "red"},) * 2)
    with pytest.raises(BadInput, match=r"row 0 of the set alike .* has no row with another cap"):
        match().check(alike)
    with pytest.raises(BadInput, match="that differs in one of colour only; more rows may"):
        match(attributes=["colour"]).check(alike)
    with pytest.raises(BadInput, match="no label 'size'"):
        match(attributes=["size"]).check(DATA)
    for evaluator in (loss(), match()):
        with pytest.raises(
            BadInput, match=f"{evaluator.config.type}: the set bare has no captions"
        ):
            evaluator.check(EvaluationSet("bare", "x", 3))


def test_a_model_that_has_diverged_matches_nothing() -> None:
    class Broken(Fake):
        def losses(self, *given: Any) -> np.ndarray:
            return super().losses(*given) * math.nan

    assert math.isnan(match().evaluate(Broken(), DATA)["prompt_match/accuracy"])
    assert math.isnan(loss().evaluate(Broken(), DATA)["denoising/loss"])


@pytest.mark.parametrize("times", [[0.5, 0.3], [0.5, 0.5], [0.0], [1.0], []])
def test_times_are_shares_that_rise(times: list[float]) -> None:
    with pytest.raises(ValidationError):
        loss(times=times)

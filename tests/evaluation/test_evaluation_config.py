"""How the metrics of a configuration become one score."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from djsandbox_ray.evaluation.config import EvaluationConfig
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.evaluator import Encoder, Evaluator
from djsandbox_ray.evaluation.metric import Metric
from djsandbox_ray.records import Aggregate


class Shares(Evaluator):
    """Two fractions, and a loss."""

    def metrics(self) -> tuple[Metric, ...]:
        loss = Metric("loss", "less", scored=False)
        return Metric("quality", low=0, high=1), Metric("semantic", low=0, high=1), loss

    def evaluate(self, encoder: Encoder, split: EvaluationSet) -> dict[str, float]:
        return {}


class Points(Evaluator):
    """A score of up to 2000."""

    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("points", low=0, high=2000),)

    def evaluate(self, encoder: Encoder, split: EvaluationSet) -> dict[str, float]:
        return {}


def read(*classes: str, **section: Any) -> EvaluationConfig:
    metrics = [{"type": f"{__name__}:{name}"} for name in classes or ("Shares",)]
    return EvaluationConfig.model_validate({"metrics": metrics, **section})


def test_a_total_says_what_the_score_is_made_of() -> None:
    config = read(aggregate={"weighted": {"quality": 4, "semantic": 1}})
    assert config.kind is Aggregate.WEIGHTED
    score = config.score_metrics()
    assert score.chosen(("semantic", "quality", "loss")) == ("quality", "semantic")
    assert [score.weight(name) for name in ("quality", "semantic", "other")] == [4.0, 1.0, 1.0]
    same = read(
        score=["semantic", "quality"], aggregate={"weighted": {"quality": 4, "semantic": 1}}
    )
    assert same.score_metrics().names == ("quality", "semantic")
    assert read(aggregate="standardized").kind is Aggregate.STANDARDIZED


def test_a_score_of_metrics_that_see_something() -> None:
    score = read(score="informative", aggregate="standardized").score_metrics()
    assert score.informative
    assert score.names is None
    assert score.chosen(("semantic", "loss")) == ("semantic",)
    assert not read(score=["quality"]).score_metrics().informative


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"aggregate": {"weighted": {"quality": 0}}}, "weight of 'quality' is 0.0"),
        ({"aggregate": {"weighted": {}}}, "at least 1 item"),
        ({"aggregate": {"weighted": {"qualty": 1}}}, "no evaluator gives 'qualty'.*'quality'"),
        ({"aggregate": {"weighted": {"loss": 1}}}, "a total cannot have loss"),
        (
            {"aggregate": {"weighted": {"quality": 1}}, "score": ["semantic"]},
            "the score is of semantic, the weights of quality",
        ),
        (
            {"aggregate": {"weighted": {"quality": 1}}, "score": "informative"},
            "the score is of informative, the weights of quality: leave out 'score'",
        ),
        ({"score": "informativ"}, "Input should be 'informative'"),
        ({"aggregate": {"weigthed": {"quality": 1}}}, "weigthed"),
        ({"aggregate": "median"}, "pooled"),
    ],
)
def test_a_total_that_cannot_be_formed(section: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        read(**section)


def test_points_beside_fractions_are_told() -> None:
    said = read("Shares", "Points", aggregate="pooled").scales()
    assert said is not None
    assert "points of up to 2000 beside quality, semantic of up to 1" in said
    assert read("Shares", "Points", aggregate="standardized").scales() is None
    assert read("Shares", aggregate="pooled").scales() is None
    assert read("Shares", "Points", score=["quality"], aggregate="pooled").scales() is None

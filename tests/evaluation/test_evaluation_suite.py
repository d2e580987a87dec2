from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from table_encoder import TableEncoder, split_of

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.evaluator import EVALUATORS, Encoder, Evaluator
from djsandbox_ray.evaluation.retrieval import RetrievalConfig
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.settings.sections import Component

CAPTIONS = ["a red dot", "a blue dot", "a red box"]
SPLIT = split_of(CAPTIONS, ["red", "blue", "red"], key="colour")
ENCODER = TableEncoder(
    np.eye(3), {**dict(zip(CAPTIONS, np.eye(3), strict=True)), "red": [1, 0, 1], "blue": [0, 1, 0]}
)


class ConstantConfig(Component):
    metrics: dict[str, float]


class Constant(Evaluator):
    """An evaluator of a user: gives what its config says."""

    Config = ConstantConfig

    def check(self, split: EvaluationSet) -> None:
        if "refuse" in self.config.metrics:
            raise BadInput("this split will not do")

    def evaluate(self, encoder: Encoder, split: EvaluationSet) -> dict[str, float]:
        return {key: value if value >= 0 else np.nan for key, value in self.config.metrics.items()}


class Infinite:
    """An encoder after a diverged step: some numbers are not finite."""

    def __init__(self, where: str, value: float) -> None:
        self.where, self.value = where, value

    def images(self, split: EvaluationSet) -> NDArray[np.float32]:
        return self._broken("images", ENCODER.images(split))

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        return self._broken("texts", ENCODER.texts(texts))

    def _broken(self, where: str, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        vectors = vectors.copy()
        if where == self.where:
            vectors[-1, 0] = self.value
        return vectors


def make(*configs: dict[str, Any], split: EvaluationSet = SPLIT) -> Suite:
    made = [EVALUATORS.get(config["type"]).Config.model_validate(config) for config in configs]
    return Suite(made, [split] * len(made))


def constant(**metrics: float) -> dict[str, Any]:
    return {"type": f"{__name__}:Constant", "metrics": metrics}


ZERO_SHOT = {"type": "zero_shot", "label": "colour", "templates": ["{}"]}
RETRIEVAL = {"type": "retrieval", "k": [1]}


def test_all_metrics_in_the_order_of_the_evaluators() -> None:
    found = make(RETRIEVAL, ZERO_SHOT, constant(mine=0.25)).run(ENCODER)
    assert found == {
        "retrieval/image_to_text_r1": 1.0,
        "retrieval/text_to_image_r1": 1.0,
        "zero_shot_colour/top1": 1.0,
        "zero_shot_colour/mean_per_class": 1.0,
        "mine": 0.25,
    }
    assert next(iter(found)) == "retrieval/image_to_text_r1"
    assert all(type(value) is float for value in found.values())
    json.dumps(found, allow_nan=False)


def test_a_score_of_zero_is_a_score() -> None:
    assert make(constant(zero=0.0)).run(ENCODER) == {"zero": 0.0}


def test_two_evaluators_that_give_one_name_are_bad_input() -> None:
    with pytest.raises(BadInput, match="two evaluators give a metric named 'mine'"):
        make(constant(mine=1), constant(mine=1)).run(ENCODER)


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"type": "zero_shot", "label": "shape"}, "has no label 'shape'"),
        ({"type": "retrieval", "k": [5]}, "k = 5 finds everything"),
        (constant(refuse=1), "this split will not do"),
    ],
)
def test_a_split_is_checked_before_anything_runs(config: dict[str, Any], why: str) -> None:
    with pytest.raises(BadInput, match=why):
        make(RETRIEVAL, config)


def test_a_metric_that_is_not_finite_fails_the_trial() -> None:
    with pytest.raises(SandboxError, match="metric 'bad' is nan"):
        make(constant(bad=-1)).run(ENCODER)


@pytest.mark.parametrize("where", ["images", "texts"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("config", [ZERO_SHOT, RETRIEVAL])
def test_a_model_of_nan_fails_the_trial_and_gets_no_score(
    where: str, value: float, config: dict[str, Any]
) -> None:
    with pytest.raises(SandboxError, match=f"embeddings of {where} are not finite") as caught:
        make(config).run(Infinite(where, value))
    assert not isinstance(caught.value, BadInput)


def test_identity_is_plain_and_tells_suites_apart() -> None:
    other = EvaluationSet("other", "nowhere", SPLIT.rows, SPLIT.texts, SPLIT.metadata)
    suites = [
        make(RETRIEVAL),
        make(RETRIEVAL, split=other),
        make({"type": "retrieval", "k": [2]}),
        make(ZERO_SHOT),
        make(RETRIEVAL, ZERO_SHOT),
        make({**ZERO_SHOT, "templates": ["a {}"]}),
        make(constant(mine=1)),
        make(constant(mine=2)),
    ]
    identities = [json.dumps(suite.identity(), allow_nan=False) for suite in suites]
    assert len(set(identities)) == len(suites)
    assert json.dumps(make(RETRIEVAL).identity()) == identities[0]


def test_a_suite_can_be_sent_to_another_process() -> None:
    suite = pickle.loads(pickle.dumps(make(RETRIEVAL, ZERO_SHOT)))
    assert suite.run(ENCODER) == make(RETRIEVAL, ZERO_SHOT).run(ENCODER)


def test_a_score_that_nobody_gives_is_an_error_of_the_first_evaluation() -> None:
    split = EvaluationSet("id", "", 2, ("a", "b"), ({}, {}))

    class Same:
        def images(self, split: EvaluationSet) -> np.ndarray:
            return np.eye(2, dtype=np.float32)

        def texts(self, texts: object) -> np.ndarray:
            return np.eye(2, dtype=np.float32)

    suite = Suite([RetrievalConfig(type="retrieval", k=[1])], [split], ["accuracy"])
    with pytest.raises(BadInput, match=r"evaluation\.score: no evaluator gives accuracy \(given: "):
        suite.run(Same())

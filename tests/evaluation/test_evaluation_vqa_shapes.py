"""The evaluators of the four benchmarks on the world of shapes: no files are needed."""

from __future__ import annotations

from typing import Any

import pytest
from asked_world import Says, evaluator, set_of

from djsandbox_ray.evaluation.asking import Asked
from djsandbox_ray.evaluation.data import EvaluationSet

WORLD = {"type": "shapes_questions", "samples": 60, "seed": 5}
TRUTH: dict[str, dict[str, float]] = {
    "textvqa": {"textvqa/accuracy": 1},
    "mmbench": {"mmbench/circular": 1, "mmbench/vanilla": 1},
    "mme": {
        "mme/perception": 600,
        "mme/existence": 200,
        "mme/position": 200,
        "mme/color": 200,
    },
    "pope": {
        **{f"pope/{what}": 1 for what in ("f1", "accuracy")},
        **{
            f"pope/{split}_{what}": 1
            for split in ("random", "adversarial")
            for what in ("f1", "accuracy", "precision", "recall")
        },
        **{f"pope/{what}yes": 0.5 for what in ("", "random_", "adversarial_")},
    },
}


@pytest.fixture(scope="module")
def world() -> EvaluationSet:
    return set_of(evaluator("mme", dataset=WORLD).source())


def truth(name: str, meta: dict[str, Any], asked: Asked) -> str:
    """Answer from what the world says of the image, not from what is stored of the answers."""
    first, *options = asked.text.splitlines()[:-1]
    thing = f"{meta['colour']} {meta['shape']}"
    if name == "mmbench":
        wanted = thing if "What is in" in first else meta["colour"]
        return next(line[0] for line in options if line.endswith(f". {wanted}"))
    if name == "textvqa":
        texture = "plain, striped" in first
        for start, key in (("color is the background", "background"), ("color", "colour")):
            if start in first:
                return str(meta[key])
        return "unknown" if texture else str(meta["shape"])
    return "Yes" if thing in first else "No"


@pytest.mark.parametrize("name", sorted(TRUTH))
def test_one_set_serves_all_four(name: str, world: EvaluationSet) -> None:
    found = evaluator(name, dataset=WORLD)
    assert found.source().stamp() == evaluator("mme", dataset=WORLD).source().stamp()
    found.check(world)
    by_key = {one.key: one.question for one in found.placed(world)}

    def reply(asked: Asked) -> str:
        if name == "mmbench" or name == "textvqa":
            said = truth(name, world.metadata[asked.row], asked)
            question = by_key.get(asked.key)
            return question.answers[0] if said == "unknown" else said
        question = by_key[asked.key]
        if name == "mme" and question.subtask != "existence":
            return question.answer
        return truth(name, world.metadata[asked.row], asked)

    scores = found.evaluate(Says(reply), world)
    expected = {**TRUTH[name], f"{name}/unparsed": 0, f"{name}/cut": 0}
    assert scores == {key: pytest.approx(value) for key, value in expected.items()}
    assert set(expected) == {metric.name for metric in found.metrics()}
    blind = found.evaluate(Says(lambda asked: "Yes"), world)
    for metric in found.metrics():
        if metric.name == "mme/perception":
            assert blind[metric.name] == 150  # half the questions, no pair


def test_a_users_own_source_may_hold_the_questions() -> None:
    entry = {"subtask": "count", "question": "Are there two?", "answer": "yes"}
    other = {**entry, "question": "Are there three?", "answer": "no"}
    meta = {"questions": {"mme": [entry, other]}}
    found = evaluator("mme", dataset={"type": "parquet", "path": "a.parquet"}, subtasks=["count"])
    data = EvaluationSet("set", "", 1, ("text",), (meta,))
    found.check(data)
    scores = found.evaluate(Says(lambda asked: "Yes" if "two" in asked.text else "No"), data)
    assert scores["mme/count"] == 200

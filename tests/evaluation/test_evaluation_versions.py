"""What the version of an evaluator stands for: golden metrics of fixed embeddings and answers."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asked_world import Says, set_of
from made_videos import write_prompts
from table_encoder import TableEncoder, split_of, unit

from djsandbox_ray.evaluation.asking import Asked
from djsandbox_ray.evaluation.caption_nll import Likelihoods
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.evaluator import EVALUATORS, Artefact
from djsandbox_ray.outside.environment import FOLDER

LABELS = [f"{'abc'[number % 3]}" for number in range(24)]
CAPTIONS = [f"caption {number % 17}" for number in range(24)]
WRITES = "import json, sys; json.dump(dict(r=[dict(acc=0.5), 2]), open(sys.argv[2], 'w'))"
WORLD = {"type": "shapes_questions", "samples": 40, "seed": 2}
SETTINGS: dict[str, dict[str, Any]] = {
    **{name: {"dataset": WORLD} for name in ("mmbench", "mme", "pope", "textvqa")},
    "caption_nll": {"limit": 10},
    "contrastive_nll": {"candidates": 10},
    "denoising": {"limit": 10},
    "prompt_match": {"limit": 10},
    "vqa": {"dataset": {"type": "parquet", "path": "own.parquet"}},
    "zero_shot": {"label": "label", "templates": ["a {}", "one {}"]},
    "retrieval": {"k": [1, 3]},
    "reported": {"metrics": ["b", "a"]},
    "fvd": {"features": {"type": "i3d", "path": __file__}, "videos": 24, "force": True},
    "motion": {"videos": 20},
    "vbench": {"dimensions": ["temporal_flickering"], "videos_per_prompt": 2},
    "command": {
        "command": ["python", "-c", WRITES, "{output}", "{metrics}"],
        "metrics": {"first": "r.0.acc", "second": "r.1"},
    },
}
GOLDEN: dict[str, dict[int, dict[str, float]]] = {
    "denoising": {1: {"denoising/loss": 3.23}},
    "prompt_match": {1: {"prompt_match/accuracy": 0.6}},
    "caption_nll": {1: {"caption_nll/token": 139 / 37, "caption_nll/byte": 139 / 95}},
    "contrastive_nll": {1: {"contrastive_nll/pair": 1.6660499}},
    "zero_shot": {1: {"zero_shot_label/top1": 13 / 24, "zero_shot_label/mean_per_class": 13 / 24}},
    "retrieval": {
        1: {
            "retrieval/image_to_text_r1": 5 / 24,
            "retrieval/image_to_text_r3": 13 / 24,
            "retrieval/text_to_image_r1": 6 / 17,
            "retrieval/text_to_image_r3": 10 / 17,
        }
    },
    "mmbench": {
        1: {
            "mmbench/circular": 0.1375,
            "mmbench/vanilla": 0.4875,
            "mmbench/unparsed": 0.3566879,
            "mmbench/cut": 0.0,
        }
    },
    "mme": {
        1: {
            "mme/perception": 272.5,
            "mme/existence": 101.25,
            "mme/position": 87.5,
            "mme/color": 83.75,
            "mme/unparsed": 0.3333333,
            "mme/cut": 0.0,
        }
    },
    "pope": {
        1: {
            "pope/f1": 0.7462943,
            "pope/accuracy": 0.69375,
            "pope/yes": 0.70625,
            "pope/random_f1": 0.7346939,
            "pope/random_accuracy": 0.675,
            "pope/random_precision": 0.6206897,
            "pope/random_recall": 0.9,
            "pope/random_yes": 0.725,
            "pope/adversarial_f1": 0.7578947,
            "pope/adversarial_accuracy": 0.7125,
            "pope/adversarial_precision": 0.6545455,
            "pope/adversarial_recall": 0.9,
            "pope/adversarial_yes": 0.6875,
            "pope/unparsed": 0.4166667,
            "pope/cut": 0.0,
        }
    },
    "textvqa": {
        1: {
            "textvqa/accuracy": 0.5375,
            "textvqa/unparsed": 0.08125,
            "textvqa/cut": 0.0,
        }
    },
    "vqa": {
        1: {
            "vqa/accuracy": 0.575,
            "vqa/unparsed": 0.1,
            "vqa/cut": 0.0,
        }
    },
    "fvd": {1: {"fvd/frechet": 9.0560496, "fvd/kernel": 33.0492261}},
    "vbench": {1: {"vbench/temporal_flickering": 0.5548492}},
    "motion": {1: {"motion/energy": 0.4630688, "motion/ratio": 1.0000000}},
    "reported": {1: {"b": 2.0, "a": 1.0}},
    "command": {1: {"first": 0.5, "second": 2.0}},
}


SAID = ("yes", "No.", "A", "the answer is B", "red", "a circle", "white", "Plain", "", "Yes, no")


def truths(evaluator: Any, data: EvaluationSet) -> dict[str, str]:
    """Return what is right to every question of a benchmark, by its key."""
    found = {}
    for one in evaluator.placed(data):
        question = one.question
        if hasattr(question, "passes"):
            found |= {f"{one.key}/{by}": right for by, (_, right) in enumerate(question.passes)}
        elif hasattr(question, "labels"):
            found[one.key] = next(iter(question.labels.values()))
        else:
            found[one.key] = getattr(question, "answer", None) or question.answers[0]
    return found


def half_right(evaluator: Any, data: EvaluationSet) -> Says:
    """Answer at random, and the same every time: every other one is right."""
    right = truths(evaluator, data)

    def reply(asked: Asked) -> str:
        drawn = hashlib.sha256(f"{asked.key} {asked.text}".encode()).digest()
        return right[asked.key] if drawn[0] % 2 else SAID[drawn[1] % len(SAID)]

    return Says(reply)


class Weighs:
    """Finds a caption the less likely, the later it stands."""

    def nll(self, data: EvaluationSet, rows: Sequence[int]) -> Likelihoods:
        return Likelihoods(
            np.array([3.0 + row for row in rows]), np.array([3 + row % 2 for row in rows])
        )


class Measured:
    """Videos of which all is measured: a number each, or as many as there are features."""

    cpus, gpus = 1.0, 0.0

    def kept(self, name: str, keys: Iterable[str]) -> dict[str, list[float]]:
        rng = np.random.default_rng(3)
        if name.startswith("features"):
            return {key: rng.normal(size=4).tolist() for key in keys}
        return {key: [rng.random(), 1 + 2 * place] for place, key in enumerate(keys)}

    def shared(self, name: str, keys: Iterable[str]) -> dict[str, list[float]]:
        rng = np.random.default_rng(4)
        return {key: (1 + 2 * rng.normal(size=4)).tolist() for key in keys}


def own_questions() -> EvaluationSet:
    """Return a user's questions."""
    entries = [{"question": f"What is {n}?", "answers": [SAID[n % 8]]} for n in range(40)]
    return EvaluationSet("set", "", 1, metadata=({"questions": {"vqa": entries}},))


class Guesses:
    """Foretells the noise of clips as well as a row and a caption make it."""

    def losses(
        self,
        data: EvaluationSet,
        times: Sequence[float],
        seed: int,
        clips: Sequence[tuple[int, str]],
    ) -> np.ndarray:
        return np.array([1 + row % 5 + sum(map(ord, text)) % 7 / 10 for row, text in clips])


@pytest.mark.parametrize("name", sorted(EVALUATORS))
def test_a_version_stands_for_its_numbers(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "node"))
    kind = EVALUATORS.get(name)
    assert "VERSION" in vars(kind), "a version stands beside the formula that it speaks for"
    rng = np.random.default_rng(11)
    words = {*CAPTIONS, *(f"{word} {label}" for word in ("a", "one") for label in "abc")}
    texts = {word: unit(rng.normal(size=6)) for word in sorted(words)}
    pairs = zip(LABELS, CAPTIONS, strict=True)
    mixed = np.stack([texts[f"a {label}"] + texts[text] for label, text in pairs])
    model: Any = TableEncoder(unit(mixed + rng.normal(size=mixed.shape)), texts)
    own = {"prompts": write_prompts(tmp_path / "own.json")} if name == "vbench" else {}
    evaluator = kind(kind.Config.model_validate({"type": name, **SETTINGS[name], **own}))
    data = split_of(CAPTIONS, LABELS)
    if kind.READS == "answers":
        source = evaluator.source()
        assert source is not None
        data = own_questions() if name == "vqa" else set_of(source)
        model = half_right(evaluator, data)
    elif kind.READS == "videos":
        model = Measured()
    elif kind.READS == "likelihoods":
        model = Weighs()
    elif kind.READS == "denoising":
        model = Guesses()
    elif kind.READS != "embeddings":
        model = Artefact(tmp_path, 1, 0, {"a": 1.0, "b": 2.0, "c": 3.0})
    found = evaluator.evaluate(model, data)
    place = f"{Path(sys.modules[kind.__module__].__file__ or '').name}"
    assert found == pytest.approx(GOLDEN[name].get(kind.VERSION, {}), abs=1e-6), (
        f"raise the VERSION of {kind.__name__} in evaluation/{place} and record here, under it: "
        f"{json.dumps(found)}"
    )

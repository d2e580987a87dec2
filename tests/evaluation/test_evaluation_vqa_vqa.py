"""A user's own questions, and what all evaluators of questions have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from asked_world import Says, evaluator, jpeg, samples_of, set_of, write_lines
from pydantic import ValidationError

from djsandbox_ray.dataset.source import Sample
from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.data import EvaluationSet, least

ENTRIES: list[dict[str, Any]] = [
    {"image": "a.jpg", "question": "What colour?", "answer": "Red", "id": "q1"},
    {"image": "b.jpg", "question": "How many?", "answers": ["two", "a pair"], "id": "q2"},
    {"image": "a.jpg", "question": "Where?", "answer": "in the sky", "id": 3},
]
WORD = "Answer the question using a single word or phrase."


@pytest.fixture
def own(tmp_path: Path) -> str:
    for number, name in enumerate(("a.jpg", "b.jpg")):
        (tmp_path / name).write_bytes(jpeg(number))
    return write_lines(tmp_path / "own.jsonl", ENTRIES)


def said(texts: dict[str, str]) -> Says:
    return Says(lambda asked: texts[asked.text.partition("\n")[0]])


ANSWERS = {"What colour?": "It is red", "How many?": "2", "Where?": "sky"}


@pytest.mark.parametrize(
    ("match", "accuracy"),
    [("normal", 1 / 3), ("exact", 0.0), ("contains", 2 / 3)],
)
def test_answers_are_compared_as_is_asked(own: str, match: str, accuracy: float) -> None:
    found = evaluator("vqa", path=own, match=match)
    data = set_of(found.source())
    found.check(data)
    scores = found.evaluate(said(ANSWERS), data)
    assert scores == {
        "vqa/accuracy": pytest.approx(accuracy),
        "vqa/unparsed": 0,
        "vqa/cut": 0,
    }
    assert found.asking() == evaluator("vqa", path=own).asking()


def test_exact_keeps_case_and_articles(own: str) -> None:
    found = evaluator("vqa", path=own, match="exact")
    model = said({"What colour?": " Red ", "How many?": "a pair", "Where?": "In the sky"})
    assert found.evaluate(model, set_of(found.source()))["vqa/accuracy"] == pytest.approx(2 / 3)


def test_people_agree_only_where_there_are_enough(own: str, tmp_path: Path) -> None:
    found = evaluator("vqa", path=own, match="consensus")
    with pytest.raises(BadInput, match="4 answers to a question; 3 of 3 have fewer, the first is"):
        found.check(set_of(found.source()))
    entry = {"image": "a.jpg", "question": "What?", "answers": ["b", "b", "b", "c"]}
    agreed = evaluator("vqa", path=write_lines(tmp_path / "two.jsonl", [entry]), match="consensus")
    data = set_of(agreed.source())
    agreed.check(data)
    assert agreed.evaluate(Says(lambda asked: "b"), data)["vqa/accuracy"] == pytest.approx(0.75)


def test_cut_and_unreadable_answers_are_shown(own: str) -> None:
    found = evaluator("vqa", path=own, name="receipts", max_new_tokens=3)
    model = Says(lambda asked: "a long answer" if "colour" in asked.text else "", cut=3)
    scores = found.evaluate(model, set_of(found.source()))
    assert scores["receipts/cut"] == pytest.approx(1 / 3)
    assert scores["receipts/unparsed"] == pytest.approx(2 / 3)
    assert {one.max_new_tokens for one in model.asked} == {3}
    assert found.identity() == evaluator("vqa", path=own, max_new_tokens=3).identity()


def test_limit_takes_the_same_questions_everywhere(own: str) -> None:
    data = set_of(evaluator("vqa", path=own).source())
    some = evaluator("vqa", path=own, limit=2)
    asked = some.ask(data, {})
    assert len(asked) == 2
    assert some.remarks(data) == (
        "vqa: 2 of 3 questions are asked (limit: 2 questions): no score to compare with published "
        "ones",
    )
    assert evaluator("vqa", path=own).remarks(data) == ()
    assert evaluator("vqa", path=own, limit=3).remarks(data) == ()
    assert set(least(["0/0", "0/1", "1/0"], 2)) == {one.key for one in asked}
    assert least(map(str, range(1000)), 3) == ["136", "913", "608"], "trials would not compare"
    assert some.asking() != evaluator("vqa", path=own).asking()
    assert len(evaluator("vqa", path=own, limit=9).ask(data, {})) == 3


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"image": "a.jpg", "question": "What?"}, r"own.jsonl:4: no text under 'answer'"),
        ({"image": "a.jpg", "answer": "x"}, r"own.jsonl:4: no text under 'question'"),
        ({"question": "What?", "answer": "x"}, r"own.jsonl:4: no text under 'image'"),
        ({**ENTRIES[0], "question": "?"}, r"own.jsonl:4: the id 'q1' is that of own.jsonl:1 too"),
        ({"image": "../a.jpg", "question": "?", "answer": "x"}, "leads out of the file's folder"),
        ({"image": "c.jpg", "question": "?", "answer": "x"}, "1 of 3 images are not in"),
        ([1], r"own.jsonl:4: an object is needed, not list"),
    ],
)
def test_damaged_lines_are_named(own: str, entry: Any, message: str) -> None:
    (Path(own).parent.parent / "a.jpg").write_bytes(jpeg(0))
    write_lines(Path(own), [*ENTRIES, entry])
    with pytest.raises(BadInput, match=message):
        set_of(evaluator("vqa", path=own).source())


def test_answers_are_told_by_id_or_by_question(own: str, tmp_path: Path) -> None:
    found = evaluator("vqa", path=own)
    made = [
        {"id": "q2", "prediction": "two"},
        {"id": "q1", "prediction": "red"},
        {"id": 3, "prediction": "sea"},
    ]
    data, told = found.made_elsewhere(write_lines(tmp_path / "made.jsonl", made))
    assert found.score_said(data, told)["vqa/accuracy"] == pytest.approx(2 / 3)
    plain = [{key: one[key] for key in one if key != "id"} for one in ENTRIES]
    write_lines(Path(own), plain)
    made = [{"question": one["question"], "text": "two"} for one in plain]
    data, told = found.made_elsewhere(write_lines(tmp_path / "made.jsonl", made))
    assert found.score_said(data, told)["vqa/accuracy"] == pytest.approx(1 / 3)
    with pytest.raises(BadInput, match="its answers say what they are to: no questions"):
        found.made_elsewhere(str(tmp_path / "made.jsonl"), str(tmp_path / "made.jsonl"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"either path \(the benchmark's files\) or dataset \(a source\) is needed"),
        ({"path": "a", "dataset": {"type": "shapes_questions", "samples": 5}}, "either path"),
        (
            {"dataset": {"type": "shapes_questions", "samples": 5}, "images": "a"},
            "images: they bel",
        ),
        ({"dataset": {"type": "llava", "path": "a"}}, "images with questions"),
        ({"path": "a", "limit": 0}, "greater than or equal to 1"),
        ({"path": "a", "name": "a/b"}, "String should match"),
        ({"path": "a", "match": "like"}, "Input should be 'normal'"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        evaluator("vqa", **settings)


def test_meta_data_without_questions_are_named(own: str) -> None:
    found = evaluator("vqa", path=own)
    blank = EvaluationSet("set", "", 1, ("a",), ({"label": 1},))
    with pytest.raises(BadInput, match="no row of set has questions for 'vqa' under 'questions'"):
        found.check(blank)
    odd = EvaluationSet("set", "", 1, ("a",), ({"questions": {"vqa": ["What?"]}},))
    with pytest.raises(BadInput, match="vqa: row 0, question 0: an object is needed, not str"):
        found.check(odd)
    bare = EvaluationSet("set", "", 1, ("a",), ({"questions": {"vqa": [{"question": "?"}]}},))
    with pytest.raises(BadInput, match="vqa: row 0, question 0: no text under 'answer'"):
        found.check(bare)


def test_settings_that_place_the_files_are_no_identity(own: str) -> None:
    found = evaluator("vqa", path=own, images=str(Path(own).parent))
    for plain in (found.identity(), found.asking(), found.source().stamp()["config"]):
        assert str(Path(own).parent) not in str(plain)


def test_a_sample_is_an_image_with_its_questions_as_text(own: str) -> None:
    first = samples_of(evaluator("vqa", path=own).source())[0]
    assert isinstance(first, Sample)
    assert first.is_pair
    assert first.text == "What colour?\nWhere?"
    assert first.image == jpeg(0)

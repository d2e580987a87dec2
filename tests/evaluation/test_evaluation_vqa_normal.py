"""EvalAI's comparison of short answers: the numbers of its own tests, and its slips."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from djsandbox_ray.evaluation.vqa.normal import consensus, normal


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$1,000.50", "$1000.50"),
        ("10:30 a.m.", "10:30 am"),
        ("coca-cola", "coca cola"),
        ("U.S.A.", "usa"),
        ("dont", "don't"),
        ("3.5 %", "3.5 %"),
        ("none", "0"),
        ("A", ""),
        ("McDonald's", "mcdonald 's"),
        ("1.a", "1a"),
        # The five of mmf's own tests.
        ("two", "2"),
        ("a building", "building"),
        ("snow, mountain", "snow mountain"),
        ("isnt", "isn't"),
        ("the two mountain's \t \n   ", "2 mountain 's"),
        # A sign goes where it stands at a blank anywhere, and else leaves a blank.
        ("black-and-white", "black and white"),
        ("black- and-white", "black andwhite"),
        ("(yes)", "yes"),
        ("Ten", "10"),
        ("eleven", "eleven"),
        ("yall'd've", "y'all'd've"),
        ("somebody'd", "somebodyd"),
        ("couldnt've", "couldn't've"),
        ("shed", "shed"),
        ("", ""),
    ],
)
def test_answers_are_compared_as_evalai_does(text: str, expected: str) -> None:
    assert normal(text) == expected


def test_dots_go_by_the_slips_of_the_reference() -> None:
    """A flag is taken for a count: 32 of 40 dots go; the look-behind holds after a digit too."""
    assert normal("." * 40) == "." * 8
    assert normal("3. 4.") == "3 4"
    assert normal("3.4") == "3.4"


def people(counts: dict[str, int]) -> list[str]:
    return [answer for answer, count in counts.items() for _ in range(count)]


@pytest.mark.parametrize(
    ("same", "score"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (9, 1.0), (10, 1.0)]
)
def test_three_others_make_an_answer_right(same: int, score: float) -> None:
    answers = people({"red": same, "blue": 10 - same})
    assert consensus("Red.", answers) == pytest.approx(score)


def left_out(said: str, answers: list[str]) -> float:
    """The rule as it is written: every person is left out in turn."""
    scores = []
    for place in range(len(answers)):
        others = answers[:place] + answers[place + 1 :]
        matches = sum(normal(other) == normal(said) for other in others)
        scores.append(min(1.0, matches / 3))
    return sum(scores) / len(scores)


@given(st.lists(st.sampled_from(["a", "b", "two", "2", "Two."]), min_size=4, max_size=12))
def test_the_short_formula_is_the_written_one(answers: list[str]) -> None:
    for said in ("b", "two", "green"):
        assert consensus(said, answers) == pytest.approx(left_out(said, answers))


def test_too_few_answers_never_agree() -> None:
    with pytest.raises(ValueError, match="3 answers"):
        consensus("a", ["a", "a", "a"])


@pytest.mark.shared_data
def test_the_cases_of_the_pack(shared_data: Path) -> None:
    path = shared_data / "benchmarks" / "textvqa" / "answer_processor_cases.json"
    cases = json.loads(path.read_text())
    assert len(cases["cases"]) == 5
    assert [normal(text) for text, _ in cases["cases"]] == [to for _, to in cases["cases"]]
    assert len(cases["accuracy_cases_by_rule"]) == 11
    for case in cases["accuracy_cases_by_rule"]:
        assert consensus(case["pred"], case["answers"]) == pytest.approx(case["score"], abs=1e-12)

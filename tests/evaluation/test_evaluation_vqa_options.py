"""Which option an answer means, and the rotations of options."""

from __future__ import annotations

import pytest

from djsandbox_ray.evaluation.vqa.options import letter_of, rotated

OPTIONS = {"A": "a red circle", "B": "blue", "C": "dark green", "D": "yellow"}


@pytest.mark.parametrize(
    ("said", "letter"),
    [
        ("B", "B"),
        ("B.", "B"),
        ("(C)", "C"),
        ("D: yellow", "D"),
        ("The correct answer is A.", "A"),
        ("The answer is B because the sky has the colour of the sea", "B"),
        ("Answer: C", "C"),
        ("dark green", "C"),
        ("It is yellow.", "D"),
        ("YELLOW", "D"),
        # Chinese, and its signs.
        ("答案是B", "B"),
        ("选B", "B"),
        ("B。", "B"),
        ("答案\uff1aC", "C"),
        ("\uff22", "B"),
        ("\uff08D\uff09", "D"),
        ("A选项", "A"),
        # Nothing can be told.
        ("", None),
        ("b", None),
        ("A or B", None),
        ("E", None),
        ("blue or yellow", None),
        ("I do not know", None),
        ("the answer is a bird", None),
    ],
)
def test_the_letter_is_found_or_it_is_not(said: str, letter: str | None) -> None:
    assert letter_of(said, OPTIONS) == letter


def test_an_a_before_a_word_is_an_article_in_longer_answers() -> None:
    options = {"A": "white cat", "B": "dog"}
    assert letter_of("A dog", options) == "A"  # the reference's, kept
    assert letter_of("A dog on grass", options) == "B"
    assert letter_of("I think it is A", options) == "A"


def test_a_letter_far_from_the_end_does_not_count() -> None:
    options = {"A": "cat", "B": "dog"}
    assert letter_of("B it is that I see", options) is None
    assert letter_of("B it is indeed", options) == "B"


def test_a_long_answer_is_not_searched_for_options() -> None:
    options = {"A": "cat", "B": "dog"}
    assert letter_of("some dog", options) == "B"
    assert letter_of("some dog there", options) is None  # more than twice 6 characters


def test_rotations_move_options_and_the_letter() -> None:
    options = {"A": "w", "B": "x", "C": "y", "D": "z"}
    assert rotated(options, "B", 0) == (options, "B")
    assert rotated(options, "B", 1) == ({"A": "x", "B": "y", "C": "z", "D": "w"}, "A")
    assert rotated(options, "B", 2) == ({"A": "y", "B": "z", "C": "w", "D": "x"}, "D")
    for by in range(4):
        moved, right = rotated(options, "C", by)
        assert moved[right] == "y"
    assert {rotated(options, "C", by)[1] for by in range(4)} == set("ABCD")

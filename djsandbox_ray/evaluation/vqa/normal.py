"""Answers of a few words, compared as the VQA challenges compare them.

The rules are those of EvalAI, by which VQA v2 and TextVQA are scored (``EvalAIAnswerProcessor`` of
facebookresearch/mmf). They have two slips that published numbers depend on, and that are kept: a
look-behind that is misspelt and holds always, and a flag that is taken for a count, so that not
more than 32 dots go.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

_PUNCTUATION = (*";/[]", '"', *"{}()=+", "\\", *"_-><@`,?!")
_DOT = re.compile(r"(?!<=\d)(\.)(?!\d)")
_MOST_DOTS = int(re.UNICODE)
_COMMA_IN_NUMBER = re.compile(r"(?<=\d)(\,)+(?=\d)")
_ARTICLES = frozenset({"a", "an", "the"})
_NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
} | {"none": "0"}

_ENDINGS = {
    "n't": "ai are ca could did does do had has have is might must need ought sha should was were "
    "wo would",
    "'d": "he how it someone something there they where who you",
    "'ll": "how it somebody someone something they what who why you",
    "'s": "he how somebody someone that there what when where who why",
    "'re": "there they what why you",
    "'ve": "could might must not should they we what where who would you",
}
"""Words without their apostrophe that get it back, by what follows it."""
_DOUBLE = (
    *("could", "had", "might", "should", "would"),
    *("he", "it", "she", "somebody", "someone", "something", "there", "they", "we", "who", "you"),
)
"""Words with two endings, of which either apostrophe may lack."""


def _contractions() -> dict[str, str]:
    """Return the reference's table of words without an apostrophe, built from its regular part."""
    table = {}
    for ending, words in _ENDINGS.items():
        for word in words.split():
            table[word + ending.replace("'", "")] = word + ending
    for word in _DOUBLE:
        first = "n't" if word in _DOUBLE[:5] else "'d"
        whole = f"{word}{first}'ve"
        table[f"{word}{first.replace(chr(39), '')}'ve"] = whole
        table[f"{word}{first}ve"] = whole
    # "I" is never met, as answers are in lower case; "somebody'd" loses its apostrophe there too.
    odd = {
        "maam": "ma'am",
        "oclock": "o'clock",
        "ow's'at": "'ow's'at",
        "'ows'at": "'ow's'at",
        "'ow'sat": "'ow's'at",
        "somebody'd": "somebodyd",
        "twas": "'twas",
        "yall": "y'all",
        "yall'll": "y'all'll",
        "y'allll": "y'all'll",
        "yall'd've": "y'all'd've",
        "y'alld've": "y'all'd've",
        "y'all'dve": "y'all'd've",
    }
    return table | odd


_CONTRACTIONS = _contractions()


def normal(text: str) -> str:
    """Return an answer as it is compared: lower case, without punctuation and articles.

    Number words up to ten become digits, and contractions get their apostrophe back.
    """
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return _words(_without_punctuation(text.replace("\n", " ").replace("\t", " ").strip()))


def _without_punctuation(text: str) -> str:
    """Take signs out where they stand at a blank, put a blank where they stand in a word."""
    shown = text
    for sign in _PUNCTUATION:
        apart = f"{sign} " in text or f" {sign}" in text or _COMMA_IN_NUMBER.search(text)
        shown = shown.replace(sign, "" if apart else " ")
    return _DOT.sub("", shown, count=_MOST_DOTS)


def _words(text: str) -> str:
    words = [_NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


LEAST_ANSWERS = 4
"""Of people to one question: with fewer, three others can never agree."""


def consensus(said: str, answers: Sequence[str]) -> float:
    """Return the VQA accuracy of an answer, 0..1, by those that people gave.

    Every one of them is left out in turn; the answer gets a third for each of the others that says
    the same, 1 at most; the mean over those left out counts (TextVQA, section 4 of its paper).

    Args:
        said: by the model.
        answers: of people; ten in TextVQA.

    Raises:
        ValueError: there are fewer than :data:`LEAST_ANSWERS`.
    """
    if len(answers) < LEAST_ANSWERS:
        raise ValueError(f"{len(answers)} answers; {LEAST_ANSWERS} are needed to agree")
    counts = Counter(normal(answer) for answer in answers)
    same = counts[normal(said)]
    # Left out are ``same`` times one that says the same, and else one that does not.
    within, without = min(1.0, (same - 1) / 3) if same else 0.0, min(1.0, same / 3)
    return (same * within + (len(answers) - same) * without) / len(answers)

"""What counts as yes and as no: the rules of MME and POPE, which differ, slips included."""

from __future__ import annotations

from typing import Literal, TypeAlias

YesNo: TypeAlias = Literal["yes", "no"]

_NO_OF_POPE = ("No", "not", "no")


def of_mme(said: str) -> YesNo | None:
    """Return what MME takes an answer for; None for anything else, which is wrong.

    The rule of its ``calculation.py``: ``yes`` or ``no`` in any case; else in the first four
    characters ``yes``, then ``no``. So ``None`` and ``Know`` are no, and ``Answer: no`` is neither.
    """
    start = said.strip().lower()[:4]
    if "yes" in start:
        return "yes"
    return "no" if "no" in start else None


def of_pope(said: str) -> YesNo:
    """Return what POPE takes an answer for: no where a word of the first sentence is, else yes.

    The rule of its ``evaluate.py``: ``No``, ``not`` or ``no``, between blanks. So an empty answer,
    ``NO``, ``Nope`` and ``Not at all`` are yes.
    """
    words = said.strip().split(".")[0].replace(",", "").split(" ")
    return "no" if any(word in words for word in _NO_OF_POPE) else "yes"


def strictly(said: str) -> YesNo | None:
    """Return yes or no if an answer is nothing else, in any case; the rule of lmms-eval for POPE.

    Neither is wrong there, and no "yes".
    """
    word = said.strip().lower()
    if word == "yes":
        return "yes"
    return "no" if word == "no" else None


def is_plain(said: str) -> bool:
    """Say whether a word of the first sentence is yes or no, or a negation, in any case.

    Where none is, POPE's rule reads something into the answer that is not there.
    """
    sentence = said.strip().lower().split(".")[0].replace(",", " ").replace("!", " ")
    return not {"yes", "no", "not"}.isdisjoint(sentence.split())

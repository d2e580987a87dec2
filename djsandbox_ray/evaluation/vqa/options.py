"""Questions with options: the letters, their rotations, and which one an answer means.

The rule is VLMEvalKit's without a judge (``can_infer`` in its ``matching_util.py``). It gets none
of ``答案是B``, ``选B`` and ``B。``: beyond it, full-width signs count as the narrow ones, and
letters stand apart from Chinese characters. No model judges what is left, so that results are the
same everywhere.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from string import ascii_uppercase

_SIGNS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_NARROW = str.maketrans("\u3002\u3001", ".,")
"""Chinese signs that are no wide form of a narrow one, as the others are."""
_CJK = r"[\u2e80-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
_BORDER = re.compile(rf"(?<={_CJK})(?=[A-Za-z])|(?<=[A-Za-z])(?={_CJK})")
_ANSWER_IS = re.compile(r"(?i:answer\s+is)[\s:*\"'(]*([A-Z])\b")
_LAST = 4
"""An option's letter counts among so many words at the end of an answer."""
_SHORT = 3
"""An ``A`` before another word is an article in an answer of more words."""
LETTERS = ascii_uppercase


def letter_of(said: str, options: Mapping[str, str]) -> str | None:
    """Return the letter of the option that an answer means; None where it cannot be told.

    The only letter of an option that is a word, if it is among the last four words; else the letter
    behind "answer is"; else the only option whose text occurs, if the answer is not longer than
    twice all options.

    Args:
        said: by the model.
        options: texts by letter.
    """
    plain = _BORDER.sub(" ", unicodedata.normalize("NFKC", said.translate(_NARROW)))
    words = plain.translate(_SIGNS).split()
    found = [letter for letter in options if letter in words]
    if len(found) == 1:
        place = words.index(found[0])
        is_article = found == ["A"] and len(words) > _SHORT and place < len(words) - 1
        if place >= len(words) - _LAST and not is_article:
            return found[0]
    if (named := _ANSWER_IS.search(plain)) is not None and named[1] in options:
        return named[1]
    if len(said) > 2 * sum(map(len, options.values())):
        return None
    lower = said.lower()
    occurring = [letter for letter, text in options.items() if text.lower() in lower]
    return occurring[0] if len(occurring) == 1 else None


def rotated(options: Mapping[str, str], answer: str, by: int) -> tuple[dict[str, str], str]:
    """Return options moved on by some places, and the letter that is right then.

    Option ``(i + by) mod n`` stands under letter i, so that the right one, at place k, gets letter
    ``(k - by) mod n``.

    Args:
        options: texts by letter, in order.
        answer: the letter that is right of them.
        by: places.
    """
    letters, texts = list(options), list(options.values())
    moved = texts[by:] + texts[:by]
    right = letters[(letters.index(answer) - by) % len(letters)]
    return dict(zip(letters, moved, strict=True)), right

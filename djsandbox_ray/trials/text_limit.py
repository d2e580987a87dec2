"""How much of a text is read before it becomes tokens: what is far behind the last one is not.

Byte pairs take the square of a word's length, so that a megabyte without a blank takes hours; and
whatever the tokenizer, of a text that is much longer than a model reads nothing is left in the end.
"""

from __future__ import annotations

import re

_WORD_CHARACTERS, _CHARACTERS = 20, 100
"""So many characters of a word, and of a text, are read for each token that a model reads."""


def within(text: str, tokens: int, *, lead: bool = True) -> str:
    """Leave out what is far behind the last token that is read; ordinary texts stay as they are.

    Args:
        text: not yet in tokens.
        tokens: that are read of it at most.
        lead: whether the blanks that a long text begins with are read.
    """
    longest = _WORD_CHARACTERS * tokens
    if len(text) <= longest:
        return text
    words = re.sub(rf"(\S{{{longest}}})\S+", r"\1", text if lead else text.lstrip())
    return words[: _CHARACTERS * tokens]

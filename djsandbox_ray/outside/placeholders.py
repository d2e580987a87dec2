"""Placeholders in the arguments of a program: ``{pool}`` becomes a path, ``{seed}`` a number."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def placeholders(text: str, known: Iterable[str]) -> set[str]:
    """Return the names in braces; ``{{`` and ``}}`` are braces themselves.

    Raises:
        ValueError: a name is not among the known ones, or a brace stands alone.
    """
    names = set()
    for match in _PART.finditer(text):
        if match[0] in ("{", "}"):
            raise ValueError(f"{text!r}: a brace alone; write {{{{ or }}}} for a brace itself")
        if match[1] is not None:
            _check(match[1], text, sorted(known))
            names.add(match[1])
    return names


def filled(text: str, values: Mapping[str, str]) -> str:
    """Replace every placeholder by its value, once: braces in a value stay as they are."""
    return _PART.sub(lambda m: m[0][0] if m[1] is None else values[m[1]], text)


def _check(name: str, text: str, known: list[str]) -> None:
    if name in known:
        return
    near = get_close_matches(name, known, n=1)
    hint = f"; did you mean {{{near[0]}}}?" if near else ""
    listed = ", ".join(f"{{{one}}}" for one in known)
    raise ValueError(
        f"unknown placeholder {{{name}}} in {text!r}{hint} (known: {listed}; "
        "{{ and }} for braces themselves)"
    )

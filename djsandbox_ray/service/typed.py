"""A command as it was typed, without its secrets: everybody who sees a job sees it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from djsandbox_ray.errors import BadInput
from djsandbox_ray.masking import MASK, masked, without_secrets
from djsandbox_ray.yaml_input import read_value

_OPTION = "--set"


def shown(words: Sequence[str]) -> str:
    """Return a command for a shell; what ``--set PATH=VALUE`` sets is masked by its keys, too."""
    found = []
    for before, word in zip(("", *words), words, strict=False):
        if before == _OPTION:
            word = _override(word)
        elif word.startswith(f"{_OPTION}="):
            word = f"{_OPTION}={_override(word.removeprefix(f'{_OPTION}='))}"
        found.append(word)
    return shlex.join(map(without_secrets, found))


def _override(word: str) -> str:
    path, _, text = word.partition("=")
    keys = re.split(r"[.\[\]]", path)
    secret = any(masked({key: text}) == {key: MASK} for key in keys) or _holds_secret(text)
    return f"{path}={MASK}" if secret else word


def _holds_secret(text: str) -> bool:
    """Tell whether a value that is a mapping or a list holds a secret in it."""
    try:
        value = read_value(text, "the value")
    except BadInput:
        return False  # no such command has come so far
    return isinstance(value, dict | list) and masked(value) != value

"""No secret is shown: what is printed, logged or kept for reading holds none.

A secret is known by where it stands (in an address, after ``password=``, under a key such as
``api_key``) and, wherever it stands, by being the value of an environment variable whose name says
so (``AWS_SECRET_ACCESS_KEY``): credentials come from the environment only.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "***"

_USER = re.compile(r"://[^/\s]*@")
# In a path that has lost its scheme; an image of a container is named by a digest after its tag.
_USER_IN_PATH = re.compile(r"(?<=/)[^/\s:@]+:[^/\s@]+@(?!sha\d+:)")
_ANYWHERE = re.compile(r"((?:password|token)=)[^&\s]*", re.IGNORECASE)
# Signatures and keys are secrets in the query of an address; elsewhere "key=" is any key.
_QUERY = re.compile(
    r"([?&][\w.-]*(?:key|secret|sig|signature|credential|passwd|pwd)=)[^&\s]*", re.IGNORECASE
)
_HEADER = re.compile(r"((?:bearer|basic)\s+)[\w.~+/-]{16,}=*", re.IGNORECASE)
# Ends of names. In a configuration a token may be a piece of text (``image_token``), and the number
# of them a statistic: there only those that grant access are secrets.
_NAME = (
    r"password|passwd|passphrase|pwd|{token}|(?:^|[_.-])(?:secret|credentials?|connection_?string|"
    r"(?:api|access|account|private|secret)_?key)"
)
_TOKEN = r"^token|(?:^|[_.-])(?:auth|access|api|hf|session|security|sas)_?token"
_KEY = re.compile(rf"(?:{_NAME.format(token=_TOKEN)})$", re.IGNORECASE)
_VARIABLE = re.compile(rf"(?:{_NAME.format(token='token')})$", re.IGNORECASE)
# Names of files and folders say nothing.
_NOT_SECRET = {"GOOGLE_APPLICATION_CREDENTIALS", "PWD", "OLDPWD"}
# A shorter value ("1", "none") would mask what it is not.
_SHORTEST = 8


def without_secrets(text: str, *, environment: bool = True) -> str:
    """Mask user names, passwords, tokens, keys and signatures of the addresses in a text.

    Args:
        text: any.
        environment: whether to mask the values of secret environment variables, too, wherever they
            stand. Not for what must be the same on every machine.
    """
    return masker(environment=environment)(text)


def masker(*, environment: bool = True) -> Callable[[str], str]:
    """Return :func:`without_secrets` for many texts, with the environment as it is now."""
    secrets = _from_environment() if environment else ()
    return lambda text: (_known if len(text) <= _SHORT else _without)(text, secrets)


def _without(text: str, secrets: tuple[str, ...]) -> str:
    for secret in secrets:
        text = text.replace(secret, MASK)
    text = _USER.sub(f"://{MASK}@", text)
    text = _USER_IN_PATH.sub(f"{MASK}@", text)
    for pattern in (_ANYWHERE, _QUERY, _HEADER):
        text = pattern.sub(rf"\1{MASK}", text)
    return text


_SHORT = 200
_known = lru_cache(maxsize=1 << 13)(_without)  # names of pools, stages and metrics come again


def masked(value: Any) -> Any:
    """Return plain data (mappings, lists, scalars) with the secrets in its texts masked.

    A text under a key whose name says secret (``password``, ``api_key``) is masked whole.
    """
    return _masked(value, masker())


def _masked(value: Any, mask: Callable[[str], str]) -> Any:
    if isinstance(value, Mapping):
        return {
            key: MASK
            if isinstance(item, str) and item and _KEY.search(str(key))
            else _masked(item, mask)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [_masked(item, mask) for item in value]
    return mask(value) if isinstance(value, str) else value


@cache  # every line that is printed asks for all variables
def names_secret(name: str) -> bool:
    """Tell whether the name of an environment variable says that its value is a secret."""
    return bool(_VARIABLE.search(name)) and name not in _NOT_SECRET


def _from_environment() -> tuple[str, ...]:
    """Return the secret values, as they are and as addresses quote them; long ones first."""
    return _forms(frozenset(os.environ.get(name, "") for name in os.environ if names_secret(name)))


@lru_cache(maxsize=4)
def _forms(values: frozenset[str]) -> tuple[str, ...]:
    long = [value for value in values if len(value) >= _SHORTEST]
    forms = {form for value in long for form in (value, quote(value, ""), quote_plus(value))}
    return tuple(sorted(forms, key=len, reverse=True))

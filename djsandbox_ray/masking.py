"""No secret is shown: what is printed, logged or kept for reading holds addresses without them."""

from __future__ import annotations

import re

_USER = re.compile(r"://[^/\s]*@")
_ANYWHERE = re.compile(r"((?:password|token)=)[^&\s]*", re.IGNORECASE)
# Signatures and keys are secrets in the query of an address; elsewhere "key=" is any key.
_QUERY = re.compile(
    r"([?&][\w.-]*(?:key|secret|sig|signature|credential|passwd|pwd)=)[^&\s]*", re.IGNORECASE
)


def without_secrets(text: str) -> str:
    """Mask user names, passwords, tokens, keys and signatures of the addresses in a text."""
    masked = _USER.sub("://***@", text)
    for secret in (_ANYWHERE, _QUERY):
        masked = secret.sub(r"\1***", masked)
    return masked

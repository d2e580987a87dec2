"""Waiting for what other processes do."""

from __future__ import annotations

import time
from collections.abc import Callable


def soon(holds: Callable[[], bool]) -> bool:
    """Say whether something comes to hold within half a minute."""
    for _ in range(600):
        if holds():
            return True
        time.sleep(0.05)
    return False

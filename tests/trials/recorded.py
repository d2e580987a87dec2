"""Numbers that trainings give, recorded by the version that stands for them in ``golden.json``.

A change of them means that trials known already must not be compared with new ones. To record what
has changed on purpose, raise the VERSION beside the code and say

    GOLDEN=record python -m pytest tests/trials -k version
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

GOLDEN = Path(__file__).with_name("golden.json")
TOLERANCE = 2e-3
"""Of other processors and other builds of torch; what it must tell apart moves them by more."""


def check(name: str, version: str, place: str, found: dict[str, Any]) -> None:
    """Compare numbers with those recorded under a version.

    Args:
        name: of what has a version.
        version: or several, with dots in between.
        place: where they stand in the code.
        found: numbers, or lists of them, by what they are.

    Raises:
        AssertionError: they differ: says what to do.
    """
    golden = json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}
    known = golden.get(name, {})
    now = {what: np.round(value, 5).tolist() for what, value in found.items()}
    advice = (
        f"raise VERSION in {place}, then GOLDEN=record python -m pytest tests/trials -k version"
    )
    if os.environ.get("GOLDEN") == "record" and known.get("version") != version:
        golden[name] = {"version": version, "numbers": now}
        GOLDEN.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")
        return
    assert known.get("version") == version, advice
    assert {*known["numbers"]} == {*now}, advice
    for what, value in now.items():
        expected = pytest.approx(known["numbers"][what], rel=TOLERANCE, abs=TOLERANCE)
        assert value == expected, f"{name}: {what}: {advice}"

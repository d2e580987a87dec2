"""A data set several times the object store goes by: the driver holds next to nothing of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "streaming.py"
STORE_MB = 80
MIB = 1 << 20


@pytest.fixture(scope="module")
def sizes() -> tuple[dict[str, Any], dict[str, Any]]:
    """The same job on a small and on a large data set, in one driver with a cluster of its own."""
    own = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    done = subprocess.run(
        [sys.executable, BENCHMARK, "--rows", "400", "2800", "--store-mb", f"{STORE_MB}", "--json"],
        env={**own, "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    small, large = json.loads(done.stdout.splitlines()[-1])
    return small, large


def test_the_driver_does_not_grow_with_the_data(sizes) -> None:
    small, large = sizes
    more = large["bytes"] - small["bytes"]
    assert (large["rows"], large["bytes"] > 3.5 * STORE_MB * MIB) == (2800, True)
    # What the first job has imported and left free helps the second, but by less than the rest.
    assert small["driver"] < more / 2
    assert large["driver"] < more / 4


def test_samples_stay_out_of_the_object_store(sizes) -> None:
    for size in sizes:
        assert size["spilled"] == 0
        assert 0 < size["stored"] < min(size["bytes"] / 20, STORE_MB * MIB / 4)

"""Trials of these tests are trained in their own process: no cluster is needed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from planted_world import trained_here


@pytest.fixture(scope="module", autouse=True)
def _trained_here() -> Iterator[None]:
    with trained_here():
        yield

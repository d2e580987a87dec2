"""Trials of these tests are trained in their own process: no cluster is needed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from planted_world import trained_here


@pytest.fixture(scope="module", autouse=True)
def _trained_here() -> Iterator[None]:
    with trained_here():
        yield


@pytest.fixture
def read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data is read in this process."""

    def mapped(self: object, function: Any, rows: list[Any], **given: Any) -> Iterator[Any]:
        return (function(row, **given) for row in rows)

    monkeypatch.setattr("djsandbox_ray.dataset.ingest.Tasks.map", mapped)
    monkeypatch.setattr("djsandbox_ray.hooks.hook.await_room", lambda *_: None)

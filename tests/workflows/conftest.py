"""What tests of workflows share: a small configuration, hooks that begin anew, ``init``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from small_hooks import BROKEN, RAN, SEEN
from typer.testing import CliRunner

from djsandbox_ray.cli import app
from djsandbox_ray.config import RunConfig, checked
from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.reporting.progress import Progress
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.workflows.opened import open_context

Configure = Callable[..., RunConfig]


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    for noted in (RAN, SEEN, BROKEN):
        noted.clear()
    yield
    BROKEN.clear()


@pytest.fixture
def configure(storage: Storage) -> Configure:
    """Make a configuration; sections replace those of the small one."""

    def made(**sections: Any) -> RunConfig:
        shapes = {"type": "shapes", "samples": 10}
        document = {
            "name": "test",
            "storage": storage.url,
            "dataset": shapes,
            "operators": ["text_length_filter"],
            "trials": {"model": {"type": "planned_hooks:Counted"}, "budget": 10},
            "evaluation": {"dataset": shapes, "metrics": [{"type": "retrieval", "k": [1]}]},
            "tracking": {"type": "none"},
        }
        return checked({**document, **sections}, "test")

    return made


@pytest.fixture
def opened(configure: Configure) -> Callable[..., Context]:
    """Make what hooks work with, of such a configuration."""

    def made(**sections: Any) -> Context:
        return open_context(configure(**sections), Progress(Console(file=StringIO(), width=200)))

    return made


@pytest.fixture
def init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Call ``djsandbox init`` in a folder; return what it says."""
    monkeypatch.chdir(tmp_path)

    def init(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["init", *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    return init

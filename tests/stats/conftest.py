"""A local tokenizer and a local CLIP, tiny and untrained."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_models
from conftest_stats import captions


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tokenizer"
    return tiny_models.tokenizer(folder, captions(200))


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path) -> Path:
    return tiny_models.clip(tmp_path_factory.mktemp("models") / "clip", tokenizer_folder)

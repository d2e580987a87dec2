"""What the README says of the house: every place in its table of changes is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "djsandbox_ray"


def _rows() -> list[str]:
    """Return the lines of the table that says where to change what."""
    text = (ROOT / "README.md").read_text()
    table = text[text.index("| to change |") :]
    return table[: table.index("\n\n")].split("\n")[2:]


def _places(row: str) -> list[str]:
    """Return what a row names as a path, from the second cell on."""
    quoted = re.findall(r"`([^`]+)`", row.split("|", 2)[2])
    return [name for name in quoted if "/" in name or name.endswith(".py")]


def test_the_table_names_all_folders_of_the_package() -> None:
    said = {place.split("/")[0] for row in _rows() for place in _places(row)}
    folders = {path.name for path in PACKAGE.iterdir() if (path / "__init__.py").exists()}
    assert folders - said == set()


@pytest.mark.parametrize("row", _rows(), ids=lambda row: row.split("|")[1].strip())
def test_every_place_of_the_table_is_there(row: str) -> None:
    places = _places(row)
    assert places
    for place in places:
        assert (PACKAGE / place).exists() or (ROOT / place).exists(), place

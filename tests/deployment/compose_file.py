"""``cluster/compose.yaml`` as compose would read it: variables filled in, services by name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

PATH = Path(__file__).resolve().parents[2] / "cluster" / "compose.yaml"
_VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


class Missing(Exception):
    """A variable that must be set is not."""


def filled_in(text: str, variables: Mapping[str, str]) -> str:
    """Replace ``${NAME}``, ``${NAME:-default}`` and ``${NAME:?error}``."""

    def value(match: re.Match[str]) -> str:
        name, kind, rest = match.groups()
        if variables.get(name):
            return variables[name]
        if kind != "-":
            raise Missing(name)
        return str(rest)

    return _VARIABLE.sub(value, text)


@dataclass(frozen=True)
class Service:
    """What one container runs, as lists of words."""

    command: tuple[str, ...]
    health: tuple[str, ...]
    environment: dict[str, str]


def compose(variables: Mapping[str, str]) -> dict[str, Any]:
    """Read the file."""
    content: dict[str, Any] = yaml.safe_load(filled_in(PATH.read_text(), variables))
    return content


def service(name: str, variables: Mapping[str, str]) -> Service:
    """Read one service; its health check as a command without compose's ``CMD``."""
    found = compose(variables)["services"][name]
    kind, *health = found.get("healthcheck", {}).get("test", ["CMD"])
    return Service(
        tuple(map(str, found.get("command", ()))),
        ("sh", "-c", *health) if kind == "CMD-SHELL" else tuple(health),
        {key: str(value) for key, value in found.get("environment", {}).items()},
    )

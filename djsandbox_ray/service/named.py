"""The paths that a configuration names: which are shipped with a job, and which cannot be.

Whatever is absolute or a URL must be there for the nodes. Relative paths are relative to the
working folder here, which nodes do not see: small files such as a workflow or an architecture are
shipped, data and models are not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any

from djsandbox_ray.config import RunConfig

Leaf = tuple[tuple[str | int, ...], str]
"""A text of the configuration, with its place."""

_NO_PATHS = frozenset({"name", "type", "storage", "experiment", "uri", "score", "metric"})
_PATHS = frozenset({"files", "requirements"})
"""Keys whose values are paths even where they look like words."""
_MODELS = "hf_"
"""Keys that begin so name models: a folder, or a name of the Hugging Face hub."""


def named_files(document: dict[str, Any], config: RunConfig) -> tuple[list[str], list[str]]:
    """Return the relative paths to ship, and what is wrong, one line per key.

    Args:
        document: the configuration as it was read.
        config: the same, checked.
    """
    shipped: list[str] = []
    wrong = _storage_problems(config) + _cluster_problems(config)
    for place, text in _leaves(document, ()):
        if not _is_relative(place, text):
            continue
        where = _text(place)
        if not Path(text).exists() and _key(place) != "path":
            continue  # a word with a dot or a slash; if it is a path, reading it is an error
        if _is_data(place):
            wrong.append(
                f"{where}: {text!r} is relative, and the nodes do not see this folder; give a URL "
                "or an absolute path that all nodes see"
            )
        elif os.path.normpath(text).startswith(".."):
            wrong.append(f"{where}: {text!r} lies outside the working folder")
        else:
            shipped.append(os.path.normpath(text))
    return sorted(set(shipped)), wrong


def _storage_problems(config: RunConfig) -> list[str]:
    if "://" in config.storage or "::" in config.storage or PurePath(config.storage).is_absolute():
        return []
    return [
        f"storage: {config.storage!r} is relative: every node would have its own; give a URL "
        "(s3://bucket/prefix) or an absolute path that all nodes share, here or with --storage"
    ]


def _cluster_problems(config: RunConfig) -> list[str]:
    found = []
    if config.cluster.cpus is not None:
        found.append("cluster.cpus: is for a new local cluster; a job uses the one it is given to")
    if config.cluster.address not in (None, "auto"):
        found.append("cluster.address: a job uses the cluster it is given to; leave the key out")
    return found


def _leaves(value: Any, place: tuple[str | int, ...]) -> Iterator[Leaf]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, (*place, str(key)))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _leaves(inner, (*place, index))
    elif isinstance(value, str):
        yield place, value


def _key(place: tuple[str | int, ...]) -> str:
    return next((key for key in reversed(place) if isinstance(key, str)), "")


def _is_relative(place: tuple[str | int, ...], text: str) -> bool:
    key = _key(place)
    if key in _NO_PATHS or "://" in text or "${" in text or not 0 < len(text) < 4096:
        return False
    if PurePath(text).is_absolute():
        return False
    always = key == "path" or key in _PATHS or key.startswith(_MODELS)
    return always or "/" in text or bool(PurePath(text).suffix)


def _is_data(place: tuple[str | int, ...]) -> bool:
    return place[0] == "operators" or _key(place) == "path"


def _text(place: tuple[str | int, ...]) -> str:
    parts = (f"[{key}]" if isinstance(key, int) else f".{key}" for key in place)
    return "".join(parts).removeprefix(".")

"""The configurations that are shipped: in a wheel they lie in the package, in a checkout beside it.

They come with the schema that editors check configurations by.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from djsandbox_ray.errors import BadInput, unknown

SCHEMA = "schema.json"
SCHEMA_LINE = "# yaml-language-server: $schema="
"""What editors look for in the first line; a path in it is relative to the file."""
_NAME = "configs"


def folder() -> Path:
    """Return the folder of the shipped configurations.

    Raises:
        BadInput: the package was installed without them.
    """
    package = Path(str(resources.files("djsandbox_ray")))
    for place in (package / _NAME, package.parent / _NAME):
        if (place / SCHEMA).is_file():
            return place
    raise BadInput(f"this installation has no shipped configurations: there is no {place}")


def names() -> list[str]:
    """Return the names of the examples, sorted."""
    return sorted(path.stem for path in folder().glob("*.yaml"))


def example(name: str) -> str:
    """Return the path of a shipped configuration.

    Raises:
        BadInput: there is none of that name.
    """
    known = names()
    if name not in known:
        raise unknown("example", name, known)
    return str(folder() / f"{name}.yaml")


def copied_example(name: str) -> str:
    """Return the text of an example that may lie anywhere: its schema is named by its whole path.

    Raises:
        BadInput: there is none of that name.
    """
    first, rest = Path(example(name)).read_text(encoding="utf-8").split("\n", 1)
    return f"{schema_line() if first.startswith(SCHEMA_LINE) else first}\n{rest}"


def schema_line() -> str:
    """Return the comment by which editors find the schema of this installation."""
    return f"{SCHEMA_LINE}{(folder() / SCHEMA).as_uri()}"

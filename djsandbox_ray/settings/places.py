"""Where in a file a value stands: messages begin with file, line and column, as compilers' do.

What is wrong with a document is told by YAML paths (``trials.model.arch: ...``), whoever finds it.
Only when it is told, the file is looked at again: no reader has to carry lines along.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

import yaml

from djsandbox_ray.settings.strict_yaml import LOADER

_STEP = r"(?:\.[^\s.:\[\]]+|\[\d+\])"
_PATH = rf"[A-Za-z_][\w-]*{_STEP}*"
_LINE = re.compile(
    rf"(?P<indent>\s*)(?:job '[^']*', )?(?P<own>configuration )?(?P<path>{_PATH})"
    r"(?P<too> of the configuration)?(?=: )"
)
"""A line of a message that begins with the place of what it is about; below the name of a workflow
it is a place in that, unless it says that it is one of the configuration."""
_WORKFLOW = re.compile(r"workflow (?P<file>\S+\.ya?ml|of the configuration):$")
_KEYS = re.compile(r"\[(\d+)\]|([^.\[\]]+)")

Path = tuple[int | str, ...]


@dataclass(frozen=True)
class Position:
    """Of a value in a file; both count from 1."""

    line: int
    column: int


class Places:
    """The places of the values of a YAML document.

    Args:
        text: the document, which is valid YAML.
    """

    def __init__(self, text: str) -> None:
        self._root = yaml.compose(text, Loader=LOADER)

    def of(self, path: Path) -> Position | None:
        """Return where a value stands: its key, or the value itself in a list.

        Of a key that is missing, it is where the mapping stands that lacks it.

        Args:
            path: the keys and indices that lead to it.

        Returns:
            None where the document has no such place.
        """
        node, mark = self._root, self._root.start_mark if self._root else None
        for number, key in enumerate(path):
            found = _step(node, key)
            if found is None and (isinstance(key, int) or number < len(path) - 1):
                return None
            if found is None:
                break
            mark, node = found
        return None if mark is None else Position(mark.line + 1, mark.column + 1)


def _step(node: yaml.Node | None, key: int | str) -> tuple[yaml.Mark, yaml.Node] | None:
    """Return where a key of a mapping, or an item of a list, stands, and its value."""
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int):
        return (node.value[key].start_mark, node.value[key]) if key < len(node.value) else None
    if not isinstance(node, yaml.MappingNode) or isinstance(key, int):
        return None
    merged: list[yaml.Node] = []
    for name, value in node.value:
        if name.value == key:
            return name.start_mark, value
        if name.value == "<<":
            merged += value.value if isinstance(value, yaml.SequenceNode) else [value]
    return next((found for one in merged if (found := _step(one, key)) is not None), None)


def parsed(path: str) -> Path:
    """Return the keys and indices of a path such as ``evaluation.metrics[0].label``."""
    return tuple(int(index) if index else key for index, key in _KEYS.findall(path))


def located(
    message: str,
    name: str,
    read: Callable[[str], str],
    *,
    sections: Collection[str],
    elsewhere: Collection[Path] = (),
) -> str:
    """Put file, line and column in front of every line of a message that begins with a path.

    Args:
        message: about the document, and about workflows that it names.
        name: the file of the document.
        read: returns the text of a file.
        sections: the keys that the document may have.
        elsewhere: paths of values that do not come from the file.
    """
    files: dict[str, Places | None] = {}

    def place(file: str, path: Path) -> str:
        if file not in files:
            files[file] = _places(read, file)
        places = files[file]
        found = places.of(path) if places else None
        return f"{file}:{found.line}:{found.column}: " if found else ""

    lines = []
    workflow: str | None = None
    before: Path = ()
    for line in message.split("\n"):
        if (begun := _WORKFLOW.fullmatch(line)) is not None:
            named = begun["file"].endswith((".yaml", ".yml"))
            workflow, before = (begun["file"], ()) if named else (name, ("workflow",))
        elif not line.startswith(" "):
            workflow = None
        where, at = "", _LINE.match(line)
        if at is not None:
            path = parsed(at["path"])
            if workflow and not (at["own"] or at["too"]):
                where = place(workflow, (*before, *path))
            elif path[0] in sections and not any(path[: len(one)] == one for one in elsewhere):
                where = place(name, path)
        indent = len(at["indent"]) if where and at else 0
        lines.append(line[:indent] + where + line[indent:])
    return "\n".join(lines)


def _places(read: Callable[[str], str], file: str) -> Places | None:
    """Return the places of a file; None where it cannot be read, which others say."""
    try:
        return Places(read(file))
    except (OSError, ValueError, yaml.YAMLError):
        return None

"""YAML as a configuration needs it: no key twice, and no more than a configuration can be.

A document is looked through once before anything is built of it, so that one which would take all
memory, or minutes, ends in a message at once. It is then built by libyaml, which is ten times as
fast as Python.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

MOST_BYTES = 1 << 20
"""Of a document: the 21,000 class names of ImageNet have 0.4 MB."""
MOST_VALUES = 50_000
"""Values of a document, with all aliases written out."""
DEEPEST = 50
"""Levels of lists and mappings; the deepest configuration has 8."""
MOST_NUMBER = 2**63 - 1
"""Of whole numbers: what fits into 64 bits, and Data-Juicer's word for no bound."""
_LONGEST_NUMBER = 40
"""Characters: to read a number takes the square of them."""
_OF_OLD = re.compile(r"[-+]?(0[0-9_]+|.*:.*)")
"""Numbers that only YAML 1.1 knows: octal for a zero in front, base 60 for colons."""
_MERGE = "tag:yaml.org,2002:merge"
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\x80-\x84\x86-\x9f\ud800-\udfff]")

_UNFIT = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)
"""What PyYAML makes of 2024-13-01, of ``!!bool maybe`` and of other tags that do not fit."""

LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's, where PyYAML was built with it."""


class NotStrict(ValueError):
    """What a document may not be, with its line where that is known."""


def load(text: str) -> Any:
    """Read a YAML document.

    Raises:
        NotStrict: it is not YAML, has a key twice, a number that is none, a control character, or
            is larger than a configuration can be.
    """
    size = len(text) if len(text) > MOST_BYTES else len(text.encode("utf-8", "surrogatepass"))
    if size > MOST_BYTES:
        raise NotStrict(f"it has {size:,} bytes, {MOST_BYTES:,} at most")
    try:
        _look_through(text)
        return yaml.load(text, Loader=_StrictLoader)
    except NotStrict:
        raise
    except yaml.YAMLError as error:
        raise NotStrict(str(error)) from error
    except _UNFIT as error:  # such as half a character
        raise NotStrict(f"a text that is no YAML: {error}") from error


def _at(mark: Any) -> str:
    """Return a place in words; that of PyYAML's marks, of C or of Python."""
    return f"line {mark.line + 1}, column {mark.column + 1}" if mark else "line 1"


def _look_through(text: str) -> None:
    """Refuse what is too much, event by event."""
    sizes: dict[str, int] = {}  # of what has an anchor, with all aliases in it
    around: list[tuple[str | None, int]] = []  # anchors of what is open, and the size before it
    size = 0
    for event in yaml.parse(text, Loader=LOADER):
        at = _at(event.start_mark)
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in around):
                raise NotStrict(f"the alias *{event.anchor} in {at} stands inside itself")
            size += sizes.get(event.anchor or "", 1)
        elif isinstance(event, yaml.ScalarEvent):
            size += 1
            if event.anchor:
                sizes[event.anchor] = 1
            if control := _CONTROL.search(event.value):
                raise NotStrict(f"a control character, {control[0]!r}, near {at}")
        elif isinstance(event, yaml.CollectionStartEvent):
            size += 1
            around.append((event.anchor, size))
            if len(around) > DEEPEST:
                raise NotStrict(f"nested too deeply: more than {DEEPEST} levels in {at}")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = around.pop()
            if anchor:
                sizes[anchor] = size - before + 1
        if size > MOST_VALUES:
            raise NotStrict(
                f"more than {MOST_VALUES:,} values up to {at}, those counted that aliases stand for"
            )


class _StrictLoader(LOADER):  # type: ignore[misc]  # one of two classes
    """Safe YAML in which a key that stands twice is an error, and numbers are numbers."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (NotStrict, yaml.YAMLError):
            raise
        except _UNFIT as error:
            at = _at(node.start_mark)
            raise NotStrict(f"a value that does not fit its tag in {at}: {error}") from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        # Keys that are merged in (<<) may be overridden; those that are written may not.
        written = [key for key, _ in node.value if key.tag != _MERGE]
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        seen = set()
        for key_node in written:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                at = _at(key_node.start_mark)
                raise NotStrict(f"the key {key!r:.80} stands twice, again in {at}")
            seen.add(key)
        return mapping

    def whole_number(self, node: yaml.ScalarNode) -> int:
        at = _at(node.start_mark)
        if len(node.value) > _LONGEST_NUMBER:
            raise NotStrict(f"a number of {len(node.value):,} characters in {at}")
        value = int(self.construct_yaml_int(node))
        self._refuse_old(node, value)
        if abs(value) > MOST_NUMBER:
            raise NotStrict(f"the number {value} in {at}: no more than {MOST_NUMBER} is possible")
        return value

    def number(self, node: yaml.ScalarNode) -> float:
        if len(node.value) > _LONGEST_NUMBER:
            at = _at(node.start_mark)
            raise NotStrict(f"a number of {len(node.value):,} characters in {at}")
        value = float(self.construct_yaml_float(node))
        self._refuse_old(node, value)
        return value

    def _refuse_old(self, node: yaml.ScalarNode, value: float) -> None:
        if _OF_OLD.fullmatch(node.value):
            raise NotStrict(
                f"{node.value} in {_at(node.start_mark)} is the number {value} to YAML 1.1, and a "
                "text to others: write the number, or the text in quotes"
            )


_StrictLoader.add_constructor("tag:yaml.org,2002:int", _StrictLoader.whole_number)
_StrictLoader.add_constructor("tag:yaml.org,2002:float", _StrictLoader.number)

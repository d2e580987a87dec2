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
_MERGE = "tag:yaml.org,2002:merge"
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\x80-\x84\x86-\x9f\ud800-\udfff]")

_Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


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
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        # What PyYAML makes of 2024-13-01, of `!!bool maybe` and of other tags that do not fit.
        raise NotStrict(f"a value that does not fit its tag: {error}") from error


def _look_through(text: str) -> None:
    """Refuse what is too much, event by event."""
    sizes: dict[str, int] = {}  # of what has an anchor, with all aliases in it
    around: list[tuple[str | None, int]] = []  # anchors of what is open, and the size before it
    size = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = 1 + (event.start_mark.line if event.start_mark else 0)
        if isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in around):
                raise NotStrict(f"the alias *{event.anchor} in line {line} stands inside itself")
            size += sizes.get(event.anchor or "", 1)
        elif isinstance(event, yaml.ScalarEvent):
            size += 1
            if event.anchor:
                sizes[event.anchor] = 1
            if control := _CONTROL.search(event.value):
                raise NotStrict(f"a control character, {control[0]!r}, near line {line}")
        elif isinstance(event, yaml.CollectionStartEvent):
            size += 1
            around.append((event.anchor, size))
            if len(around) > DEEPEST:
                raise NotStrict(f"nested too deeply: more than {DEEPEST} levels in line {line}")
        elif isinstance(event, yaml.CollectionEndEvent):
            anchor, before = around.pop()
            if anchor:
                sizes[anchor] = size - before + 1
        if size > MOST_VALUES:
            raise NotStrict(
                f"more than {MOST_VALUES:,} values up to line {line}, those counted that aliases "
                "stand for"
            )


class _StrictLoader(_Loader):  # type: ignore[misc]  # one of two classes
    """Safe YAML in which a key that stands twice is an error, and numbers are numbers."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        # Keys that are merged in (<<) may be overridden; those that are written may not.
        written = [key for key, _ in node.value if key.tag != _MERGE]
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        seen = set()
        for key_node in written:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise NotStrict(f"the key {key!r:.80} stands twice, again in line {line}")
            seen.add(key)
        return mapping

    def whole_number(self, node: yaml.ScalarNode) -> int:
        line = node.start_mark.line + 1
        if len(node.value) > _LONGEST_NUMBER:
            raise NotStrict(f"a number of {len(node.value):,} characters in line {line}")
        value = int(self.construct_yaml_int(node))
        if abs(value) > MOST_NUMBER:
            raise NotStrict(
                f"the number {value} in line {line}: no more than {MOST_NUMBER} is possible"
            )
        return value

    def number(self, node: yaml.ScalarNode) -> float:
        if len(node.value) > _LONGEST_NUMBER:
            line = node.start_mark.line + 1
            raise NotStrict(f"a number of {len(node.value):,} characters in line {line}")
        return float(self.construct_yaml_float(node))


_StrictLoader.add_constructor("tag:yaml.org,2002:int", _StrictLoader.whole_number)
_StrictLoader.add_constructor("tag:yaml.org,2002:float", _StrictLoader.number)

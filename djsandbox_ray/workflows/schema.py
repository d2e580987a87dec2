"""The configuration as a JSON schema for editors, and as a page for people, from its classes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from functools import reduce
from typing import Any, get_args

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from djsandbox_ray.config import RunConfig
from djsandbox_ray.settings.described import kind_of, meaning, reader_in, sections_in
from djsandbox_ray.settings.registry import Registry
from djsandbox_ray.settings.sections import COMPONENT, Component
from djsandbox_ray.stats import inspection
from djsandbox_ray.stats.datajuicer import load
from djsandbox_ray.stats.operators import unusable
from djsandbox_ray.workflows.language.workflow import built_in_workflows

_HEAD = """\
# Configuration

Every key of a configuration: what it may be, what it is if it is left out, what it is for. Keys
that are none of these are errors. `djsandbox schema --markdown` writes this page from the classes
that read the keys; `djsandbox schema` writes the same for editors. Where a `type` is named, a class
of your own may stand as `package.module:Class`, and its own `Config` says which keys it has
(`docs/extending.md`).
"""
_NEEDED = "needed"


def configuration_schema() -> dict[str, Any]:
    """Return the JSON schema of a configuration, with the built-in components and operators.

    It says what an editor can check and complete; what contradicts what, and whether data, models
    and packages are there, only ``djsandbox plan`` says.
    """
    made = RunConfig.model_json_schema(by_alias=True, mode="validation")
    made["properties"]["operators"]["items"] = _operators_schema()
    named = {"enum": built_in_workflows(), "description": "A workflow that is shipped."}
    made["properties"]["workflow"]["anyOf"].insert(0, named)
    defined: dict[str, Any] = {}
    whole = {key: _hoisted(value, defined) for key, value in made.items() if key != "$defs"}
    defined |= {name: _inside(value, defined) for name, value in made["$defs"].items()}
    kept = dict(sorted(defined.items()))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **whole, "$defs": kept}


def _hoisted(node: Any, defined: dict[str, Any]) -> Any:
    """Name sections and components, which stand in many places, in the definitions, once.

    Args:
        node: a part of the schema.
        defined: the definitions; what is met is added.
    """
    if isinstance(node, list):
        return [_hoisted(item, defined) for item in node]
    if not isinstance(node, dict):
        return node
    if (kind := node.get(COMPONENT)) is not None:
        name = str(kind).replace(" ", "_")
        if name not in defined:
            defined[name] = {}  # a section below may have such a component itself
            defined[name] = {"anyOf": _hoisted(node["anyOf"], defined)}
        rest = {key: value for key, value in node.items() if key not in (COMPONENT, "anyOf")}
        return {**rest, "$ref": f"#/$defs/{name}"}
    if "properties" in node and (title := node.get("title")) is not None:
        if title not in defined:
            defined[title] = {}
            defined[title] = _inside(node, defined)
        return {"$ref": f"#/$defs/{title}"}
    return _inside(node, defined)


def _inside(node: dict[str, Any], defined: dict[str, Any]) -> dict[str, Any]:
    """Return a part of the schema with what is in it hoisted; titles that repeat keys left out."""
    return {
        key: _hoisted(value, defined)
        for key, value in node.items()
        if key != "title" or "properties" in node
    }


def _operators_schema() -> dict[str, Any]:
    """Return what an item of the list of operators may be: filters of another version, too."""
    names = [name for name in sorted(load().filters) if unusable(name) is None]
    parameters = {
        name: {
            "type": ["object", "null"],
            "properties": {
                parameter: {} for parameter in inspection.parameters(load().filters[name])
            },
        }
        for name in names
    }
    one = {"type": "object", "properties": parameters, "minProperties": 1, "maxProperties": 1}
    return {"anyOf": [{"enum": names}, {"type": "string"}, one]}


def configuration_page() -> str:
    """Return a page about every key, in Markdown."""
    return "\n".join([_HEAD, *_Page().lines()]) + "\n"


class _Page:
    """The chapters of the page: a section is described once, where it is met first."""

    def __init__(self) -> None:
        self._chapters: dict[Any, str] = {}
        """Titles by section or registry."""

    def lines(self) -> Iterator[str]:
        yield from self._section(RunConfig, "", 2)

    def _section(self, model: type[BaseModel], path: str, level: int) -> Iterator[str]:
        """Yield the table of a section, and the chapters of those in it."""
        fields = _fields(model)
        inner = list(self._chapters_in(fields, path))
        yield from self._table(fields)
        for title, chapter in inner:
            yield from self._chapter(title, chapter, level)

    def _chapters_in(
        self, fields: Mapping[str, FieldInfo], path: str, of: str = ""
    ) -> Iterator[tuple[str, type[BaseModel] | Registry[Any]]]:
        """Yield what is not described yet, with titles by which it is found from now on."""
        for key, field in fields.items():
            chapters = _chapters_of(field)
            for chapter in chapters:
                if chapter not in self._chapters:
                    which = f" ({_type_of(chapter)})" if len(chapters) > 1 else ""
                    title = f"{path}.{key}{of}{which}".removeprefix(".")
                    self._chapters[chapter] = title
                    yield title, chapter

    def _chapter(
        self, title: str, chapter: type[BaseModel] | Registry[Any], level: int
    ) -> Iterator[str]:
        yield f"{'#' * min(level, 6)} {title}\n"
        if isinstance(chapter, Registry):
            yield from self._components(chapter, title, level)
            return
        if doc := _first_paragraph(chapter):
            yield f"{doc}\n"
        yield from self._section(chapter, title, level + 1)

    def _components(self, registry: Registry[Any], path: str, level: int) -> Iterator[str]:
        """Yield the keys that all classes of a registry have, then those of each."""
        configs = {name: getattr(registry.get(name), "Config") for name in registry}  # noqa: B009
        common = reduce(_common, map(_fields, configs.values()))
        shared = {key: field for key, field in common.items() if key != "type"}
        yield f"`type` is {_listed(configs)}; or `package.module:Class`.\n"
        if shared:
            inner = list(self._chapters_in(shared, path))
            yield "Of all of them:\n"
            yield from self._table(shared)
            for title, chapter in inner:
                yield from self._chapter(title, chapter, level + 1)
        for name, config in configs.items():
            own = {
                key: field
                for key, field in _fields(config).items()
                if key not in common and key != "type"
            }
            yield f"{'#' * min(level + 1, 6)} {path}: {name}\n"
            yield f"{_first_paragraph(registry.get(name)) or _first_paragraph(config)}\n"
            inner = list(self._chapters_in(own, path, f" ({name})"))
            if own:
                yield from self._table(own)
            for title, chapter in inner:
                yield from self._chapter(title, chapter, level + 2)

    def _table(self, fields: Mapping[str, FieldInfo]) -> Iterator[str]:
        yield "| key | what it may be | if left out | |"
        yield "|---|---|---|---|"
        for key, field in fields.items():
            cells = (f"`{key}`", self._kind(field), _default(field), meaning(field))
            yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
        yield ""

    def _kind(self, field: FieldInfo) -> str:
        """Return what a field may be, with links to the chapters about it."""
        kind = kind_of(field)
        if reader := reader_in(field.annotation, field.metadata):
            said = f"mapping with a key type, {reader.allowed}"
            kind = kind.replace(said, "mapping with a `type`")
        titles = [self._chapters[chapter] for chapter in _chapters_of(field)]
        links = ", ".join(f"[{title}](#{_anchor(title)})" for title in titles)
        return f"{kind}: {links}" if links else kind


def _chapters_of(field: FieldInfo) -> Sequence[type[BaseModel] | Registry[Any]]:
    """Return what a field is a section or a component of."""
    reader = reader_in(field.annotation, field.metadata)
    return [reader.registry] if reader else sections_in(field.annotation)


def _type_of(chapter: type[BaseModel] | Registry[Any]) -> str:
    """Return the ``type`` by which one of several sections is told from the others."""
    known = getattr(chapter, "model_fields", {}).get("type")
    return str(get_args(known.annotation)[0]) if known else getattr(chapter, "__name__", "")


def _anchor(title: str) -> str:
    signs = title.lower().replace(" ", "-")
    return "".join(sign for sign in signs if sign.isalnum() or sign in "_-")


def _fields(model: type[BaseModel]) -> dict[str, FieldInfo]:
    """Return the fields of a section by their keys; what a subclass changes keeps its meaning."""
    found = {}
    for name, field in model.model_fields.items():
        known = (getattr(base, "model_fields", {}).get(name) for base in model.__mro__)
        said = (one.description for one in known if one is not None and one.description)
        found[field.alias or name] = shown = copy(field)
        shown.description = next(said, None)
    return found


def _common(one: Mapping[str, FieldInfo], other: Mapping[str, FieldInfo]) -> dict[str, FieldInfo]:
    """Return the fields that two sections have in common."""
    return {
        key: field
        for key, field in one.items()
        if key in other
        and (field.description, field.default) == (other[key].description, other[key].default)
    }


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return _NEEDED
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined or isinstance(value, BaseModel):
        if isinstance(value, Component):
            return f"`type: {value.type}`"
        return "as below"
    plain = json.loads(json.dumps(value, default=str))
    text = yaml.safe_dump(plain, default_flow_style=True, width=10**6).removesuffix("...\n")
    return f"`{text.strip()}`"


def _first_paragraph(kind: type) -> str:
    text = " ".join((vars(kind).get("__doc__") or "").split("\n\n")[0].split())
    return text.replace("``", "`")


def _listed(names: Mapping[str, Any]) -> str:
    return " or ".join(f"`{name}`" for name in names)

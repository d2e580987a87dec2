"""What every section of a YAML configuration is built from: models that forbid the unknown.

``Section`` is the base of all of them. ``component(REGISTRY)`` makes the type of a field such as
``dataset: {type: shapes, ...}``, whose ``type`` names a registered class (or
``package.module:Class``) and whose other keys are read by that class's own ``Config``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError, core_schema

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.settings.registry import Registry

MOST_NAME = 100
"""Characters of a name that becomes a part of names of files, and of metrics in MLflow."""
MOST_SECONDS = 1e9
"""Thirty years: clocks that wait overflow behind it."""
MOST_PROCESSES = 100_000
"""Of one kind; also more CPUs than a cluster has."""
NESTED = "component"
"""The type of the error that carries the errors of an inner model."""
COMPONENT = "x-component"
"""In a JSON schema, the key that names the registry that a component is of."""
NAME = "component_name"
"""The type of the error about the key ``type``."""


class Section(BaseModel):
    """A part of the configuration: unknown keys are errors and values never change."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _no_truth(cls, data: Any) -> Any:
        """Refuse ``yes`` and ``true`` for a number, where Python would take them for 1."""
        if not isinstance(data, dict):
            return data
        return {
            name: _TRUTHS[value] if isinstance(value, bool) and cls._is_number(name) else value
            for name, value in data.items()
        }

    @classmethod
    def _is_number(cls, name: Any) -> bool:
        field = cls.model_fields.get(name)
        kinds = set(_leaves(field.annotation)) if field else set()
        return bool(kinds & {int, float}) and not kinds & {bool, Any}


class _Truth:
    """What stands for ``true`` or ``false`` where a number is needed: the field refuses it."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


_TRUTHS = {True: _Truth("true"), False: _Truth("false")}


def _leaves(annotation: Any) -> Iterator[Any]:
    """Yield the types that a value itself may have; not those of the items of a list."""
    if get_origin(annotation) is Annotated:
        yield from _leaves(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for part in get_args(annotation):
            yield from _leaves(part)
    else:
        yield annotation


class Component(Section):
    """The configuration of a registered class; ``type`` names the class."""

    type: str
    """A registered name, or ``package.module:Class``."""


C = TypeVar("C", bound=Any)


@dataclass(frozen=True)
class ComponentReader:
    """Reads ``{type: name, ...}`` with the named class's ``Config``, where it annotates a field.

    The errors of the inner model are carried in one error of type ``component``, so that
    :mod:`djsandbox_ray.config` can report each with its own YAML path.
    """

    registry: Registry[Any]

    @property
    def allowed(self) -> str:
        """What may stand there, in words."""
        return f"one of: {', '.join(self.registry)}; or package.module:Class"

    def configs(self) -> dict[str, type[Component]]:
        """Return the ``Config`` of every built-in class by its name; imports all of them."""
        return {name: _config_of(self.registry, name) for name in self.registry}

    def read(self, value: Any) -> Component:
        """Read what YAML gave."""
        if isinstance(value, Component):
            return value
        known = {"known": ", ".join(self.registry)}
        if not isinstance(value, dict):
            raise PydanticCustomError(
                "component_type",
                "a mapping with a key 'type' is needed, one of: {known}; or package.module:Class",
                known,
            )
        if not isinstance(value.get("type"), str):
            raise PydanticCustomError(
                NAME, "a name is needed, one of: {known}; or package.module:Class", known
            )
        try:
            config = _config_of(self.registry, value["type"])
        except BadInput as error:
            raise PydanticCustomError(NAME, "{why}", {"why": str(error)}) from None
        try:
            return config.model_validate(value)
        except ValidationError as error:
            raise PydanticCustomError(
                NESTED, "not valid", {"errors": error.errors(), "model": config}
            ) from None
        except SandboxError:
            raise
        except Exception as error:  # a validator of a user may raise anything
            raise PydanticCustomError(
                "component_raised", "{why}", {"why": f"{type(error).__name__}: {error}"}
            ) from error

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(self.read, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        options: list[dict[str, Any]] = [
            {
                "allOf": [handler(config.__pydantic_core_schema__)],
                "properties": {"type": {"const": name}},
                "required": ["type"],
            }
            for name, config in self.configs().items()
        ]
        own = {"type": {"type": "string", "pattern": ":", "description": "package.module:Class"}}
        options.append({"type": "object", "properties": own, "required": ["type"]})
        return {COMPONENT: self.registry.kind, "anyOf": options}


def component(registry: Registry[C]) -> ComponentReader:
    """Return what reads ``{type: name, ...}`` with the named class's ``Config``."""
    return ComponentReader(registry)


def _config_of(registry: Registry[C], name: str) -> type[Component]:
    config = getattr(registry.get(name), "Config", None)
    if not (isinstance(config, type) and issubclass(config, Component)):
        raise BadInput(f"{registry.kind} {name!r} has a Config that is no Component, but {config}")
    return config

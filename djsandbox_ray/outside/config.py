"""What a configuration says of a program: command, environment, code, variables, limits.

Placeholders stand in its arguments and variables: ``{pool}`` becomes a path, ``{seed}`` a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from packaging.requirements import InvalidRequirement, Requirement
from packaging.version import InvalidVersion, Version
from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PrivateAttr,
    field_validator,
    model_validator,
)

from djsandbox_ray.errors import unknown
from djsandbox_ray.masking import names_secret
from djsandbox_ray.settings.sections import MOST_SECONDS, Component, Section

OURS = frozenset({"CUDA_VISIBLE_DEVICES", "TMPDIR", "VIRTUAL_ENV"})
"""Environment variables that this package sets itself."""
_KEY = re.compile(r"(^|_)KEY$", re.IGNORECASE)
"""Any key, as a variable of the node serves as well; masking must know better which are secret."""
_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_HASHES = re.compile(r"(\s+--hash=\S+)+\s*$")


def requirement_lines(text: str) -> list[str]:
    """Return the requirements of a requirements file, with their hashes, without comments.

    Raises:
        ValueError: a line is no requirement: options, other files and local paths mean nothing on
            another machine.
    """
    joined = re.sub(r"\\\n", " ", text)
    lines = [re.sub(r"(^|\s)#.*", "", line).strip() for line in joined.splitlines()]
    return [_requirement(line) for line in lines if line]


def _requirement(line: str) -> str:
    if line.startswith("-"):
        raise ValueError(
            f"{line!r} is an option; only requirements may stand here (a package index is named by "
            "the environment of the nodes: UV_INDEX_URL, UV_EXTRA_INDEX_URL, UV_FIND_LINKS)"
        )
    try:
        parsed = Requirement(_HASHES.sub("", line))
    except InvalidRequirement as error:
        raise ValueError(
            f"{line!r} is no requirement such as numpy==1.26.4: {str(error).splitlines()[0]}"
        ) from None
    if (parsed.url or "").startswith("file:"):
        raise ValueError(f"{line!r}: a path of this machine is not there on others; use 'files'")
    return line


def _python(version: str) -> str:
    try:
        parsed = Version(version)
    except InvalidVersion:
        raise ValueError(f"{version!r} is no version of Python such as '3.11'") from None
    if str(parsed) != version or not 2 <= len(parsed.release) <= 3:
        raise ValueError(f"{version!r}: a version such as '3.11' or '3.11.7' is needed")
    return version


def _there(path: str) -> str:
    if not Path(path).exists():
        raise ValueError(f"{path!r} does not exist")
    return path


class EnvironmentConfig(Section):
    """A virtual environment of the program's own, made by uv once per node."""

    python: Annotated[str, AfterValidator(_python)] = "3.11"
    """The version of Python; uv finds it on the node, or brings it where downloads are allowed."""
    packages: tuple[Annotated[str, AfterValidator(_requirement)], ...] = ()
    """What to install: ``numpy==1.26.4``. Pin versions: the environment is kept under these words,
    and made anew by whichever node needs it."""
    requirements: str | None = None
    """A requirements file, in place of ``packages``."""

    @field_validator("requirements")
    @classmethod
    def _readable(cls, path: str | None) -> str | None:
        if path is not None:
            try:
                requirement_lines(Path(_there(path)).read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError) as error:
                raise ValueError(f"{path}: cannot be read: {error}") from None
        return path

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.packages and self.requirements is not None:
            raise ValueError("either 'packages' or 'requirements' can be given")
        return self


def _words(value: Any) -> Any:
    if isinstance(value, str):
        raise ValueError(
            "a list of words is needed, since no shell reads the command: "
            '[python, train.py, --data, "{pool}"]'
        )
    if isinstance(value, list):
        return [
            str(item) if isinstance(item, int | float) and not isinstance(item, bool) else item
            for item in value
        ]
    return value


Word = Annotated[str, Field(min_length=1, pattern=r"^[^\x00]*$")]
Words = Annotated[
    list[Word], BeforeValidator(_words, json_schema_input_type=list[str | int | float])
]
"""A program and its arguments."""
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class ProgramConfig(Component):
    """A program of others; subclasses say which placeholders there are."""

    PLACEHOLDERS: ClassVar[tuple[str, ...]] = ()
    NEEDED: ClassVar[tuple[str, ...]] = ()
    """Those without which the program could not do its work."""

    command: Words = Field(min_length=1)
    """The program and its arguments, one word each; no shell reads them."""
    environment: EnvironmentConfig | None = None
    """What is installed for it; without it, and without an ``image``, Python alone."""
    image: str | None = Field(default=None, pattern=r"^[A-Za-z0-9][\w./:@-]*$")
    """A container image in place of ``environment``; nodes need Podman or Docker for it."""
    files: tuple[Annotated[str, AfterValidator(_there)], ...] = ()
    """Code that it needs: files, and folders whose contents lie in its working directory."""
    env: dict[Name, Annotated[str, Field(pattern=r"^[^\x00]*$")]] = Field(default={})
    """Environment variables; placeholders may stand in them."""
    pass_env: tuple[Name, ...] = ()
    """Names of variables of the nodes that it sees too, such as HF_TOKEN."""
    timeout: float = Field(default=86_400, gt=0, le=MOST_SECONDS)
    """Seconds after which one call of it is ended."""

    _files: Any = PrivateAttr(default=None)
    """What its files held when they were first read: a run has one version of them."""

    @field_validator("env")
    @classmethod
    def _plain(cls, env: dict[str, str]) -> dict[str, str]:
        for name in env:
            if name in OURS:
                raise ValueError(f"{name} is set for every program, by what it was given")
            if names_secret(name) or _KEY.search(name):
                raise ValueError(
                    f"{name} sounds like a secret, which a configuration would show: set it on the "
                    "nodes and name it in 'pass_env'"
                )
        return env

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.image is not None and self.environment is not None:
            raise ValueError("an 'image' brings its own packages: give no 'environment' with it")
        used = self.used()
        if lacking := [f"{{{name}}}" for name in self.NEEDED if name not in used]:
            raise ValueError(f"command: lacks {', '.join(lacking)}: the program must be told these")
        if placeholders(self.command[0], self.PLACEHOLDERS):
            raise ValueError("command: the program itself cannot be a placeholder")
        return self

    def used(self) -> set[str]:
        """Return the placeholders that stand somewhere in it."""
        texts = [*self.command, *self.env.values()]
        return {name for text in texts for name in placeholders(text, self.PLACEHOLDERS)}


def placeholders(text: str, known: Iterable[str]) -> set[str]:
    """Return the names in braces; ``{{`` and ``}}`` are braces themselves.

    Raises:
        ValueError: a name is not among the known ones, or a brace stands alone.
    """
    names = set()
    for match in _PART.finditer(text):
        if match[0] in ("{", "}"):
            raise ValueError(f"{text!r}: a brace alone; write {{{{ or }}}} for a brace itself")
        if match[1] is not None:
            _check(match[1], text, sorted(known))
            names.add(match[1])
    return names


def filled(text: str, values: Mapping[str, str]) -> str:
    """Replace every placeholder by its value, once: braces in a value stay as they are."""
    return _PART.sub(lambda m: m[0][0] if m[1] is None else values[m[1]], text)


def _check(name: str, text: str, known: list[str]) -> None:
    if name in known:
        return
    braced = [f"{{{one}}}" for one in known]
    literally = "{{ and }} for braces themselves"
    error = unknown("placeholder", f"{{{name}}}", braced, otherwise=literally)
    raise ValueError(f"{text!r}: {error}")

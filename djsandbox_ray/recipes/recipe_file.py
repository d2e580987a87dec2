"""A recipe as Data-Juicer reads it: its operators, and what of a sample each of them reads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from djsandbox_ray.errors import BadInput
from djsandbox_ray.stats import inspection
from djsandbox_ray.stats.datajuicer import load
from djsandbox_ray.stats.models import is_url, on_this_node
from djsandbox_ray.stats.operators import OperatorSpec, parse_process
from djsandbox_ray.yaml_input import read_mapping


@dataclass(frozen=True)
class RecipeFile:
    """A recipe whose operators are filters of samples that consist of a text and an image."""

    path: Path
    settings: dict[str, Any]
    """All keys of the YAML."""
    process: tuple[OperatorSpec, ...]
    """The operators with all of their parameters, in order."""

    @property
    def operators(self) -> tuple[OperatorSpec, ...]:
        """The operators without thresholds and keys: what determines their statistics.

        Raises:
            BadInput: an operator or a parameter is not known, or two give the same statistics.
        """
        bare = []
        for spec in self.process:
            ignored = inspection.decision_parameters(spec.filter_class)
            ignored |= inspection.runner_parameters()
            params = {name: value for name, value in spec.params.items() if name not in ignored}
            bare.append({spec.name: params})
        return parse_process(bare, where=f"{self.path}: process")

    @property
    def text_columns(self) -> dict[str, bool]:
        """The text columns that the recipe reads, and whether the text holds an image token.

        Raises:
            BadInput: one column is read by an operator that needs the token and by one that would
                take it for text.
        """
        readers: dict[str, dict[bool, str]] = {key: {} for key in self._text_keys}
        for spec in self.process:
            if "text" in inspection.reads(spec.filter_class):
                key = spec.params.get("text_key") or self._text_keys[0]
                with_token = inspection.needs_tokens(spec.filter_class)
                readers.setdefault(key, {})[with_token] = spec.name
        for key, found in readers.items():
            if len(found) > 1:
                raise BadInput(
                    f"{self.path}: {found[True]} looks for {load().image_token} in the column "
                    f"{key!r}, where {found[False]} would count it as text: give one of them a "
                    "column of its own with text_key"
                )
        return {key: True in found for key, found in readers.items()}

    @property
    def image_columns(self) -> tuple[str, ...]:
        """The columns of image paths that the recipe reads."""
        default = self.settings.get("image_key", "images")
        keys = [
            spec.params.get("image_key") or default
            for spec in self.process
            if "image" in inspection.reads(spec.filter_class)
        ]
        return tuple(dict.fromkeys(keys))

    @property
    def _text_keys(self) -> list[str]:
        keys = self.settings.get("text_keys") or "text"
        return [keys] if isinstance(keys, str) else list(keys)


def read_recipe(path: Path) -> RecipeFile:
    """Read a recipe.

    Raises:
        BadInput: it cannot be read, or its ``process`` is not a list of filters with parameters.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"recipe {path}: cannot be read: {error}") from error
    settings = read_mapping(text, str(path))
    process = settings.get("process")
    if not isinstance(process, list) or not process:
        raise BadInput(f"{path}: process: a list of at least one Data-Juicer filter is needed")
    specs = tuple(_operator(item, f"{path}: process[{i}]") for i, item in enumerate(process))
    return RecipeFile(path, settings, specs)


@contextmanager
def runnable(recipe: RecipeFile, folder: Path) -> Iterator[Path]:
    """Give the recipe as Data-Juicer can run it on this node, which knows no URLs of models.

    Args:
        recipe: the recipe; without such URLs it is given as it is.
        folder: an existing folder for the changed one.
    """
    if not any(is_url(*item) for spec in recipe.process for item in spec.params.items()):
        yield recipe.path
        return
    with ExitStack() as held:
        process = [
            {spec.name: held.enter_context(on_this_node(spec.params))} for spec in recipe.process
        ]
        path = folder / recipe.path.name
        path.write_text(yaml.safe_dump({**recipe.settings, "process": process}, sort_keys=False))
        yield path


def _operator(item: Any, where: str) -> OperatorSpec:
    if not isinstance(item, dict) or len(item) != 1:
        raise BadInput(f"{where}: one 'name: {{parameter: value}}' is needed, not {item!r:.80}")
    name, params = next(iter(item.items()))
    if name not in load().filters:
        raise BadInput(f"{where}: {name!r} is not a filter of Data-Juicer {load().version}")
    if params is not None and not isinstance(params, dict):
        raise BadInput(f"{where}.{name}: parameters must be a mapping, not {params!r:.80}")
    return OperatorSpec(name, params or {})

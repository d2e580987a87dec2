"""VBench's prompts: ``VBench_full_info.json``, or prompts of one's own in the same form.

Each is an object with ``prompt_en``, the dimensions that it is for, and, under ``auxiliary_info``,
what some of these look for in the videos.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from djsandbox_ray.errors import BadInput, unknown
from djsandbox_ray.evaluation.data import least
from djsandbox_ray.evaluation.video.board import DIMENSIONS
from djsandbox_ray.evaluation.video.video_files import file_name
from djsandbox_ray.evaluation.video.wanted import WantedVideo

VIDEOS_PER_PROMPT = 5
"""Most that VBench looks at; a sixth one it would leave out without a word."""

_PROMPT, _FOR, _MORE = "prompt_en", "dimension", "auxiliary_info"


@dataclass(frozen=True)
class VideoPrompt:
    """A prompt, and what its videos are looked at for."""

    text: str
    dimensions: tuple[str, ...]
    more: Mapping[str, Any]
    """What dimensions look for, by dimension, as VBench has it."""

    def entry(self) -> dict[str, Any]:
        """Return it as VBench reads it."""
        found: dict[str, Any] = {_PROMPT: self.text, _FOR: list(self.dimensions)}
        return {**found, _MORE: dict(self.more)} if self.more else found


def read_prompts(path: str) -> tuple[VideoPrompt, ...]:
    """Read a file of prompts.

    Raises:
        BadInput: it is none, or an entry lacks what its dimensions look for, or stands there twice;
            says which.
    """
    try:
        document = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"prompts: {path!r} cannot be read: {error}") from None
    if not isinstance(document, list) or not document:
        raise BadInput(f"prompts: {path!r} is to be a list of objects, as VBench_full_info.json")
    found = tuple(_prompt(f"{path}[{index}]", entry) for index, entry in enumerate(document))
    seen: dict[tuple[str, str], int] = {}
    for index, one in enumerate(found):
        for dimension in one.dimensions:
            first = seen.setdefault((one.text, dimension), index)
            if first != index:
                raise BadInput(
                    f"{path}[{index}]: {one.text!r:.60} stands for {dimension} in [{first}], too"
                )
    return found


def chosen_prompts(
    prompts: Sequence[VideoPrompt], dimensions: Sequence[str], limit: int | None = None
) -> tuple[VideoPrompt, ...]:
    """Return the prompts of some dimensions, each with those of its dimensions that it is for.

    Args:
        prompts: all there are.
        dimensions: that are measured.
        limit: so many of each dimension, by their hash; None for all.

    Raises:
        BadInput: a dimension has none.
    """
    taken: dict[str, set[str]] = {}
    for dimension in dimensions:
        texts = [one.text for one in prompts if dimension in one.dimensions]
        if not texts:
            raise BadInput(f"prompts: none is for {dimension}")
        taken[dimension] = set(texts if limit is None else least(texts, limit))
    found = []
    for one in prompts:
        kept = tuple(d for d in dimensions if d in one.dimensions and one.text in taken[d])
        if kept:
            more = {name: one.more[name] for name in kept if name in one.more}
            found.append(VideoPrompt(one.text, kept, more))
    return tuple(found)


def videos_of(
    prompts: Iterable[VideoPrompt], each: int, dimension: str | None = None
) -> list[WantedVideo]:
    """Return the videos of prompts, each once, in order.

    Args:
        prompts: of which several may have the same text, for different dimensions.
        each: videos per prompt.
        dimension: of the prompts of this one only.
    """
    texts = dict.fromkeys(one.text for one in prompts if dimension in (None, *one.dimensions))
    return [WantedVideo(text, number) for text in texts for number in range(each)]


def _prompt(place: str, entry: Any) -> VideoPrompt:
    if not isinstance(entry, dict):
        raise BadInput(f"{place}: an object is needed, not {type(entry).__name__}")
    text, dimensions = entry.get(_PROMPT), entry.get(_FOR)
    more = entry.get(_MORE, {})
    if not isinstance(text, str):
        raise BadInput(f"{place}: no text under {_PROMPT!r}")
    try:
        file_name(text, 0)
    except BadInput as error:
        raise BadInput(f"{place}: {error}") from None
    if not isinstance(dimensions, list) or not dimensions:
        raise BadInput(f"{place}: a list of dimensions is needed under {_FOR!r}")
    if not isinstance(more, dict):
        raise BadInput(f"{place}: an object is needed under {_MORE!r}")
    for name in dimensions:
        if name not in DIMENSIONS:
            raise BadInput(f"{place}: {unknown('dimension', str(name), DIMENSIONS)}")
        rule, needed = _NEEDED.get(name, (None, ""))
        if rule is not None and not rule(more.get(name)):
            raise BadInput(f"{place}: {name} looks for {needed} in {_MORE}.{name}")
    return VideoPrompt(text, tuple(dict.fromkeys(dimensions)), more)


def _has(*keys: str) -> Callable[[Any], bool]:
    def rule(found: Any) -> bool:
        return isinstance(found, dict) and all(
            isinstance(found.get(key), str) and found[key].strip() for key in keys
        )

    return rule


def _two_objects(found: Any) -> bool:
    return _has("object")(found) and len(found["object"].split(" and ")) == 2


def _scene(found: Any) -> bool:
    return isinstance(found, dict) and _has("scene")(found.get("scene"))


def _places(found: Any) -> bool:
    rule = _has("object_a", "object_b", "relationship")
    return isinstance(found, dict) and rule(found.get("spatial_relationship"))


_NEEDED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "appearance_style": (_has("appearance_style"), "'appearance_style'"),
    "color": (_has("color"), "'color'"),
    "multiple_objects": (_two_objects, "'object', two with ' and ' between them,"),
    "object_class": (_has("object"), "'object'"),
    "scene": (_scene, "'scene.scene'"),
    "spatial_relationship": (
        _places,
        "'spatial_relationship' with 'object_a', 'object_b' and 'relationship'",
    ),
}
"""What dimensions look for: a rule, and what it is called."""

"""The YAML that Data-Juicer runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from djsandbox_ray.dataset.media import TAGGED_KEY
from djsandbox_ray.recipes.ranges import fails_preflight, to_process
from djsandbox_ray.records import Range
from djsandbox_ray.stats import inspection
from djsandbox_ray.stats.models import is_url
from djsandbox_ray.stats.operators import REFERENCE, SECOND, OperatorSpec

TEXT_KEY = "text"
"""Field of the plain caption."""
IMAGES_KEY = "images"
"""Field of the list of image paths."""
VIDEOS_KEY = "videos"
"""Field of the list of video paths."""
_PROCESSES = 4
_WIDTH = 98

_ABOUT = """\
Data-Juicer keeps a row whose statistics lie within all thresholds below, bounds included. The
parameters beside the thresholds are those that the statistics were computed with: with others the
thresholds mean something else. 9223372036854775807 is Data-Juicer's own way to write "no bound"."""
_RUN = """\
To run it on all of the data (Data-Juicer {version}):
  dj-process --config {file} --dataset_path DATA.jsonl --export_path KEPT.jsonl
Every line of DATA.jsonl is an object with these fields:"""
_PLAIN = """\
  text: the caption, without special tokens (Data-Juicer's text operators would count them)"""
_TAGGED = """\
  text_with_tokens: the caption as "<__dj__image> CAPTION <|__dj__eoc|>", with one such token for
    every medium (<__dj__video> for a video), for operators that compare it with these"""
_IMAGES = """\
  images: a list with the paths of the images, if there are any"""
_VIDEOS = """\
  videos: a list with the paths of the videos"""
_SECOND = """\
  {field}: a text of the meta data, in a field of this name with the dot; an empty text where there
    is none: such a row Data-Juicer keeps"""
_MODELS = """\
Paths of models are those of the machine that wrote this file; on another one, copy the folder and
change the path. So too for a URL: 'djsandbox recipe --accept' follows it, Data-Juicer does not. The
same model gives the same statistics, another one does not."""


def with_scorer(
    operators: Sequence[str | Mapping[str, Any]], folder: str | None
) -> list[str | dict[str, Any]]:
    """Return a ``process`` list in which ``${scorer}`` is the folder of the scorer's model.

    Args:
        operators: as the configuration has them.
        folder: None without a scorer: then nothing is replaced.
    """
    return [
        item
        if isinstance(item, str)
        else {
            name: {
                key: folder if folder is not None and value == REFERENCE else value
                for key, value in (params or {}).items()
            }
            for name, params in item.items()
        }
        for item in operators
    ]


def recipe_document(
    name: str, operators: Sequence[OperatorSpec], ranges: Sequence[Range]
) -> dict[str, Any]:
    """Return the configuration for Data-Juicer as plain data.

    Args:
        name: of the project.
        operators: those of the run, with their models resolved.
        ranges: at most one per statistic.

    Raises:
        BadInput: as :func:`~djsandbox_ray.recipes.ranges.to_process`.
    """
    process = to_process(operators, ranges)
    named = {name for entry in process for name in entry}
    refused = any(fails_preflight(spec) for spec in operators if spec.name in named)
    classes = {spec.name: spec.filter_class for spec in operators}
    videos = any("video" in inspection.reads(classes[name]) for entry in process for name in entry)
    for entry in process:
        for operator, params in entry.items():
            if inspection.needs_tokens(classes[operator]):
                params["text_key"] = TAGGED_KEY
    return {
        "project_name": name,
        "dataset_path": "./data.jsonl",
        "export_path": f"./{name}/kept.jsonl",
        "np": _PROCESSES,
        "text_keys": TEXT_KEY,
        "image_key": IMAGES_KEY,
        **({"video_key": VIDEOS_KEY} if videos else {}),
        # Else one bad row takes all rows of its batch with it, and nobody is told.
        "skip_op_error": False,
        **({"strict_preflight": False} if refused else {}),
        "process": process,
    }


def recipe_yaml(
    document: Mapping[str, Any], facts: Sequence[str], *, file: str, version: str
) -> str:
    """Return a recipe as commented YAML.

    Args:
        document: from :func:`recipe_document`.
        facts: sentences that say what the recipe is and what it is expected to do.
        file: name of the recipe, for the command that runs it.
        version: of Data-Juicer.
    """
    params = [params for entry in document["process"] for params in entry.values()]
    tagged = any(given.get("text_key") == TAGGED_KEY for given in params)
    videos = [_VIDEOS] if "video_key" in document else []
    seconds = dict.fromkeys(given[SECOND] for given in params if SECOND in given)
    others = [_SECOND.format(field=field) for field in seconds]
    fields = [_PLAIN, *([_TAGGED] if tagged else []), *others, _IMAGES, *videos]
    # A model of the hub is named, not pointed at.
    local = any(
        isinstance(value, str) and (Path(value).is_absolute() or is_url(name, value))
        for given in params
        for name, value in given.items()
    )
    blocks = [
        "\n".join(facts),
        _ABOUT,
        "\n".join([_RUN.format(version=version, file=file), *fields]),
        *([_MODELS] if local else []),
    ]
    comments = "\n#\n".join(
        "\n".join(f"# {line}" for line in block.splitlines()) for block in blocks
    )
    body = yaml.safe_dump(dict(document), sort_keys=False, allow_unicode=True, width=_WIDTH)
    return f"{comments}\n\n{body}"

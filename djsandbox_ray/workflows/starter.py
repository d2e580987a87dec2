"""A first configuration for some data: commented, and such that it runs as it is."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from rich.console import Console
from rich.text import Text

from djsandbox_ray.dataset.folder import LABEL
from djsandbox_ray.dataset.media import Content
from djsandbox_ray.dataset.recognise import Recognised, recognise
from djsandbox_ray.dataset.source import SOURCES
from djsandbox_ray.errors import BadInput
from djsandbox_ray.workflows.examples import copied_example, schema_line

if TYPE_CHECKING:
    from djsandbox_ray.workflows.in_time import Fit, Machine

_FEWEST = 60
"""Rows without which no pools can be made."""
_EVALUATION = 5
"""One in so many of the rows that were looked at is for the evaluation."""
_MOST_K = 5
"""Retrieval looks at so many of the texts: there must be more, or any model finds them all."""

_TEMPLATE = """\
{schema}
# What `djsandbox init` found:
{found}
{about}# What a run would do, and cost:  djsandbox plan {file}
# Run it, or go on with it:       djsandbox run {file}
name: {name}
storage: ./sandbox

dataset: {dataset}

ingest:
  max_rejected: {max_rejected}       # share of the samples that may be unusable
{ingest}
operators:                  # as in a Data-Juicer `process` list; `djsandbox operators` has all
{operators}

{rest}"""

_TRIALS = """\
trials:{fitted}
  model: {{type: clip, arch: {arch}, batch_size: {batch}}}   # or small, or any of open_clip's
  budget: {budget}             # samples seen by every trial
  seeds: 2
  early_stopping: {{type: race, rungs: [0.25, 0.5]}}
{resources}
# The one thing that all verdicts rest on: replace it by data that is clean and like what your
# model is for. These are rows of the data itself; they are kept out of all pools.
evaluation:
  dataset: {evaluation}
  metrics:
    - {metric}

tracking: {{type: mlflow}}
"""
_FITTED = """
  # For {minutes:g} minutes on {machine}, where a worker trains on {speed:,.0f} samples a second:
  # model, budget and rows of the dataset follow from that; at most {takes:.0f} minutes, less what
  # early stopping saves."""
_PROBED = (
    "text_length_filter",
    "words_num_filter",
    "special_characters_filter",
    "image_size_filter",
    "image_aspect_ratio_filter",
)
"""Filters whose pools are trained on, where a model is."""

_UNTRAINED = """\
# Nothing is trained: Data-Juicer's operators are computed, the extreme 5 % of each statistic are
# cut off at either end, and what is left becomes a recipe that Data-Juicer itself must accept.
# {how}
"""
_TRAINED: dict[Content, str] = {
    "videos": "begins with a base model that you choose: docs/text_to_video.md, and --example t2v",
    "conversations": "begins with a base model that you choose: docs/image_to_text.md, and "
    "--example llava",
    "texts": "is one by a program of your own: docs/command.md",
    "any": "is one by a program of your own: docs/command.md",
}
"""What a training on samples is, by content."""
_RECIPE_ONLY = """\
workflow: recipe_only
jobs:
  thresholds:
    method: {type: percentile, low: 5, high: 95}   # what is kept of each statistic, in percent

tracking: {type: none}
"""
_REFERENCE = (
    "  # videos: {store: reference}   # they are not copied, and must stay where they lie\n"
)
_OPERATORS = {
    "text": (
        "text_length_filter",
        "special_characters_filter",
        "words_num_filter",
        "alphanumeric_filter",
        "character_repetition_filter",
    ),
    "image": ("image_aspect_ratio_filter", "image_shape_filter", "image_size_filter"),
    "video": ("video_duration_filter", "video_resolution_filter", "video_aspect_ratio_filter"),
}
"""Filters that need no files of models, by what they look at."""
_MOST_OPERATORS = 5
_SAMPLES: dict[Content, str] = {
    "videos": "videos",
    "texts": "texts alone",
    "conversations": "conversations",
    "any": "documents",
}
"""What samples are called, by content."""


def write_starter(
    path: str, output: str | None, console: Console, minutes: float | None = None
) -> None:
    """Look at data, say what it is and write a configuration for it.

    Args:
        path: a file or folder, local or a URL.
        output: the new file; if left out, it is named after the data and put where one is.
        console: to print on.
        minutes: that a run on this machine may take; None: model and budget are small ones.

    Raises:
        BadInput: the data cannot be recognised, are pairs and too few, or there is such a file; or
            the minutes are too few, or there is nothing to train in them.
    """
    name = _name(path)
    file = _new_file(output or f"{name}.yaml")
    found = recognise(path)
    for line in found.lines:
        console.print(Text(line), soft_wrap=True)
    trains = found.content == "pairs"
    if minutes is not None and not trains:
        raise BadInput(
            f"--minutes is for trainings, and none is written for {_SAMPLES[found.content]}: leave "
            "it out"
        )
    if trains:
        text = _starter(found, name, str(file))
        if minutes is not None:
            text = _fitted(found, name, str(file), text, minutes, console)
    else:
        text = _recipe_only(found, name, str(file))
    _write(file, text)
    if not trains:
        said = f"a run writes a recipe (workflow: recipe_only). {_how_to_train(found.content)}"
        console.print(Text(said), soft_wrap=True)
    _tell_next(file, console)


def write_example(name: str, output: str | None, console: Console) -> None:
    """Write a configuration that is shipped to where it can be changed.

    Args:
        name: of the example.
        output: the new file; if left out, it is named after the example.
        console: to print on.

    Raises:
        BadInput: there is no such example, or there is such a file.
    """
    file = _new_file(output or f"{name}.yaml")
    _write(file, copied_example(name))
    _tell_next(file, console)


def _new_file(name: str) -> Path:
    file = Path(name)
    if file.exists():
        raise BadInput(f"{name!r} exists and is not overwritten: --output names another")
    return file


def _tell_next(file: Path, console: Console) -> None:
    console.print(Text(f"written: {file} (next: djsandbox plan {file})"), soft_wrap=True)


def _write(file: Path, text: str) -> None:
    """Write a new file; of one that cannot be written whole, as on a full disk, nothing is left.

    Raises:
        BadInput: it cannot be, or is there already.
    """
    try:
        handle = file.open("x", encoding="utf-8")
        try:
            with handle:
                handle.write(text)
        except BaseException:
            file.unlink(missing_ok=True)  # the next call would take it for the user's
            raise
    except OSError as error:
        raise BadInput(f"{str(file)!r} cannot be written: {error.strerror}") from error


def _fitted(
    found: Recognised, name: str, file: str, text: str, minutes: float, console: Console
) -> str:
    """Return a configuration whose study this machine has time for.

    Args:
        found: the data.
        name: of the run.
        file: the new file, for the commands in it.
        text: the configuration as it is without a time.
        minutes: that a run may take.
        console: to print on.
    """
    # With all that a run knows, and torch: only where it is asked for.
    from djsandbox_ray.config import checked
    from djsandbox_ray.workflows.in_time import Machine, calibrated, fit

    machine = Machine.here()
    config = checked(yaml.safe_load(text), file)
    console.print(Text(f"timing some steps of training on {machine.text} ..."), soft_wrap=True)
    fitted = fit(config, found.rows, minutes, machine, calibrated(machine))
    console.print(
        Text(
            f"{fitted.arch} trains on {fitted.speed:,.0f} samples a second and worker: a budget of "
            f"{fitted.budget:,} samples, {fitted.minutes:.0f} minutes at most"
        ),
        soft_wrap=True,
    )
    return _starter(found, name, file, (fitted, machine, minutes))


def _starter(
    found: Recognised,
    name: str,
    file: str,
    fitted: tuple[Fit, Machine, float] | None = None,
) -> str:
    """Return a configuration that trains.

    Args:
        found: the data.
        name: of the run.
        file: the new file, for the commands in it.
        fitted: what fits which machine and how many minutes; None: a small study.
    """
    if found.usable < _FEWEST:
        raise BadInput(f"{found.usable} samples are too few to compare pools: {_FEWEST} are needed")
    rows = _varied(found.texts, len(found.texts) // _EVALUATION)
    texts = set(found.texts[rows.start : rows.stop]) - {None}
    if len(texts) < 2:
        raise _alike(found, "pairs")
    few = len(texts) <= _MOST_K
    metric: dict[str, object] = {"type": "retrieval", "k": [1] if few else [1, _MOST_K]}
    if few and LABEL in found.first.meta:
        metric = {"type": "zero_shot", "label": LABEL}
    arch, batch = "tiny", min(64, max(4, found.usable // 20))
    budget, said, resources = min(20_000, 20 * found.usable), "", ""
    data = found
    if fitted is not None:
        study, machine, minutes = fitted
        arch, batch, budget = study.arch, study.batch, study.budget
        said = _FITTED.format(
            minutes=minutes, machine=machine.text, speed=study.speed, takes=study.minutes
        )
        if machine.gpus:
            cpus, gpus = machine.each
            held = {"cpus_per_worker": cpus, "gpus_per_worker": gpus}
            resources = f"  resources: {_flow(held)}\n"
        if study.rows is not None:
            data = replace(found, options={**found.options, "rows": [0, rows.stop + study.rows]})
    trials = _TRIALS.format(
        fitted=said,
        arch=arch,
        batch=batch,
        budget=budget,
        resources=resources,
        evaluation=_flow({**found.options, "rows": [rows.start, rows.stop]}),
        metric=_flow(metric),
    )
    return _configuration(data, name, file, operators=_PROBED, rest=trials)


def _recipe_only(found: Recognised, name: str, file: str) -> str:
    source = SOURCES.get(str(found.options["type"]))
    stays = found.content == "videos" and source.HAS_PLACES
    operators = _operators(found)
    if not operators:
        raise _alike(found, "texts")
    return _configuration(
        found,
        name,
        file,
        about=_UNTRAINED.format(how=_how_to_train(found.content)),
        ingest=_REFERENCE if stays else "",
        operators=operators,
        rest=_RECIPE_ONLY,
    )


def _how_to_train(content: Content) -> str:
    return f"A training on {_SAMPLES[content]} {_TRAINED[content]}."


def _configuration(
    found: Recognised,
    name: str,
    file: str,
    *,
    operators: Sequence[str],
    rest: str,
    about: str = "",
    ingest: str = "",
) -> str:
    """Return a configuration.

    Args:
        found: the data.
        name: of the run.
        file: the new file, for the commands in it.
        operators: the names of filters.
        rest: what comes behind the operators.
        about: comments on what a run does.
        ingest: more lines of that section.
    """
    return _TEMPLATE.format(
        schema=schema_line(),
        found="\n".join(f"#   {line}" for line in found.lines),
        about=about,
        file=file,
        name=name,
        dataset=_flow(found.options),
        max_rejected=_tolerated(found),
        ingest=ingest,
        operators="\n".join(f"  - {operator}" for operator in operators),
        rest=rest,
    )


def _alike(found: Recognised, samples: str) -> BadInput:
    """Return what to raise where nothing can tell samples apart."""
    return BadInput(
        f"all of the {found.usable + found.rejected} rows that were looked at have the text "
        f"{found.first.text!r}: what tells good {samples} from bad is that texts differ"
    )


def _operators(found: Recognised) -> list[str]:
    """Return operators of every modality that there is; of texts, where these differ."""
    media = [kind for kind in ("image", "video") if kind in found.modalities]
    each = _MOST_OPERATORS if not media else 3 if len(media) == 1 else 2
    chosen = [operator for kind in media for operator in _OPERATORS[kind][:each]]
    if len(set(found.texts) - {None}) > 1:
        chosen = [*_OPERATORS["text"][: _MOST_OPERATORS - len(chosen)], *chosen]
    return chosen


def _tolerated(found: Recognised) -> float:
    """Return which share of the samples may be unusable: twice that of the first ones."""
    share = found.rejected / (found.usable + found.rejected)
    return 0.01 if share <= 0.005 else min(1.0, round(2 * share + 0.01, 2))


def _varied(texts: Sequence[str | None], count: int) -> range:
    """Return so many rows in succession: the first ones, if their texts are of many kinds.

    Folders may be read class by class: then those with most texts, in the most even parts.
    """
    if len(set(texts[:count]) - {None}) > _MOST_K:
        return range(count)

    def variety(start: int) -> tuple[int, int]:
        counts = Counter(text for text in texts[start : start + count] if text is not None)
        return len(counts), -max(counts.values(), default=0)

    start = max(range(len(texts) - count + 1), key=variety)
    return range(start, start + count)


def _flow(options: Mapping[str, object]) -> str:
    dumped = yaml.safe_dump(
        options, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True
    )
    return str(dumped).strip()


def _name(path: str) -> str:
    """Return a name for the run, from that of the data."""
    stem = posixpath.basename(path.rstrip("/")).split(".")[0]
    return re.sub(r"[^A-Za-z0-9_-]+", "-", stem).strip("-_")[:60] or "my-data"

"""The configuration of a run: YAML to frozen models; every error at once, each with its path."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import Field, SerializeAsAny, TypeAdapter, ValidationError, field_validator

from djsandbox_ray.analysis.verdicts.second_look import ConfirmConfig, LearningRateConfig
from djsandbox_ray.dataset.source import SOURCES, IngestConfig, content_of
from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.config import EvaluationConfig
from djsandbox_ray.evaluation.evaluator import EVALUATORS
from djsandbox_ray.ledger.planner import CostConfig
from djsandbox_ray.masking import masked, without_secrets
from djsandbox_ray.nodes.connection import ClusterConfig
from djsandbox_ray.pools.builder import BUILDERS
from djsandbox_ray.pools.config import WHOLE_BUCKET_CONTROLS, PoolConfig
from djsandbox_ray.pools.eligible import check_statistics
from djsandbox_ray.recipes.policy import PolicyConfig, unknown_statistics
from djsandbox_ray.reporting.report import ReportConfig
from djsandbox_ray.settings.sections import MOST_NAME, Component, Section, component
from djsandbox_ray.settings.strict_yaml import MOST_BYTES
from djsandbox_ray.settings.yaml_input import problems, read_mapping, read_value
from djsandbox_ray.stats import inspection
from djsandbox_ray.stats.compute import StatisticsConfig
from djsandbox_ray.stats.needs import needs
from djsandbox_ray.stats.operators import (
    REFERENCE,
    BadProcess,
    parse_process,
    resolve_paths,
    statistic_names,
)
from djsandbox_ray.storage.filesystems import read_text
from djsandbox_ray.tracking.tracker import TRACKERS
from djsandbox_ray.trials.clip.scorer import ScorerConfig
from djsandbox_ray.trials.config import TrialsConfig, misfits
from djsandbox_ray.trials.family import FAMILIES

_LONGEST_PART = 255
_MOST_STEPS = 100
"""Keys of a path in ``--set``."""


class RunConfig(Section):
    """Everything that a run needs to know. Relative paths start at the working directory."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=MOST_NAME)
    """Names the folder of the run; the same name again resumes it. Folders have 255 characters at
    most, what MLflow names after it 250."""
    storage: str = Field(default="./sandbox", min_length=1)
    """Folder or URL for all artifacts; shared by runs, so that they reuse each other's work."""

    @field_validator("storage")
    @classmethod
    def _possible(cls, storage: str) -> str:
        if any(len(part.encode("utf-8", "replace")) > _LONGEST_PART for part in storage.split("/")):
            raise ValueError(f"a folder's name has {_LONGEST_PART} bytes at most")
        return storage

    dataset: Annotated[SerializeAsAny[Component], component(SOURCES)]
    """The data in question."""
    ingest: IngestConfig = IngestConfig()
    """What is tolerated when samples are read."""
    operators: list[str | dict[str, Any]] = Field(min_length=1)
    """Filters in the syntax of a Data-Juicer ``process`` list; thresholds are not needed."""
    scorer: ScorerConfig | None = None
    """Trains a CLIP on trusted data; its folder is ``${scorer}`` in ``operators``."""
    statistics: StatisticsConfig = StatisticsConfig()
    """How operators are run."""
    pools: PoolConfig = PoolConfig()
    """How pools, controls and draws are made."""
    trials: TrialsConfig
    """How every pool is trained."""
    evaluation: EvaluationConfig
    """How every model is measured."""
    confirm: ConfirmConfig = ConfirmConfig()
    """The second look at the pools that are called better."""
    learning_rate_check: LearningRateConfig | None = None
    """An optional arm: whether the verdicts hold at a second learning rate."""
    policies: tuple[PolicyConfig, ...] = ()
    """Limits that statistics must keep, whatever helps the score."""
    cost: CostConfig | None = None
    """What a full training costs, and how many of them the run may cost."""
    report: ReportConfig = ReportConfig()
    """What the report shows beside the verdicts."""
    tracking: Annotated[SerializeAsAny[Component], component(TRACKERS)] = Field(
        default_factory=lambda: TRACKERS.get("mlflow").Config(type="mlflow")
    )
    """Where runs are logged."""
    cluster: ClusterConfig = ClusterConfig()
    """Where the run finds Ray."""
    workflow: str | dict[str, Any] = "single_op"
    """The order of jobs: a built-in workflow, the path of a YAML file, or what that would hold."""
    jobs: dict[str, dict[str, Any]] = Field(default={})
    """Per job of the workflow, values for its parameters in place of the workflow's own."""


def load_config(path: str, overrides: Sequence[str] = (), storage: str | None = None) -> RunConfig:
    """Read and check a configuration.

    Args:
        path: the YAML file.
        overrides: ``path.to.key=value`` each; the value is read as YAML, list items by number:
            ``operators.0`` or ``operators[0]``.
        storage: replaces the key ``storage``.

    Raises:
        BadInput: with one line per error: the YAML path, what is wrong and what is allowed.
    """
    return checked(read_document(path, overrides, storage), path)


def read_document(
    path: str, overrides: Sequence[str] = (), storage: str | None = None
) -> dict[str, Any]:
    """Read a configuration as plain data, unchecked, with some values replaced.

    Args:
        path: as for :func:`load_config`, like the others.
        overrides: the same.
        storage: the same.

    Raises:
        BadInput: the file cannot be read, or an override finds no place.
    """
    document = _read(path)
    for override in overrides:
        document = _overridden(document, override)
    if storage is not None:
        document["storage"] = storage
    return document


def checked(document: dict[str, Any], name: str, *, elsewhere: bool = False) -> RunConfig:
    """Check a configuration.

    Args:
        document: as YAML gives it.
        name: what it is called in messages.
        elsewhere: it runs on other machines: models and packages are not looked for on this one.

    Raises:
        BadInput: with one line per error: the YAML path, what is wrong and what is allowed.
    """
    found: list[str] = []
    config = None
    try:
        config = RunConfig.model_validate(document)
    except ValidationError as error:
        # What is wrong inside the list of operators is said below, and better.
        found = [
            str(problem)
            for problem in problems(error, RunConfig, document)
            if not problem.where.startswith("operators[")
        ]
    not_finite = [where for where in _not_finite(document, "") if f"{where}: " not in str(found)]
    found += [f"{where}: a finite number is needed" for where in not_finite]
    if not not_finite:
        found += _operator_problems(document, elsewhere)
        found += _statistic_problems(document)
    if config is not None:
        found += _trial_problems(config)
        found += _content_problems(config)
    if config is None or found:
        listed = "\n".join(f"  {without_secrets(line)}" for line in found)
        raise BadInput(f"{name}: {len(found)} error(s) in the configuration\n{listed}")
    return config


def _not_finite(value: Any, where: str) -> Iterator[str]:
    """Yield the places of NaN and infinities, also where any value may stand."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _not_finite(inner, f"{where}.{key}".removeprefix("."))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _not_finite(inner, f"{where}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield where


def replaced(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """Return a copy of a configuration with one value replaced.

    Args:
        document: as YAML gives it.
        path: of the value: ``path.to.key``, list items by number.
        value: plain data.

    Raises:
        BadInput: there is no such place.
    """
    changed: dict[str, Any] = _with(document, path.split("."), value)
    return changed


def _read(path: str) -> dict[str, Any]:
    try:
        text = read_text(path, MOST_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read: {error}") from error
    return read_mapping(text, path)


def _overridden(document: dict[str, Any], override: str) -> dict[str, Any]:
    path, equals, text = override.partition("=")
    place = path.replace("[", ".").replace("]", "")
    if not equals or not all(place.split(".")) or place.count(".") > _MOST_STEPS:
        raise BadInput(f"--set {override!r:.200}: path.to.key=value is needed")
    try:
        return replaced(document, place, read_value(text, "the value"))
    except BadInput as error:
        raise BadInput(f"--set {override!r:.200}: {error}") from error


def _with(place: Any, keys: list[str], value: Any) -> Any:
    """Return a copy with one value replaced: an alias in YAML stands for a place of its own."""
    key, *rest = keys
    if isinstance(place, dict):
        if rest and key not in place and rest[0].isdecimal():
            raise BadInput(f"there is no list {key!r} to change; give it whole: [value, ...]")
        return {**place, key: _with(place.get(key, {}), rest, value) if rest else value}
    if not isinstance(place, list) or not key.isdecimal() or int(key) >= len(place):
        size = f"a list of {len(place)}" if isinstance(place, list) else f"{place!r}"
        raise BadInput(f"there is no {key!r} in {size}")
    changed = list(place)
    changed[int(key)] = _with(place[int(key)], rest, value) if rest else value
    return changed


def _trial_problems(config: RunConfig) -> list[str]:
    """Find what single sections cannot: they contradict each other."""
    model = config.trials.model
    found = misfits(config.trials, config.evaluation.metrics)
    if config.learning_rate_check and "learning_rate" not in type(model).model_fields:
        found.append(
            f"learning_rate_check: the model {model.type!r} has no setting 'learning_rate'"
        )
    if config.trials.seeds == 1 and config.pools.draw_share < 1:
        found.append(
            "trials.seeds: one seed is only for whole buckets (pools.draw_share: 1.0); else at "
            "least 2 are needed"
        )
    controls = config.pools.controls
    if config.pools.draw_share == 1 and controls != "auto" and controls < WHOLE_BUCKET_CONTROLS:
        found.append(
            "pools.controls: whole buckets (pools.draw_share: 1.0) need at least "
            f"{WHOLE_BUCKET_CONTROLS} control arms, not {controls}"
        )
    confirm = config.confirm
    if confirm.top and config.pools.draw_share == 1 and confirm.controls < WHOLE_BUCKET_CONTROLS:
        found.append(
            "confirm.controls: whole buckets (pools.draw_share: 1.0) need at least "
            f"{WHOLE_BUCKET_CONTROLS} control arms, not {confirm.controls}"
        )
    if confirm.top and confirm.seeds == 1 and config.pools.draw_share < 1:
        found.append("confirm.seeds: draws (pools.draw_share below 1) need at least 2 seeds")
    return found


def _content_problems(config: RunConfig) -> list[str]:
    """Find what does not fit what the samples are: their source, who trains, measures, computes."""
    content, evaluated = content_of(config.dataset), content_of(config.evaluation.dataset)
    sources = {"dataset": config.dataset, "evaluation.dataset": config.evaluation.dataset}
    found = []
    if config.scorer is not None:
        sources["scorer.dataset"] = config.scorer.dataset
        if (trusted := content_of(config.scorer.dataset)) != "pairs":
            found.append(f"scorer.dataset.content: the scorer trains on pairs, not on {trusted!r}")
    for where, source in sources.items():
        allowed = SOURCES.get(source.type).CONTENTS
        if content_of(source) not in allowed:
            found.append(
                f"{where}.content: the source {source.type!r} gives {' or '.join(allowed)}, not "
                f"{content_of(source)!r}"
            )
    model = config.trials.model.type
    if content not in (trains := FAMILIES.get(model).CONTENT):
        found.append(
            f"trials.model.type: {model!r} trains on {' or '.join(trains)}, but dataset.content is "
            f"{content!r}"
        )
    for index, metric in enumerate(config.evaluation.metrics):
        if evaluated not in (measures := EVALUATORS.get(metric.type).CONTENT):
            found.append(
                f"evaluation.metrics[{index}].type: {metric.type!r} measures on "
                f"{' or '.join(measures)}, but evaluation.dataset.content is {evaluated!r}"
            )
    try:
        specs = parse_process(config.operators)
    except BadProcess:
        return found  # reported with the operators
    return found + [
        f"operators[{index}].{spec.name}: reads the image of a pair, but dataset.content is "
        f"{content!r}"
        for index, spec in enumerate(specs)
        if content != "pairs" and "image" in inspection.reads(spec.filter_class)
    ]


def _operator_problems(document: dict[str, Any], elsewhere: bool) -> list[str]:
    process = document.get("operators")
    if not isinstance(process, list) or not process:
        return []  # reported with the other errors of shape
    found = []
    settings = _section(StatisticsConfig, document.get("statistics", {})) or StatisticsConfig()
    try:
        for index, spec in enumerate(parse_process(process)):
            where = f"operators[{index}].{spec.name}"
            found += [
                f"{where}.{name}: {REFERENCE} must stand alone, not in {value!r}"
                for name, value in spec.params.items()
                if REFERENCE in str(value) and value != REFERENCE
            ]
            secrets = [
                f"{where}.{name}: holds a secret, which the recipe and other files would repeat; "
                "credentials come from the environment"
                for name, value in spec.params.items()
                if masked({name: value}) != {name: value}
            ]
            found += secrets
            if REFERENCE not in str(spec.params) and not elsewhere and not secrets:
                wanted = needs(spec, settings.models, settings.endpoint)
                found += [f"{where}: needs {need.what}" for need in wanted if not need.there]
    except BadProcess as error:
        found = [f"{where}: {what}" for where, what in error.problems]
    if REFERENCE in str(process) and document.get("scorer") is None:
        found.append(f"operators: {REFERENCE} is used, but there is no section 'scorer'")
    return found


def _statistic_problems(document: dict[str, Any]) -> list[str]:
    """Find names of statistics that none of the operators gives.

    Each section is read by itself, so that errors in others do not hide these.
    """
    known = _statistics(document)
    if known is None:
        return []
    found = []
    pools = _section(PoolConfig, document.get("pools", {})) or PoolConfig()
    for index, item in enumerate(pools.within):
        try:
            check_statistics([item.statistic], known)
        except BadInput as error:
            found.append(f"pools.within[{index}].statistic: {error}")
    for index, settings in enumerate(pools.extra):
        where = f"pools.extra[{index}]"
        if settings.name in known:
            found.append(f"{where}.name: {settings.name!r} is the name of a statistic")
        try:
            BUILDERS.get(settings.type)(settings).check(known)
        except BadInput as error:
            found.append(f"{where}: {error}")
    policies = _section(tuple[PolicyConfig, ...], document.get("policies", ()))
    return found + unknown_statistics(policies or (), known)


def _statistics(document: dict[str, Any]) -> list[str] | None:
    """Return the statistics that the operators give; None where that cannot be said yet."""
    try:
        specs = parse_process(document.get("operators"))
    except BadProcess:
        return None  # reported with the operators
    names = [name for some in statistic_names(list(map(resolve_paths, specs))) for name in some]
    # What tells two operators apart may be the folder of a scorer that is not trained yet.
    return None if any(REFERENCE in name for name in names) else names


def _section(kind: Any, value: Any) -> Any:
    """Read a part of the configuration; None if it has errors, which are reported elsewhere."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return None

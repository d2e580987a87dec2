"""The configuration of a run: YAML to frozen models; every error at once, each with its path."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import (
    ConfigDict,
    Field,
    SerializeAsAny,
    TypeAdapter,
    ValidationError,
    field_validator,
)

from djsandbox_ray.analysis.verdicts.second_look import ConfirmConfig, LearningRateConfig
from djsandbox_ray.dataset.media import MODALITIES
from djsandbox_ray.dataset.source import SOURCES, IngestConfig, SourceConfig, content_of
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
from djsandbox_ray.stats.compute import StatisticsConfig
from djsandbox_ray.stats.needs import needs
from djsandbox_ray.stats.operators import (
    REFERENCE,
    BadProcess,
    OperatorSpec,
    lacking,
    parse_process,
    resolve_paths,
    statistic_names,
)
from djsandbox_ray.storage.filesystems import read_text
from djsandbox_ray.tracking.tracker import TRACKERS
from djsandbox_ray.trials.clip.scorer import ScorerConfig
from djsandbox_ray.trials.config import TrialsConfig, misfits
from djsandbox_ray.trials.family import FAMILIES

S = TypeVar("S", bound=Section)

_Source = Annotated[SerializeAsAny[Component], component(SOURCES)]

_LONGEST_PART = 255
_MOST_STEPS = 100
"""Keys of a path in ``--set``."""


class RunConfig(Section):
    """Everything that a run needs to know. Relative paths start at the working directory."""

    # A dump has the keys that the YAML has, so that it can be read again.
    model_config = ConfigDict(serialize_by_alias=True)

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

    dataset: _Source
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
    training: TrialsConfig | None = Field(default=None, alias="trials")
    """How every pool is trained; see :attr:`trials`."""
    measuring: EvaluationConfig | None = Field(default=None, alias="evaluation")
    """How every model is measured; see :attr:`evaluation`."""
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

    @property
    def trials(self) -> TrialsConfig:
        """The section ``trials``, where the workflow needs it.

        Raises:
            BadInput: the configuration has none.
        """
        return _there(self.training, "trials")

    @property
    def evaluation(self) -> EvaluationConfig:
        """The section ``evaluation``, where the workflow needs it.

        Raises:
            BadInput: the configuration has none.
        """
        return _there(self.measuring, "evaluation")

    @property
    def sources(self) -> dict[str, Component]:
        """The sources of data, by their places."""
        return _by_place(self.dataset, self.measuring, self.scorer, self.training)

    def lacks(self, section: str) -> bool:
        """Say whether a section that some workflows do without is not there."""
        return {"trials": self.training, "evaluation": self.measuring}[section] is None


def _there(section: S | None, name: str) -> S:
    if section is None:
        raise BadInput(f"{name}: the configuration has no such section, which is needed here")
    return section


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
    if not any(where.startswith("operators") for where in not_finite):
        found += _operator_problems(document, elsewhere)
        found += _statistic_problems(document)
    given = _Sections.of(document)
    found += _trial_problems(given)
    found += _absent_problems(document)
    found += _content_problems(given, document.get("operators"))
    if config is None or found:
        listed = "\n".join(f"  {without_secrets(line)}" for line in found)
        raise BadInput(f"{name}: {len(found)} error(s) in the configuration\n{listed}")
    return config


def readable_sources(document: Mapping[str, Any]) -> dict[str, Component]:
    """Return the sources of a configuration that has errors, as far as they have none themselves.

    Returns:
        By their places, as :attr:`RunConfig.sources`.
    """
    return {
        where: source
        for where, source in _Sections.of(document).sources.items()
        if content_of(source) in SOURCES.get(source.type).CONTENTS
    }


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


@dataclass(frozen=True)
class _Sections:
    """Sections of a document, each read by itself, so that errors in others do not hide its own.

    None stands for one that is not given, or has errors, which are reported elsewhere.
    """

    dataset: Component | None
    ingest: IngestConfig | None
    scorer: ScorerConfig | None
    pools: PoolConfig | None
    trials: TrialsConfig | None
    evaluation: EvaluationConfig | None
    confirm: ConfirmConfig | None
    learning_rate_check: LearningRateConfig | None

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> _Sections:
        def read(kind: Any, key: str, default: Any = None) -> Any:
            return _section(kind, document.get(key, default))

        return cls(
            dataset=read(_Source, "dataset"),
            ingest=read(IngestConfig, "ingest", {}),
            scorer=read(ScorerConfig, "scorer"),
            pools=read(PoolConfig, "pools", {}),
            trials=read(TrialsConfig, "trials"),
            evaluation=read(EvaluationConfig, "evaluation"),
            confirm=read(ConfirmConfig, "confirm", {}),
            learning_rate_check=read(LearningRateConfig, "learning_rate_check"),
        )

    @property
    def sources(self) -> dict[str, Component]:
        """The sources of data, by their places."""
        return _by_place(self.dataset, self.evaluation, self.scorer, self.trials)


def _by_place(
    dataset: Component | None,
    evaluation: EvaluationConfig | None,
    scorer: ScorerConfig | None,
    trials: TrialsConfig | None,
) -> dict[str, Component]:
    found: dict[str, Component | None] = {
        "dataset": dataset,
        "evaluation.dataset": evaluation.dataset if evaluation else None,
        "scorer.dataset": scorer.dataset if scorer else None,
    }
    if trials is not None:
        found |= dict(_sources_in(trials.model, "trials.model"))
    return {where: source for where, source in found.items() if source is not None}


def _sources_in(section: Section, where: str) -> Iterator[tuple[str, Component]]:
    """Yield the sources in a section, and in those below it, with their places."""
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, SourceConfig):
            yield f"{where}.{name}", value
        elif isinstance(value, Section):
            yield from _sources_in(value, f"{where}.{name}")


def _trial_problems(given: _Sections) -> list[str]:
    """Find what single sections cannot: they contradict each other."""
    trials, pools, confirm = given.trials, given.pools, given.confirm
    evaluation = given.evaluation
    found = []
    if trials:
        found = misfits(
            trials,
            evaluation.metrics if evaluation else (),
            evaluation.score if evaluation else None,
            self_tests=pools is not None and pools.self_tests,
        )
    checks_rate = given.learning_rate_check is not None
    if trials and checks_rate and "learning_rate" not in type(trials.model).model_fields:
        found.append(
            f"learning_rate_check: the model {trials.model.type!r} has no setting 'learning_rate'"
        )
    if pools is None:
        return found
    whole = pools.draw_share == 1
    if trials and len(trials.seed_numbers) == 1 and not whole:
        found.append(
            "trials.seeds: one seed is only for whole buckets (pools.draw_share: 1.0); else at "
            "least 2 are needed"
        )
    if whole and pools.controls != "auto" and pools.controls < WHOLE_BUCKET_CONTROLS:
        found.append(
            "pools.controls: whole buckets (pools.draw_share: 1.0) need at least "
            f"{WHOLE_BUCKET_CONTROLS} control arms, not {pools.controls}"
        )
    if confirm is None or not confirm.top:
        return found
    if whole and confirm.controls < WHOLE_BUCKET_CONTROLS:
        found.append(
            "confirm.controls: whole buckets (pools.draw_share: 1.0) need at least "
            f"{WHOLE_BUCKET_CONTROLS} control arms, not {confirm.controls}"
        )
    if confirm.seeds == 1 and not whole:
        found.append("confirm.seeds: draws (pools.draw_share below 1) need at least 2 seeds")
    return found


def _absent_problems(document: Mapping[str, Any]) -> list[str]:
    """Find sections that say something of trials where there are none."""
    if document.get("trials") is not None:
        return []
    return [
        f"{section}: is about trials, but there is no section 'trials'"
        for section in ("cost", "learning_rate_check")
        if document.get(section) is not None
    ]


def _content_problems(given: _Sections, process: Any) -> list[str]:
    """Find what does not fit what the samples are: their source, who trains, measures, computes.

    Args:
        given: the sections.
        process: the operators, as YAML gives them.
    """
    sources = given.sources
    contents = {where: content_of(source) for where, source in sources.items()}
    stay = given.ingest is not None and given.ingest.videos.store == "reference"
    found = []
    if (trusted := contents.get("scorer.dataset", "pairs")) != "pairs":
        found.append(f"scorer.dataset.content: the scorer trains on pairs, not on {trusted!r}")
    for where, source in sources.items():
        if contents[where] not in (allowed := SOURCES.get(source.type).CONTENTS):
            found.append(
                f"{where}.content: the source {source.type!r} gives {' or '.join(allowed)}, not "
                f"{contents[where]!r}"
            )
        has_videos = "video" in MODALITIES[contents[where]]
        if stay and has_videos and not SOURCES.get(source.type).HAS_PLACES:
            fit = ", ".join(name for name in SOURCES if SOURCES.get(name).HAS_PLACES)
            found.append(
                f"{where}.type: ingest.videos.store: reference needs videos that are files of "
                f"their own ({fit}); those of {source.type!r} are not"
            )
    content, evaluated = contents.get("dataset"), contents.get("evaluation.dataset")
    if given.trials and content is not None:
        model = given.trials.model.type
        if content not in (trains := FAMILIES.get(model).CONTENT):
            found.append(
                f"trials.model.type: {model!r} trains on {' or '.join(trains)}, but "
                f"dataset.content is {content!r}"
            )
    for index, metric in enumerate(given.evaluation.metrics if given.evaluation else ()):
        kind = EVALUATORS.get(metric.type)
        if (own := kind(metric).source()) is not None:
            if stay and "video" in MODALITIES[content_of(own.config)] and not own.HAS_PLACES:
                found.append(
                    f"evaluation.metrics[{index}].type: ingest.videos.store: reference needs "
                    f"videos that are files of their own; those of {metric.type!r} are not"
                )
        elif evaluated is None and kind(metric).needs_samples():
            found.append(
                f"evaluation.dataset: missing; evaluation.metrics[{index}] ({metric.type!r}) is "
                "measured on this trusted split"
            )
        elif evaluated is not None and evaluated not in (measures := kind.CONTENT):
            found.append(
                f"evaluation.metrics[{index}].type: {metric.type!r} measures on "
                f"{' or '.join(measures)}, but evaluation.dataset.content is {evaluated!r}"
            )
    if content is None:
        return found
    return found + [
        f"operators[{index}].{spec.name}: reads {' and '.join(absent)}, but dataset.content "
        f"{content!r} has {' and '.join(MODALITIES[content])} alone"
        for index, spec in _readable(process)
        if (absent := lacking(spec, MODALITIES[content]))
    ]


def _readable(process: Any) -> Iterator[tuple[int, OperatorSpec]]:
    """Yield the operators that can be read, with their places, whatever is wrong with others."""
    for index, item in enumerate(process if isinstance(process, list) else ()):
        try:
            (spec,) = parse_process([item])
        except BadProcess:
            continue
        yield index, spec


def _operator_problems(document: dict[str, Any], elsewhere: bool) -> list[str]:
    process = document.get("operators")
    if not isinstance(process, list) or not process:
        return []  # reported with the other errors of shape
    found = []
    settings = _section(StatisticsConfig, document.get("statistics", {})) or StatisticsConfig()
    try:
        parse_process(process)
    except BadProcess as error:
        found = [f"{where}: {what}" for where, what in error.problems]
    for index, spec in _readable(process):
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

"""The configuration of a run: YAML to frozen models; every error at once, each with its path."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any, TypeVar

from pydantic import ConfigDict, Field, SerializeAsAny, ValidationError, field_validator

from djsandbox_ray.analysis.planning.sight import NoiseConfig
from djsandbox_ray.analysis.verdicts.second_look import ConfirmConfig, LearningRateConfig
from djsandbox_ray.cross_checks import DataSource, contradictions, sources_by_place
from djsandbox_ray.dataset.source import IngestConfig
from djsandbox_ray.errors import BadInput, Damaged, MissingExtra
from djsandbox_ray.evaluation.config import EvaluationConfig
from djsandbox_ray.ledger.planner import CostConfig
from djsandbox_ray.masking import without_secrets
from djsandbox_ray.nodes.connection import ClusterConfig, go_online
from djsandbox_ray.pools.config import PoolConfig
from djsandbox_ray.recipes.policy import PolicyConfig
from djsandbox_ray.reporting.page import ReportConfig
from djsandbox_ray.settings.places import located, parsed
from djsandbox_ray.settings.sections import MOST_NAME, Component, Section, component
from djsandbox_ray.settings.strict_yaml import MOST_BYTES
from djsandbox_ray.settings.yaml_input import keys_of, problems, read_mapping, read_value
from djsandbox_ray.stats.compute import StatisticsConfig
from djsandbox_ray.storage.filesystems import read_text
from djsandbox_ray.tracking.tracker import TRACKERS
from djsandbox_ray.trials.clip.scorer import ScorerConfig
from djsandbox_ray.trials.config import TrialsConfig
from djsandbox_ray.trials.t2v.evolution import EvolutionConfig

S = TypeVar("S", bound=Section)

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

    dataset: DataSource
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
    noise: NoiseConfig = NoiseConfig()
    """What the study must be able to see; the controls tell first."""
    confirm: ConfirmConfig = ConfirmConfig()
    """The second look at the pools that are called better."""
    learning_rate_check: LearningRateConfig | None = None
    """An optional arm: whether the verdicts hold at a second learning rate."""
    policies: tuple[PolicyConfig, ...] = ()
    """Limits that statistics must keep, whatever helps the score."""
    evolution: EvolutionConfig | None = None
    """A chain of trainings that go on from each other, for ``workflow: self_evolution``."""
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
        return sources_by_place(self.dataset, self.measuring, self.scorer, self.training)

    def lacks(self, section: str) -> bool:
        """Say whether a section that some workflows do without is not there."""
        known = {"trials": self.training, "evaluation": self.measuring, "evolution": self.evolution}
        return known[section] is None


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
    cluster = document.get("cluster")
    if isinstance(cluster, dict) and cluster.get("online") is True:
        go_online()  # before what is not here is looked for
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
    readable = not any(where.startswith("operators") for where in not_finite)
    found += contradictions(document, operators=readable, elsewhere=elsewhere)
    if config is None or found:
        listed = "\n".join(f"  {without_secrets(line)}" for line in found)
        raise BadInput(f"{name}: {len(found)} error(s) in the configuration\n{listed}")
    return config


@contextmanager
def with_places(
    path: str, overrides: Sequence[str] = (), storage: str | None = None
) -> Iterator[None]:
    """Have what is wrong with a configuration say in which line and column of its file it stands.

    Args:
        path: as for :func:`load_config`, like the others.
        overrides: the same; what they set stands in no file.
        storage: the same.
    """
    try:
        yield
    except (Damaged, MissingExtra):  # of another file, or of none
        raise
    except BadInput as error:
        shown = without_secrets(path)
        found = located(
            str(error),
            shown,
            lambda file: read_text(path if file == shown else file, MOST_BYTES),
            sections=keys_of(RunConfig).keys(),
            elsewhere=[*map(_place_of, overrides), *([("storage",)] if storage else [])],
        )
        raise BadInput(found) from None


def _place_of(override: str) -> tuple[int | str, ...]:
    """Return the path of what ``path.to.key=value`` sets; items of lists are numbers."""
    keys = parsed(override.partition("=")[0])
    return tuple(int(key) if str(key).isdecimal() else key for key in keys)


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

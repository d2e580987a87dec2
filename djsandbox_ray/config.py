"""The configuration of a run: YAML to frozen models; every error at once, each with its path."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, get_args

import yaml
from pydantic import BaseModel, Field, SerializeAsAny, ValidationError

from djsandbox_ray.dataset.config import IngestConfig
from djsandbox_ray.dataset.source import SOURCES
from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.config import EvaluationConfig
from djsandbox_ray.pools.config import PoolConfig
from djsandbox_ray.reporting.config import ReportConfig
from djsandbox_ray.sections import NESTED, Component, Section, component
from djsandbox_ray.stats.compute import StatisticsConfig
from djsandbox_ray.stats.operators import BadProcess, parse_process
from djsandbox_ray.tracking.tracker import TRACKERS
from djsandbox_ray.trials.config import TrialsConfig
from djsandbox_ray.trials.scorer import REFERENCE, ScorerConfig


class ClusterConfig(Section):
    """Where the run finds Ray."""

    address: str | None = None
    """Address of a running cluster; by default ``RAY_ADDRESS``, or else a new local cluster."""
    cpus: int | None = Field(default=None, ge=1)
    """CPUs of a new local cluster; by default all of this machine."""


class RunConfig(Section):
    """Everything that a run needs to know. Relative paths start at the working directory."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Names the folder of the run; the same name again resumes it."""
    storage: str = "./sandbox"
    """Folder or URL for all artifacts; shared by runs, so that they reuse each other's work."""
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
    report: ReportConfig = ReportConfig()
    """What the report shows beside the verdicts."""
    tracking: Annotated[SerializeAsAny[Component], component(TRACKERS)] = Field(
        default_factory=lambda: TRACKERS.get("mlflow").Config(type="mlflow")
    )
    """Where runs are logged."""
    cluster: ClusterConfig = ClusterConfig()
    """Where the run finds Ray."""
    workflow: str = "single_op"
    """The order of jobs: a built-in workflow, or the path of a YAML file."""


def load_config(path: str, overrides: Sequence[str] = (), storage: str | None = None) -> RunConfig:
    """Read and check a configuration.

    Args:
        path: the YAML file.
        overrides: ``path.to.key=value`` each; the value is read as YAML, list items by number.
        storage: replaces the key ``storage``.

    Raises:
        BadInput: with one line per error: the YAML path, what is wrong and what is allowed.
    """
    document = _read_yaml(path)
    for override in overrides:
        _apply(document, override)
    if storage is not None:
        document["storage"] = storage
    problems: list[str] = []
    config = None
    try:
        config = RunConfig.model_validate(document)
    except ValidationError as error:
        problems = [_line(item) for item in _flatten(error.errors(), RunConfig, ())]
    problems += _operator_problems(document)
    if config is None or problems:
        listed = "\n".join(f"  {problem}" for problem in problems)
        raise BadInput(f"{path}: {len(problems)} error(s) in the configuration\n{listed}")
    return config


class _StrictLoader(yaml.SafeLoader):
    """Safe YAML in which a key that stands twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {key!r} stands twice, again in line {line}"
                )
            seen.add(key)
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


def _read_yaml(path: str) -> dict[str, Any]:
    try:
        document = yaml.load(Path(path).read_text(), Loader=_StrictLoader)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise BadInput(f"{path}: not valid YAML: {error}") from error
    if not isinstance(document, dict):
        raise BadInput(f"{path}: a mapping of keys is needed, not {type(document).__name__}")
    return document


def _apply(document: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    if not equals or not path:
        raise BadInput(f"--set {override!r}: path.to.key=value is needed")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise BadInput(f"--set {override!r}: the value is not valid YAML: {error}") from error
    *parents, last = path.split(".")
    place: Any = document
    for key in parents:
        if isinstance(place, dict):
            place = place.setdefault(key, {})
        else:
            place = place[_index(place, key, override)]
    if isinstance(place, dict):
        place[last] = value
    else:
        place[_index(place, last, override)] = value


def _index(place: Any, key: str, override: str) -> int:
    if not isinstance(place, list) or not key.isdigit() or int(key) >= len(place):
        size = f"a list of {len(place)}" if isinstance(place, list) else f"{place!r}"
        raise BadInput(f"--set {override!r}: there is no {key!r} in {size}")
    return int(key)


def _operator_problems(document: dict[str, Any]) -> list[str]:
    process = document.get("operators")
    if not isinstance(process, list) or not process:
        return []  # reported with the other errors of shape
    problems = []
    try:
        parse_process(process)
    except BadProcess as error:
        problems = [f"{where}: {what}" for where, what in error.problems]
    if REFERENCE in str(process) and document.get("scorer") is None:
        problems.append(f"operators: {REFERENCE} is used, but there is no section 'scorer'")
    return problems


def _flatten(
    errors: Sequence[Any], model: type[BaseModel], prefix: tuple[int | str, ...]
) -> list[tuple[tuple[int | str, ...], Any, type[BaseModel]]]:
    """Bring the errors of nested components to one level, each with its whole path."""
    flat: list[tuple[tuple[int | str, ...], Any, type[BaseModel]]] = []
    for error in errors:
        path = (*prefix, *error["loc"])
        if error["type"] == NESTED:
            flat += _flatten(error["ctx"]["errors"], error["ctx"]["model"], path)
        else:
            flat.append((path, error, _owner(model, error["loc"])))
    return flat


def _line(item: tuple[tuple[int | str, ...], Any, type[BaseModel]]) -> str:
    path, error, owner = item
    where = ".".join(str(part) for part in path if not str(part).startswith("function-"))
    if error["type"] != "extra_forbidden":
        given = "" if error["type"] == "missing" else f" (given: {str(error['input'])[:80]})"
        return f"{where}: {error['msg']}{given}"
    known = sorted(owner.model_fields)
    near = get_close_matches(str(path[-1]), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{where}: unknown key{hint} (known: {', '.join(known)})"


def _owner(model: type[BaseModel], path: Sequence[int | str]) -> type[BaseModel]:
    """Return the model in which the last key of ``path`` was looked up."""
    for key in path[:-1]:
        if isinstance(key, str) and key in model.model_fields:
            model = _model_in(model.model_fields[key].annotation) or model
    return model


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)

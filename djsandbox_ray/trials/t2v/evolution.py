"""A chain of trainings: what one has trained, the next begins with, or is taught by.

The stages of self-evolution (Data-Juicer Sandbox, arXiv 2407.11784, appendix): a model is
distilled, then is its own teacher on better data, and again on better ones still. Stages may also
branch: each names the one that it goes on from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from djsandbox_ray.errors import BadInput, nearest
from djsandbox_ray.settings.sections import MOST_NAME, Component, Section
from djsandbox_ray.settings.yaml_input import problems
from djsandbox_ray.trials.family import FAMILIES

BASE, PREVIOUS, BEST = "base", "previous", "best"
_CONSISTENCY = "consistency"


class EvolutionStage(Section):
    """One training of a chain."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=MOST_NAME)
    """Names it in tables, and for later stages."""
    pool: str
    """What it is trained on: the id of a pool, such as ``video_motion_score/high`` or
    ``control/0`` (random rows), or ``best``: of the ranking that the workflow has made."""
    init: str = BASE
    """What its training begins with: ``base``, ``previous``, or the name of an earlier stage."""
    teacher: str = BASE
    """Likewise, whose steps a student learns; only with ``objective: {type: consistency}``."""
    budget: int | None = Field(default=None, gt=0, le=10**12, strict=True)
    """Samples seen in training, in place of ``trials.budget``."""
    model: dict[str, Any] = Field(default={})
    """Keys of ``trials.model`` with values in place of those there; in mappings, single keys."""


class EvolutionConfig(Section):
    """A chain of trainings, and what its table shows."""

    stages: tuple[EvolutionStage, ...] = Field(min_length=1, max_length=100)
    """In their order."""
    metrics: tuple[str, ...] = ()
    """Further metrics that the table shows beside VBench's; by default those of the score."""

    @field_validator("stages")
    @classmethod
    def _chained(cls, stages: tuple[EvolutionStage, ...]) -> tuple[EvolutionStage, ...]:
        known: list[str] = []
        for index, stage in enumerate(stages):
            if stage.name in (BASE, PREVIOUS) or stage.name in known:
                raise ValueError(f"stage {index}: the name {stage.name!r} is taken")
            for what in ("init", "teacher"):
                source = getattr(stage, what)
                allowed = [BASE, *([PREVIOUS] if known else []), *known]
                if source not in allowed:
                    raise ValueError(
                        f"stage {stage.name!r}: {what}: there is no {source!r} before it"
                        f"{nearest(source, allowed)}; allowed: {', '.join(allowed)}"
                    )
            known.append(stage.name)
        return stages

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        if len(set(self.metrics)) < len(self.metrics):
            raise ValueError("metrics: each once")
        return self

    def links(self) -> tuple[Link, ...]:
        """Return what each stage goes on from, by name."""
        names = [stage.name for stage in self.stages]
        found: list[Link] = []
        for index, stage in enumerate(self.stages):
            init, teacher = (
                names[index - 1] if source == PREVIOUS else source
                for source in (stage.init, stage.teacher)
            )
            taught = next((link for link in found if link.name == teacher), None)
            found.append(Link(stage.name, init, teacher, taught is not None and taught.taught))
        return tuple(found)


@dataclass(frozen=True)
class Link:
    """What a stage goes on from."""

    name: str
    init: str
    """``base``, or the name of a stage."""
    teacher: str
    """Likewise."""
    evolved: bool
    """Whether its teacher was taught by a stage, too: then it is self-evolution."""

    @property
    def taught(self) -> bool:
        """Whether its teacher is a stage: then it is self-distillation."""
        return self.teacher != BASE


def stage_model(
    model: Component,
    stage: EvolutionStage,
    link: Link,
    folders: Mapping[str, Mapping[str, Any]],
    replaced: Mapping[str, str] | None = None,
) -> Component:
    """Return the model of a stage.

    Args:
        model: of the run.
        stage: what is changed of it.
        link: what it goes on from.
        folders: by the names of earlier stages, where what they have trained lies: ``path`` and
            ``id``.
        replaced: values to stand for others wherever these stand alone, such as ``${scorer}``.

    Raises:
        BadInput: there is no such model; a line per thing that is wrong, beginning with its place
            in ``model``.
    """
    own = _merged(model.model_dump(mode="json"), stage.model)
    own = _replaced(own, replaced or {})
    if own["type"] != model.type:
        raise BadInput(f"type: {own['type']!r}; all stages are of the type {model.type!r}")
    objective = own.get("objective")
    distils = isinstance(objective, dict) and objective.get("type") == _CONSISTENCY
    if link.taught:
        if not isinstance(objective, dict) or not distils:
            raise BadInput(f"objective.type: a teacher needs {_CONSISTENCY!r}")
        own["objective"] = {**objective, "teacher": dict(folders[link.teacher])}
    if link.init != BASE:
        own["init"] = dict(folders[link.init])
    family = FAMILIES.get(model.type)
    try:
        found: Component = family.Config.model_validate(own)
    except ValidationError as error:
        told = problems(error, family.Config, own)
        raise BadInput("\n".join(map(str, told))) from None
    if not family(found).keeps():
        raise BadInput(f"type: a model of {model.type!r}, so trained, is not kept for later stages")
    return found


def contradictions_of(evolution: EvolutionConfig, model: Component) -> list[str]:
    """Return what is wrong with the stages of a chain, a line each with its place.

    Args:
        evolution: the section.
        model: of the run.
    """
    folders = {
        stage.name: {"path": f"{stage.name}/{{seed}}", "id": stage.name}
        for stage in evolution.stages
    }
    found = []
    adapters: dict[str, Any] = {}
    for index, (stage, link) in enumerate(zip(evolution.stages, evolution.links(), strict=True)):
        where = f"evolution.stages[{index}].model"
        try:
            own = stage_model(model, stage, link, folders)
        except BadInput as error:
            found += [f"{where}.{line}" for line in str(error).split("\n")]
            continue
        adapters[stage.name] = getattr(own, "lora", None)
        if adapters.get(link.init, adapters[stage.name]) != adapters[stage.name]:
            found.append(f"{where}.lora: they are others than those of {link.init!r}, its init")
    return found


def _merged(given: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a mapping with changes; one of another ``type`` comes whole."""
    found = dict(given)
    for name, value in changes.items():
        there = found.get(name)
        if isinstance(there, dict) and isinstance(value, dict):
            same = value.get("type", there.get("type")) == there.get("type")
            found[name] = _merged(there, value) if same else value
        else:
            found[name] = value
    return found


def _replaced(value: Any, by: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _replaced(inner, by) for name, inner in value.items()}
    if isinstance(value, list):
        return [_replaced(inner, by) for inner in value]
    return by.get(value, value) if isinstance(value, str) else value

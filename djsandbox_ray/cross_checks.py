"""What sections of a configuration cannot know of each other, each contradiction with its place.

A configuration with errors is looked at too: every section is read by itself, so that what is wrong
in one hides nothing of the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import SerializeAsAny, TypeAdapter, ValidationError

from djsandbox_ray.analysis.verdicts.second_look import ConfirmConfig, LearningRateConfig
from djsandbox_ray.dataset.media import MODALITIES
from djsandbox_ray.dataset.source import SOURCES, IngestConfig, SourceConfig, content_of
from djsandbox_ray.errors import BadInput, nearest
from djsandbox_ray.evaluation.config import INFORMATIVE, EvaluationConfig, named
from djsandbox_ray.evaluation.evaluator import EVALUATORS
from djsandbox_ray.masking import masked
from djsandbox_ray.pools.builder import BUILDERS
from djsandbox_ray.pools.config import WHOLE_BUCKET_CONTROLS, PoolConfig
from djsandbox_ray.pools.eligible import check_statistics
from djsandbox_ray.recipes.policy import PolicyConfig, unknown_statistics
from djsandbox_ray.settings.sections import Component, Section, component
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
from djsandbox_ray.trials.clip.scorer import ScorerConfig
from djsandbox_ray.trials.config import TrialsConfig, misfits
from djsandbox_ray.trials.family import FAMILIES
from djsandbox_ray.trials.t2v.evolution import BEST, EvolutionConfig, contradictions_of

DataSource = Annotated[SerializeAsAny[Component], component(SOURCES)]
"""A source of samples, as a section of the configuration."""


def contradictions(
    document: Mapping[str, Any], *, operators: bool = True, elsewhere: bool = False
) -> list[str]:
    """Find what is wrong across sections.

    Args:
        document: the configuration, as YAML gives it; it may have errors, which are no part of
            this unless they are in the list of operators, where each is found here.
        operators: whether these can be read: without it, nothing is said of their parameters.
        elsewhere: it runs on other machines: models and packages are not looked for on this one.

    Returns:
        A line each: the YAML path, what is wrong and what is allowed.
    """
    found = []
    if operators:
        found += _operator_problems(document, elsewhere)
        found += _statistic_problems(document)
    given = _Sections.of(document)
    found += _trial_problems(given)
    found += _evolution_problems(given, document)
    found += _absent_problems(document)
    return found + _content_problems(given, document.get("operators"))


def readable_sources(document: Mapping[str, Any]) -> dict[str, Component]:
    """Return the sources of a configuration that has errors, as far as they have none themselves.

    Returns:
        By their places, as :func:`sources_by_place`.
    """
    return {
        where: source
        for where, source in _Sections.of(document).sources.items()
        if content_of(source) in SOURCES.get(source.type).CONTENTS
    }


def sources_by_place(
    dataset: Component | None,
    evaluation: EvaluationConfig | None,
    scorer: ScorerConfig | None,
    trials: TrialsConfig | None,
) -> dict[str, Component]:
    """Return the sources of data that there are, by their places in the configuration."""
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
    evolution: EvolutionConfig | None

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> _Sections:
        def read(kind: Any, key: str, default: Any = None) -> Any:
            return _section(kind, document.get(key, default))

        return cls(
            dataset=read(DataSource, "dataset"),
            ingest=read(IngestConfig, "ingest", {}),
            scorer=read(ScorerConfig, "scorer"),
            pools=read(PoolConfig, "pools", {}),
            trials=read(TrialsConfig, "trials"),
            evaluation=read(EvaluationConfig, "evaluation"),
            confirm=read(ConfirmConfig, "confirm", {}),
            learning_rate_check=read(LearningRateConfig, "learning_rate_check"),
            evolution=read(EvolutionConfig, "evolution"),
        )

    @property
    def sources(self) -> dict[str, Component]:
        """The sources of data, by their places."""
        return sources_by_place(self.dataset, self.evaluation, self.scorer, self.trials)


def _operator_problems(document: Mapping[str, Any], elsewhere: bool) -> list[str]:
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


def _readable(process: Any) -> Iterator[tuple[int, OperatorSpec]]:
    """Yield the operators that can be read, with their places, whatever is wrong with others."""
    for index, item in enumerate(process if isinstance(process, list) else ()):
        try:
            (spec,) = parse_process([item])
        except BadProcess:
            continue
        yield index, spec


def _statistic_problems(document: Mapping[str, Any]) -> list[str]:
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


def _statistics(document: Mapping[str, Any]) -> list[str] | None:
    """Return the statistics that the operators give; None where that cannot be said yet."""
    try:
        specs = parse_process(document.get("operators"))
    except BadProcess:
        return None  # reported with the operators
    names = [name for some in statistic_names(list(map(resolve_paths, specs))) for name in some]
    # What tells two operators apart may be the folder of a scorer that is not trained yet.
    return None if any(REFERENCE in name for name in names) else names


def _trial_problems(given: _Sections) -> list[str]:
    """Find what single sections cannot: they contradict each other."""
    trials, pools, confirm = given.trials, given.pools, given.confirm
    evaluation = given.evaluation
    found = []
    if trials:
        found = misfits(
            trials,
            evaluation.metrics if evaluation else (),
            named(evaluation.score) if evaluation else None,
            self_tests=pools is not None and pools.self_tests,
        )
    checks_rate = given.learning_rate_check is not None
    if trials and checks_rate and "learning_rate" not in type(trials.model).model_fields:
        found.append(
            f"learning_rate_check: the model {trials.model.type!r} has no setting 'learning_rate'"
        )
    if pools is None:
        return found
    if evaluation and evaluation.score == INFORMATIVE and not pools.self_tests:
        found.append(
            "evaluation.score: 'informative' takes the metrics that see self-tests: they are "
            "needed (pools.self_tests: true)"
        )
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


def _evolution_problems(given: _Sections, document: Mapping[str, Any]) -> list[str]:
    """Find stages of a chain that there cannot be, and pools that nobody makes."""
    found = []
    about = {"trials.model": document.get("trials"), "evolution": document.get("evolution")}
    for where, section in about.items():
        if REFERENCE in str(section) and document.get("scorer") is None:
            found.append(f"{where}: {REFERENCE} is used, but there is no section 'scorer'")
    if given.evolution is None or given.trials is None:
        return found
    found += contradictions_of(given.evolution, given.trials.model)
    known = _statistics(document)
    if known is not None:
        own = [one.name for one in given.pools.extra] if given.pools else []
        allowed = [*known, *own, "control", BEST]
        found += [
            f"evolution.stages[{index}].pool: no statistic gives {stage.pool!r}"
            f"{nearest(stage.pool.partition('/')[0], allowed)}; pools are those of "
            f"{', '.join(allowed)}"
            for index, stage in enumerate(given.evolution.stages)
            if stage.pool.partition("/")[0] not in allowed
        ]
        buckets = given.pools.bucket_names if given.pools else ()
        found += [
            f"evolution.stages[{index}].pool: {name!r} has no part {bucket!r}"
            f"{nearest(bucket, buckets)}; its parts are {', '.join(buckets)}"
            for index, stage in enumerate(given.evolution.stages)
            for name, _, bucket in [stage.pool.partition("/")]
            if buckets and name in known and bucket not in buckets
        ]
    return found


def _absent_problems(document: Mapping[str, Any]) -> list[str]:
    """Find sections that say something of trials where there are none."""
    if document.get("trials") is not None:
        return []
    return [
        f"{section}: is about trials, but there is no section 'trials'"
        for section in ("cost", "evolution", "learning_rate_check")
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
        if (absent := lacking(spec, MODALITIES[content], pairs=content == "pairs"))
    ]


def _section(kind: Any, value: Any) -> Any:
    """Read a part of the configuration; None if it has errors, which are reported elsewhere."""
    try:
        return TypeAdapter(kind).validate_python(value)
    except ValidationError:
        return None

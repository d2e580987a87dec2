"""What can be said of a run before anything is started or written: what is wrong, what is lost.

Problems of the configuration, of its workflow and of its data are found all at once, each with its
place, also where one of the three has problems already.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from djsandbox_ray.config import RunConfig, checked, read_document
from djsandbox_ray.cross_checks import contradictions, readable_sources
from djsandbox_ray.dataset.prepare import refuse_unusable
from djsandbox_ray.dataset.source import SOURCES, Shard, Source, content_of
from djsandbox_ray.errors import BadInput, MissingExtra
from djsandbox_ray.hooks.conduct import StudyHook
from djsandbox_ray.hooks.hook import HOOKS
from djsandbox_ray.hooks.plans import draw_of
from djsandbox_ray.hooks.recipe import WriteRecipe
from djsandbox_ray.hooks.scorer import TrainScorer, check_trusted
from djsandbox_ray.hooks.study import configured_family, refuse_small_draw
from djsandbox_ray.recipes.evidence import about_second, about_several
from djsandbox_ray.settings.sections import Component
from djsandbox_ray.stats.operators import SECOND, parse_process, statistic_names
from djsandbox_ray.trials.family import FAMILIES
from djsandbox_ray.workflows.language.jobs import Workflow
from djsandbox_ray.workflows.language.workflow import configured_workflow, drafted_workflow


def load_run(path: str, overrides: Sequence[str] = (), storage: str | None = None) -> RunConfig:
    """Read a configuration and check it; where it is wrong, its workflow and data with it.

    Where it is right, they are looked at by :func:`check_run`, once.

    Args:
        path: as for :func:`djsandbox_ray.config.load_config`, like the others.
        overrides: the same.
        storage: the same.

    Raises:
        BadInput: with one line per error.
    """
    return checked_run(read_document(path, overrides, storage), path)


def load_plan(path: str, overrides: Sequence[str] = (), storage: str | None = None) -> RunConfig:
    """Read a configuration that may be planned here and run elsewhere, and check it.

    Data, models and packages that are not here are no errors; :func:`lacking_here` tells them.

    Args:
        path: as for :func:`djsandbox_ray.config.load_config`, like the others.
        overrides: the same.
        storage: the same.

    Raises:
        BadInput: with one line per error, what is not here among them.
    """
    return planned_run(read_document(path, overrides, storage), path)


def planned_run(document: dict[str, Any], name: str) -> RunConfig:
    """Check a configuration as :func:`load_plan` does.

    Args:
        document: as YAML gives it.
        name: what it is called in messages.

    Raises:
        BadInput: with one line per error, what is not here among them.
    """
    try:
        return checked_run(document, name)
    except BadInput as error:
        try:
            return checked_run(document, name, elsewhere=True)
        except BadInput:
            raise error from None  # all at once


def lacking_here(config: RunConfig) -> list[str]:
    """Return what keeps a configuration from being run on this machine, a line each.

    Args:
        config: of :func:`load_plan`.

    Raises:
        BadInput: it is wrong on any machine, as data are that are here and cannot be used.
    """
    found = contradictions(config.model_dump(mode="json"))
    found += said(lambda: check_run(config))
    if found:
        check_run(config, elsewhere=True)
        if unusable := _Sources.of(config.sources).unusable:
            raise BadInput("\n".join(unusable))
    return "\n".join(found).splitlines()


def checked_run(document: dict[str, Any], name: str, *, elsewhere: bool = False) -> RunConfig:
    """Check a configuration; where it is wrong, its workflow and data with it.

    Args:
        document: as YAML gives it.
        name: what it is called in messages.
        elsewhere: it runs on other machines: models, packages and data are not looked for here.

    Raises:
        BadInput: with one line per error.
    """
    try:
        return checked(document, name, elsewhere=elsewhere)
    except BadInput as error:
        found = [str(error)]
    found += said(lambda: drafted_workflow(document))
    if not elsewhere:
        found += _Sources.of(readable_sources(document)).problems
    raise BadInput("\n".join(found))


def check_run(config: RunConfig, *, elsewhere: bool = False) -> None:
    """Check the workflow of a configuration and its data: whether it is there, and enough.

    Args:
        config: that was checked.
        elsewhere: the data are not here; how many rows there are may still be said by the
            configuration.

    Raises:
        BadInput: with one line per error.
    """
    found = said(lambda: configured_workflow(config))
    problems: list[str] = []
    rows: dict[str, int | None] = {}
    if not elsewhere:
        sources = _Sources.of(config.sources)
        problems, rows = sources.problems, sources.rows
        problems += _lost_benchmarks(config)
        if config.training:
            lost = FAMILIES.get(config.trials.model.type)(config.trials.model).lost()
            problems += [f"trials.model.{one}" for one in lost]
    if not found:
        workflow = configured_workflow(config)
        problems += said(*(partial(check, config, workflow, rows) for check in _CHECKS))
    if found or problems:
        raise BadInput("\n".join([*found, *problems]))


def foretold(config: RunConfig) -> list[str]:
    """Say what a recipe of this run cannot do as the statistics do, in a sentence each.

    Args:
        config: that was checked.
    """
    may_have_several = content_of(config.dataset) in ("conversations", "any")
    given = [item for item in config.operators if isinstance(item, dict)]
    compares = any(SECOND in (params or {}) for item in given for params in item.values())
    if not (may_have_several or compares):
        return []
    if not _has_job(configured_workflow(config), WriteRecipe):
        return []
    operators = parse_process(config.operators)
    names = [name for some in statistic_names(operators) for name in some]
    several = about_several(operators, names) if may_have_several else []
    return [*several, *about_second(operators, names)]


def evidence_notes(config: RunConfig) -> list[str]:
    """Say what the evidence of this run cannot tell, and why, in a sentence each.

    Args:
        config: that was checked.
    """
    notes = []
    seeds = len(config.training.seed_numbers) if config.training else None
    if seeds == 1:
        notes.append(
            "with one seed nothing tells how noisy single pools are: all are taken to be as noisy "
            "as the controls, and where they are not, false verdicts are more than alpha; 3 seeds "
            "tell"
        )
    if seeds == 2:
        notes.append(
            "two seeds tell little of how noisy single pools are: where pools are far noisier than "
            "the controls, false verdicts may be twice alpha; 3 seeds keep it"
        )
    scales = config.measuring.scales() if config.measuring else None
    return [*notes, scales] if scales else notes


def most_rows(section: Component) -> int | None:
    """Return how many samples a source has at most; None where only reading them would say.

    Raises:
        BadInput: the data are not there, or not of the promised form.
    """
    source: Source = SOURCES.get(section.type)(section)
    return _most(source, source.shards())


def _most(source: Source, shards: Sequence[Shard]) -> int | None:
    known = [shard.rows for shard in shards if shard.rows is not None]
    part = source.config.rows
    if len(known) < len(shards):
        return part[1] - part[0] if part else None
    return sum(known) if part is None else min(sum(known), part[1] - part[0])


def said(*checks: Callable[[], object]) -> list[str]:
    """Return what each of some checks says is wrong, a text of one or more lines each."""
    found = []
    for check in checks:
        try:
            check()
        except BadInput as error:
            found.append(str(error))
    return found


@dataclass
class _Sources:
    """What a look at sources has found, by their places in the configuration."""

    lost: list[str]
    """What is not there, or not of the promised form."""
    unusable: list[str]
    """What is there, and of which no sample can be used."""
    rows: dict[str, int | None]
    """How many samples the others have at most; None where that cannot be said without reading."""

    @property
    def problems(self) -> list[str]:
        """All that is wrong."""
        return [*self.lost, *self.unusable]

    @classmethod
    def of(cls, sections: Mapping[str, Component]) -> _Sources:
        """Look for the data of sources, and at the first sample of each."""
        found = cls([], [], {})
        for where, section in sections.items():
            source: Source = SOURCES.get(section.type)(section)
            wrong = found.lost
            try:
                shards = source.shards()
                rows, wrong = _most(source, shards), found.unusable
                refuse_unusable(shards, content_of(section))
            except MissingExtra as error:  # decodes videos
                found.lost.append(f"{where}: {error}")
            except BadInput as error:
                wrong.append(f"{where}: {error}")
            else:
                found.rows[where] = rows
        return found


def _lost_benchmarks(config: RunConfig) -> list[str]:
    """Look for the data of benchmarks, and say what is wrong with it."""
    problems = []
    for index, source in config.measuring.benchmarks().items() if config.measuring else ():
        try:
            source.shards()
        except BadInput as error:
            problems.append(f"evaluation.metrics[{index}]: {error}")
    return problems


def _check_draw(config: RunConfig, workflow: Workflow, rows: Mapping[str, int | None]) -> None:
    draw, share = draw_of(config, rows.get("dataset")), config.pools.draw_share
    if draw is not None and _has_job(workflow, StudyHook):
        pool = "of a bucket" if config.pools.size == "auto" else "of pools.size rows"
        drawn = f"a trial draws {{rows}} (pools.draw_share: {share:g}, {pool})"
        refuse_small_draw(configured_family(config), config.trials.budget, draw, drawn)


def _check_scorer(config: RunConfig, workflow: Workflow, rows: Mapping[str, int | None]) -> None:
    most = rows.get("scorer.dataset")
    if config.scorer is not None and most is not None and _has_job(workflow, TrainScorer):
        check_trusted(config.scorer, most)


_CHECKS = (_check_draw, _check_scorer)


def _has_job(workflow: Workflow, kind: type[Any]) -> bool:
    return any(issubclass(HOOKS.get(job.hook), kind) for job in workflow.jobs)

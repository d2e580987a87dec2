"""Trains a chain of models, each on a pool of its own: what a stage has trained teaches the next.

Seed s of a stage goes on from seed s of the stages before: the seeds are replicates of the whole
chain, and a change between two stages is taken within them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from djsandbox_ray.analysis.scale.fitting import seed_interval
from djsandbox_ray.analysis.together.winner import simplest_of_best
from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.hooks.conduct import StudyHook
from djsandbox_ray.hooks.hook import Planned, PlannedPart
from djsandbox_ray.hooks.study import Inputs, Study, configured_family, study_identity
from djsandbox_ray.identity import content_id
from djsandbox_ray.pools.arms import named_pools
from djsandbox_ray.records import (
    Dataset,
    Evaluation,
    Evolution,
    EvolutionMetric,
    EvolutionRow,
    Pool,
    Pools,
    Ranking,
    RankingRow,
    Scorer,
    StudyPlan,
)
from djsandbox_ray.reporting.evolution import evolution_markdown
from djsandbox_ray.settings.sections import Component
from djsandbox_ray.stats.operators import REFERENCE
from djsandbox_ray.trials.family import identity_of
from djsandbox_ray.trials.shared_folder import kept_model
from djsandbox_ray.trials.stages import total
from djsandbox_ray.trials.t2v.evolution import (
    BASE,
    BEST,
    EvolutionConfig,
    EvolutionStage,
    Link,
    stage_model,
)

_AVERAGES = {"quality": "vbench/quality", "semantic": "vbench/semantic", "total": "vbench/total"}
"""Columns of the table, and the metrics that are in them."""


@dataclass
class _Chain:
    """The stages that are done."""

    folders: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By stage, what :func:`stage_model` wants to know of what it has trained."""
    models: dict[str, str] = field(default_factory=dict)
    """By stage, the folder in the storage."""
    seeds: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """By stage, those whose trial came to its end."""
    measured: dict[str, dict[int, Mapping[str, float]]] = field(default_factory=dict)
    """By stage and seed, the metrics."""
    rows: list[EvolutionRow] = field(default_factory=list)


class Evolve(StudyHook):
    """Writes ``evolution.csv``, ``evolution_metrics.csv`` and ``evolution.md``.

    Beside those, per stage: ``stage_<name>_trials.parquet`` and ``..._curves.parquet``; in
    ``models/``, what each has trained.
    """

    VERSION = 2
    SECTIONS = ("trials", "evaluation", "evolution")

    def identity(self) -> Any:
        """The chain, and what decides the trials of each stage."""
        config, gpus = self.config, self.config.trials.resources.gpus_per_worker
        models = [
            identity_of(configured_family(config, model), gpus) for model in self._planned_models()
        ]
        return [study_identity(config), self._evolution.model_dump(mode="json"), models]

    def broken(self, output: Evolution) -> dict[str, str]:
        """What the stages have trained."""
        wrong: dict[str, str] = {}
        for stage, folder in output.models.items():
            for seed in output.seeds[stage]:
                wrong |= kept_model(self.storage, folder, seed).broken()
        return wrong

    def ahead(self, **_: Any) -> Planned:
        """One pool with every seed, stage after stage."""
        seeds = len(self.config.trials.seed_numbers)
        parts = []
        for stage, model in zip(self._evolution.stages, self._planned_models(), strict=True):
            family, budget = configured_family(self.config, model), self._budget(stage)
            try:
                flops = family.flops(budget)
            except BadInput:  # the plan says that the base is not on this machine
                flops = None
            parts.append(
                PlannedPart(
                    f"{stage.name} on {stage.pool}",
                    seeds,
                    seeds * total(family.stages(budget)),
                    None if flops is None else seeds * flops,
                )
            )
        counted = [part.flops for part in parts if part.flops is not None]
        return Planned(
            sum(part.trials for part in parts),
            sum(part.samples for part in parts),
            sum(counted) if len(counted) == len(parts) else None,
            parts=tuple(parts),
        )

    def run(
        self,
        dataset: Dataset,
        evaluation: Evaluation,
        pools: Pools,
        scorer: Scorer | None = None,
        ranking: Ranking | None = None,
    ) -> Evolution:
        """Train stage after stage, and set them side by side.

        Args:
            dataset: that pools are made of.
            evaluation: what models are measured on.
            pools: among which each stage has its own.
            scorer: ``${scorer}`` in the settings of rewards.
            ranking: of the pools: says which is ``best``.

        Raises:
            BadInput: a stage's pool is not there, or its model cannot be made so.
            SandboxError: no trial of a stage came to its end.
        """
        evolution, chain = self._evolution, _Chain()
        rows = self.rows(RankingRow, ranking)
        chosen = [self._pool(stage, pools, rows) for stage in evolution.stages]
        replaced = {REFERENCE: self.storage.uri(scorer.path)} if scorer else {}
        for stage, link, pool in zip(evolution.stages, evolution.links(), chosen, strict=True):
            inputs = Inputs(dataset, evaluation, replace(pools, pools=(pool,)))
            model = stage_model(self.config.trials.model, stage, link, chain.folders, replaced)
            self._train(chain, stage, link, inputs, model)
        return self._written(chain)

    @property
    def _evolution(self) -> EvolutionConfig:
        if self.config.evolution is None:
            raise BadInput("evolution: the configuration has no such section, which is needed here")
        return self.config.evolution

    def _planned_models(self) -> list[Component]:
        """Return the models of all stages, as they are known before any is trained."""
        evolution = self._evolution
        names = [stage.name for stage in evolution.stages]
        folders = {name: {"path": f"{name}/{{seed}}", "id": name} for name in names}
        links = zip(evolution.stages, evolution.links(), strict=True)
        return [stage_model(self.config.trials.model, *one, folders) for one in links]

    def _budget(self, stage: EvolutionStage) -> int:
        return stage.budget or self.config.trials.budget

    def _pool(self, stage: EvolutionStage, pools: Pools, rows: Sequence[RankingRow]) -> Pool:
        """Return the pool that a stage is trained on."""
        if stage.pool != BEST:
            try:
                return named_pools(pools, [stage.pool])[0]
            except BadInput as error:
                raise BadInput(f"evolution: stage {stage.name!r}: {error}") from None
        if not rows:
            raise BadInput(
                f"evolution: stage {stage.name!r}: pool: {BEST}: the workflow has no ranking of "
                "pools before this job"
            )
        best = simplest_of_best(rows, {pool.id: pool.parts or (pool.id,) for pool in pools.pools})
        if best is None:
            raise BadInput(
                f"evolution: stage {stage.name!r}: pool: {BEST}: no pool was called better; name "
                "one, such as control/0 for random rows"
            )
        self.note(f"evolution: {stage.name} is trained on {best[0].pool}: {best[1]}")
        return named_pools(pools, [best[0].pool])[0]

    def _train(
        self, chain: _Chain, stage: EvolutionStage, link: Link, inputs: Inputs, model: Component
    ) -> None:
        """Train one stage with all seeds whose earlier stages are there."""
        seeds = tuple(
            seed
            for seed in self.config.trials.seed_numbers
            if all(seed in chain.seeds[one] for one in {link.init, link.teacher} if one != BASE)
        )
        study = Study(
            self.context,
            StudyPlan(f"stage_{stage.name}", seeds),
            inputs,
            model,
            self._budget(stage),
            keep=True,
        )
        measured = {seed: found for (_, seed), found in self.measure(study).items()}
        if not measured:
            raise SandboxError(f"evolution: no trial of the stage {stage.name!r} came to its end")
        chain.models[stage.name] = study.models
        chain.folders[stage.name] = {
            "path": f"{self.storage.uri(study.models)}/{{seed}}",
            "id": study.models.rpartition("/")[2],
        }
        chain.seeds[stage.name] = tuple(measured)
        chain.measured[stage.name] = measured
        (pool,) = inputs.pools.pools
        objective = getattr(model, "objective", None)
        weights = getattr(objective, "weights", None)
        chain.rows.append(
            EvolutionRow(
                stage.name,
                pool.id,
                pool.draw_size or inputs.pools.draw_size,
                link.init,
                link.teacher if weights is not None else "",
                self_distillation=link.taught,
                real_loss=weights is not None and weights.real > 0,
                self_evolution=link.evolved,
                samples=study.rungs[-1],
                seeds=len(measured),
                **{name: _mean(measured, metric) for name, metric in _AVERAGES.items()},
            )
        )

    def _written(self, chain: _Chain) -> Evolution:
        """Write the tables."""
        metrics = self._metrics(chain)
        path, text = self.write_rows(EvolutionRow, "evolution.csv", chain.rows)
        more, listed = self.write_rows(EvolutionMetric, "evolution_metrics.csv", metrics)
        places = {name: self.storage.uri(folder) for name, folder in chain.models.items()}
        page = evolution_markdown(self.config.name, chain.rows, metrics, places)
        written = self.write_bytes("evolution.md", page.encode())
        return Evolution(
            content_id("evolution", text, listed, chain.models),
            path,
            more,
            written,
            chain.models,
            chain.seeds,
        )

    def _metrics(self, chain: _Chain) -> list[EvolutionMetric]:
        """Return the metrics that are shown, with what each stage has changed."""
        averages, score = set(_AVERAGES.values()), self.config.evaluation.score_metrics()
        wanted = self._evolution.metrics or tuple(
            name for name in score.chosen(_names(chain)) if name not in averages
        )
        if lacking := [name for name in wanted if name not in _names(chain)]:
            raise BadInput(
                f"evolution.metrics: no evaluator gives {', '.join(lacking)} (given: "
                f"{', '.join(_names(chain))})"
            )
        found = []
        before: dict[int, Mapping[str, float]] = {}
        for stage, measured in chain.measured.items():
            for name in wanted:
                values = {seed: one[name] for seed, one in measured.items()}
                changes = [
                    value - before[seed][name] for seed, value in values.items() if seed in before
                ]
                found.append(
                    EvolutionMetric(
                        stage,
                        name,
                        *seed_interval(np.array(list(values.values()))),
                        *seed_interval(np.array(changes)),
                        seeds=len(values),
                    )
                )
            before = measured
        return found


def _names(chain: _Chain) -> tuple[str, ...]:
    """Return the metrics that models were measured by."""
    return tuple(next(iter(next(iter(chain.measured.values())).values())))


def _mean(measured: Mapping[int, Mapping[str, float]], metric: str) -> float:
    values = [one[metric] for one in measured.values() if metric in one]
    return sum(values) / len(values) if values else math.nan

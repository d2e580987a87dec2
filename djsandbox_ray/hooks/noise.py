"""Trains the controls first: how much they scatter says what the run can find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from djsandbox_ray.analysis.planning.noise import NoiseFloor
from djsandbox_ray.analysis.planning.sight import blind
from djsandbox_ray.analysis.verdicts.design import Design
from djsandbox_ray.analysis.verdicts.ranking import control_scores, known_truth
from djsandbox_ray.dataset.source import SOURCES, stamp_of
from djsandbox_ray.errors import PlanRefused
from djsandbox_ray.hooks.conduct import StudyHook
from djsandbox_ray.hooks.hook import Planned
from djsandbox_ray.hooks.plans import NOISE, first_controls, spoils_of
from djsandbox_ray.hooks.results import scoring
from djsandbox_ray.hooks.study import Inputs, Study, configured_family, study_identity
from djsandbox_ray.identity import content_id
from djsandbox_ray.records import (
    Dataset,
    Evaluation,
    Noise,
    PoolKind,
    Pools,
    StudyPlan,
    TrialRecord,
    TrialState,
)
from djsandbox_ray.reporting.method import blind_lines, noise_lines
from djsandbox_ray.reporting.ranking import Unit
from djsandbox_ray.trials.family import identity_of


class MeasureNoise(StudyHook):
    """An A/A test: writes ``noise.json``. Its trials are the controls of the study that follows."""

    VERSION = 4

    def identity(self) -> Any:
        """The trials, how scores are made of them, and what must be seen where that is said."""
        wanted = self.config.noise.model_dump(exclude_defaults=True)
        return [
            study_identity(self.config),
            scoring(self.config, "alpha"),
            *([wanted] if wanted else []),
        ]

    def comparable(self) -> str:
        """Return what two runs share if the noise of one tells about the other."""
        config = self.config
        model = identity_of(configured_family(config), config.trials.resources.gpus_per_worker)
        evaluation = scoring(config, "metrics")
        train = SOURCES.get(config.dataset.type)(config.dataset)
        stamps = [stamp_of(source) for source in (train, *config.evaluation.sources())]
        return content_id("noise", model, config.trials.budget, evaluation, stamps)

    def ahead(self, pools: Pools | Planned, **_: Any) -> Planned:
        """The controls of the study of all pools, with every seed; see :func:`known_truth`."""
        arms = first_controls(pools, self.config)
        if self.config.evaluation.score_metrics().informative:
            arms += len(spoils_of(self.config))
        planned = self.planned(self._plan, arms)
        return replace(planned, part_of_first=True)

    def run(self, dataset: Dataset, evaluation: Evaluation, pools: Pools) -> Noise:
        """Train the controls and say which effect the study can detect.

        Raises:
            PlanRefused: only ones greater than ``noise.stop_above``.
        """
        config, plan = self.config, self._plan
        arms = tuple(known_truth(pools.pools, config.evaluation.score_metrics()))
        inputs = Inputs(dataset, evaluation, replace(pools, pools=arms))
        records, _ = self.conduct(Study(self.context, plan, inputs))
        controls = control_scores(
            pools.pools,
            records,
            seeds=plan.seeds,
            metrics=config.evaluation.score_metrics(),
            aggregate=config.evaluation.kind,
        )
        design = Design(
            pools=sum(pool.kind is not PoolKind.CONTROL for pool in pools.pools),
            controls=len(controls),
            seeds=len(config.trials.seed_numbers),
            draw_share=pools.draw_size / pools.size,
            bucket_share=pools.size / pools.eligible,
        )
        floor = NoiseFloor.from_controls(controls, design, config.evaluation.alpha)
        content = {"comparable": self.comparable(), "noise": floor.to_json()}
        path = self.write_sealed("noise.json", content)
        unit, stopping = Unit.of(config.evaluation.kind), config.trials.early_stopping
        for line in noise_lines(floor, unit, stopping=stopping.type != "none"):
            self.note(f"noise: {line}")
        self._look(floor, unit, _finals(records, pools))
        return Noise(content_id("noise", pools.id, content), path)

    def _look(self, floor: NoiseFloor, unit: Unit, finals: Sequence[Mapping[str, float]]) -> None:
        """Say so where the study will not see what is of interest, and end the run if it shall."""
        wanted, score = self.config.noise, self.config.evaluation.score_metrics()
        names = score.chosen(finals[0])
        scores = [{name: final[name] for name in names} for final in finals]
        known = {name: score.metric(name).chance for name in names}
        chance = {name: level for name, level in known.items() if level is not None}
        found = blind(floor, wanted.of_interest(unit is Unit.SD), scores, chance)
        if found is not None:
            for line in blind_lines(found, floor, unit):
                self.context.caveat(f"noise: {line}")
        if wanted.stop_above is not None and floor.detectable.value > wanted.stop_above:
            raise PlanRefused(
                f"noise.stop_above is {wanted.stop_above:g} ({unit.size(wanted.stop_above)}), and "
                f"the study finds {unit.size(floor.detectable.value)}: the run ends here; its "
                "controls are kept, and used again where they fit another design"
            )

    @property
    def _plan(self) -> StudyPlan:
        return StudyPlan(NOISE, self.config.trials.seed_numbers, optional=False)


def _finals(records: Sequence[TrialRecord], pools: Pools) -> list[Mapping[str, float]]:
    """Return the metrics of completed controls: what others reported may be of other formulas."""
    controls = {pool.id for pool in pools.pools if pool.kind is PoolKind.CONTROL}
    return [
        record.final.metrics
        for record in records
        if record.spec.pool in controls and record.state is TrialState.COMPLETED and record.final
    ]

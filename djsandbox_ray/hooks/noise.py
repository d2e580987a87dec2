"""Trains the controls first: how much they scatter says what the run can find."""

from __future__ import annotations

from typing import Any

from djsandbox_ray.analysis.planning.noise import NoiseFloor
from djsandbox_ray.analysis.verdicts.design import Design
from djsandbox_ray.analysis.verdicts.ranking import control_scores
from djsandbox_ray.dataset.source import SOURCES
from djsandbox_ray.hooks.bounds import first_controls
from djsandbox_ray.hooks.hook import Hook, Planned
from djsandbox_ray.hooks.study import Inputs, Study, configured_family, study_identity
from djsandbox_ray.identity import content_id
from djsandbox_ray.records import Dataset, Noise, PoolKind, Pools, Statistics
from djsandbox_ray.reporting.method import noise_lines
from djsandbox_ray.reporting.ranking import Unit
from djsandbox_ray.trials.stopping.stopping import StoppingConfig


class MeasureNoise(Hook):
    """An A/A test: writes ``noise.json``. Its trials are the controls of the study that follows."""

    def identity(self) -> Any:
        """The trials, and how scores are made of them."""
        evaluation = self.config.evaluation
        return [
            study_identity(self.config),
            evaluation.model_dump(mode="json", include={"score", "aggregate", "alpha"}),
        ]

    def comparable(self) -> str:
        """Return what two runs share if the noise of one tells about the other."""
        config = self.config
        family = configured_family(config)
        evaluation = config.evaluation.model_dump(
            mode="json", include={"metrics", "score", "aggregate"}
        )
        sources = (config.dataset, config.evaluation.dataset)
        stamps = [SOURCES.get(source.type)(source).stamp() for source in sources]
        return content_id("noise", family.identity(), config.trials.budget, evaluation, stamps)

    def ahead(self, pools: Pools | Planned, **_: Any) -> Planned:
        """The controls of the study of all pools, with every seed."""
        config = self.config
        trials = first_controls(pools, config) * config.trials.seeds
        return Planned(trials, trials * config.trials.budget, part_of_first=True)

    def run(
        self, dataset: Dataset, evaluation: Dataset, statistics: Statistics, pools: Pools
    ) -> Noise:
        """Train the controls and say which effect the study can detect."""
        config = self.config
        rungs = config.trials.early_stopping.rungs
        study = Study(
            self.context,
            "noise",
            Inputs(dataset, evaluation, statistics, pools),
            range(config.trials.seeds),
            StoppingConfig(type="none", rungs=rungs),
            kinds=(PoolKind.CONTROL,),
        )
        records = study.run()
        self._crashed = study.write(records).crashed
        self.account(study.cost(records))
        controls = control_scores(
            pools.pools,
            records,
            seeds=study.seeds,
            metrics=config.evaluation.score,
            aggregate=config.evaluation.aggregate,
        )
        design = Design(
            pools=sum(pool.kind is not PoolKind.CONTROL for pool in pools.pools),
            controls=len(controls),
            seeds=config.trials.seeds,
            draw_share=pools.draw_size / pools.size,
            bucket_share=pools.size / pools.eligible,
        )
        floor = NoiseFloor.from_controls(controls, design, config.evaluation.alpha)
        content = {"comparable": self.comparable(), "noise": floor.to_json()}
        path = f"{self.context.folder}/noise.json"
        self.context.storage.write_json(path, content)
        unit, stopping = Unit.of(config.evaluation.aggregate), config.trials.early_stopping
        for line in noise_lines(floor, unit, stopping=stopping.type != "none"):
            self.context.progress.note(f"noise: {line}")
        return Noise(content_id("noise", pools.id, content), path)

    def keep(self, output: Noise) -> bool:
        """Keep the outcome unless controls crashed: the same command tries those again."""
        return self._crashed == 0

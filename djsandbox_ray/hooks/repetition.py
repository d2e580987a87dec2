"""Repetition against diversity: the top pool again and again, or new rows, at equal samples seen.

For every factor r a training sees r times the rows of a draw from the top pool: these rows r times
("repeat"), as many different rows of the next layers ("expand"), or random ones ("random").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from djsandbox_ray.analysis.scale.repetition import FILLINGS, Fillings
from djsandbox_ray.analysis.together.winner import TopPool, top_pool
from djsandbox_ray.analysis.verdicts.grid import Key
from djsandbox_ray.errors import BadInput
from djsandbox_ray.hooks.conduct import StudyHook
from djsandbox_ray.hooks.hook import Planned
from djsandbox_ray.hooks.plans import UNREAD, largest_draw, scaling_seeds
from djsandbox_ray.hooks.results import yardstick
from djsandbox_ray.hooks.study import Inputs, Study, study_identity, trial_samples
from djsandbox_ray.hooks.writing import like, write_pools
from djsandbox_ray.identity import content_id
from djsandbox_ray.pools.layers import Layers
from djsandbox_ray.records import (
    Dataset,
    Evaluation,
    Pool,
    Pools,
    Ranking,
    RankingRow,
    Repetition,
    RepetitionRow,
    StudyPlan,
    Trials,
)
from djsandbox_ray.reporting.curves import repetition_chart
from djsandbox_ray.reporting.figures import png
from djsandbox_ray.reporting.ranking import Unit

_FACTORS = [1, 2, 4, 6, 8, 10]


class RepeatOrExpand(StudyHook):
    """Writes ``repetition.csv``, ``repetition.json``, the figure, and what it trained on.

    Beside those: ``repetition_assignments.parquet``, ``repetition_pools.json`` and, per factor,
    ``repetition_x<factor>_trials.parquet`` and ``..._curves.parquet``.
    """

    VERSION = 3

    def identity(self) -> Any:
        """The trials, and how scores are made."""
        return [study_identity(self.config), scaling_seeds(self.config).start]

    def ahead(
        self,
        dataset: Dataset | Planned,
        pools: Pools | Planned | None,
        factors: list[int] = _FACTORS,
        unit: int = 0,
        seeds: int = 0,
        **_: Any,
    ) -> Planned:
        """All strategies at all factors with every seed."""
        if pools is None:
            return Planned()
        self._check(factors, unit, seeds)
        each = len(FILLINGS) * len(scaling_seeds(self.config, seeds))
        trials = each * len(set(factors))
        rows = unit or pools.draw_size or largest_draw(self.config, dataset)
        if rows is None:
            return Planned(trials, unknown=UNREAD)
        seen = sum(trial_samples(self.config, factor * rows) for factor in set(factors))
        return Planned(trials, each * seen)

    def run(
        self,
        dataset: Dataset,
        evaluation: Evaluation,
        pools: Pools | None,
        ranking: Ranking | None,
        first: Trials,
        factors: list[int] = _FACTORS,
        unit: int = 0,
        seeds: int = 0,
    ) -> Repetition | None:
        """Train all strategies at all factors, and say up to which repetition pays.

        Args:
            dataset: the samples.
            evaluation: what models are measured on.
            pools: the pyramid.
            ranking: of the pyramid: the simplest of its best is the top pool, as for the recipe;
                without, the one of all parts is.
            first: the study whose controls make the unit of the effects.
            factors: how many times the rows of a draw are seen, each 1 or more.
            unit: rows of a draw from the top pool; 0: those of the pyramid's draws.
            seeds: trials of each, with seeds that had no part in choosing the top pool; 0: as many
                as the run has.

        Returns:
            None where there is no pyramid.

        Raises:
            BadInput: numbers that are out of bounds; says which.
        """
        if pools is None:
            self.note("repetition: no pools were combined")
            return None
        self._check(factors, unit, seeds)
        top = top_pool(pools, self.rows(RankingRow, ranking))
        arms = self._arms(pools, top.pool, sorted(set(factors)), unit or pools.draw_size)
        chosen = scaling_seeds(self.config, seeds)
        measured = self._train(Inputs(dataset, evaluation, arms), sorted(set(factors)), chosen)
        by_id = {pool.id: pool.draw_size or arms.draw_size for pool in arms.pools}
        different = {
            name: {factor: by_id[f"{name}/x{factor}"] for factor in factors} for name in FILLINGS
        }
        ruler = yardstick(self.context, first)
        found = Fillings.of(
            arms.draw_size,
            arms,
            different,
            measured,
            chosen,
            ruler,
            self.config.evaluation.score_metrics(),
        )
        return self._written(top, found, chosen)

    def _check(self, factors: Sequence[int], unit: int, seeds: int) -> None:
        if not factors or min(factors) < 1:
            raise BadInput(f"repetition: factors are {factors}; numbers of 1 or more are needed")
        for name, value in (("unit", unit), ("seeds", seeds)):
            if value < 0:
                raise BadInput(f"repetition: {name} is {value}; 0 or more is needed")

    def _arms(self, pools: Pools, top: Pool, factors: Sequence[int], unit: int) -> Pools:
        """Make the pools of all strategies, and write which rows they hold."""
        batch = getattr(self.config.trials.model, "batch_size", 1)
        if unit < batch:
            raise BadInput(
                f"repetition: a draw has {unit} rows, less than one batch of {batch}: with factor "
                "1 there would be nothing to train; a larger unit or a smaller batch is needed"
            )
        table = self.storage.read_table(pools.assignments)
        # Read by name where they are needed: a pyramid has many columns.
        wanted = {p.column for p in pools.pools if len(p.parts) == 1} | {top.column}
        codes = {name: table[name].to_numpy() for name in wanted}
        layers = Layers(pools, top.id, table["row_id"].to_numpy(), codes)
        made = [arm for factor in factors for arm in layers.strategies(factor, unit).values()]
        arms = like(pools, [pool for pool, _ in made], size=top.size, draw_size=unit)
        columns = {pool.column: own for pool, own in made}
        columns = {"row_id": table["row_id"], **columns}
        return write_pools(self, arms, columns, of=pools.id, name="repetition")

    def _train(
        self, inputs: Inputs, factors: Sequence[int], seeds: range
    ) -> dict[Key, Mapping[str, float]]:
        """Train factor by factor; return the final metrics by pool and seed."""
        measured: dict[Key, Mapping[str, float]] = {}
        for factor in factors:
            own = tuple(p for p in inputs.pools.pools if p.id.endswith(f"/x{factor}"))
            study = Study(
                self.context,
                StudyPlan(f"repetition_x{factor}", tuple(seeds)),
                replace(inputs, pools=replace(inputs.pools, pools=own)),
                budget=factor * inputs.pools.draw_size,
            )
            measured |= self.measure(study)
        return measured

    def _written(self, top: TopPool, found: Fillings, seeds: range) -> Repetition:
        """Write the table, what it says, and the figure."""
        rows, said = found.table(), {"top": top.pool.id, "seeds": [*seeds], **found.findings()}
        said["sentences"] = [top.sentence, *said["sentences"]]
        for line in said["sentences"]:
            self.note(f"repetition: {line}")
        unit = Unit.of(self.config.evaluation.kind)
        title = f"Repetition against diversity: {top.pool.id}"
        figure = png(repetition_chart(rows, title=title, unit=unit))
        path, text = self.write_rows(RepetitionRow, "repetition.csv", rows)
        law = self.write_sealed("repetition.json", said)
        shown = self.write_bytes("figures/repetition.png", figure)
        return Repetition(content_id("repetition", text, said), path, law, shown)

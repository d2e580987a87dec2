"""Repetition against diversity: the top pool again and again, or new rows, at equal samples seen.

For every factor r a training sees r times the rows of a draw from the top pool: these rows r times
("repeat"), as many different rows of the next layers ("expand"), or random ones ("random").
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from djsandbox_ray.analysis.scale.repetition import FILLINGS, Fillings
from djsandbox_ray.analysis.together.winner import TopPool, top_pool
from djsandbox_ray.analysis.verdicts.grid import Key, completed_metrics
from djsandbox_ray.errors import BadInput
from djsandbox_ray.hooks.bounds import UNREAD, largest_draw
from djsandbox_ray.hooks.hook import Hook, Planned
from djsandbox_ray.hooks.results import yardstick
from djsandbox_ray.hooks.study import Inputs, Study, scaling_seeds, study_identity
from djsandbox_ray.identity import content_id
from djsandbox_ray.ledger.cost import together
from djsandbox_ray.pools.layers import Layers
from djsandbox_ray.pools.serialise import to_json
from djsandbox_ray.records import (
    Dataset,
    Pool,
    Pools,
    Ranking,
    RankingRow,
    Repetition,
    RepetitionRow,
    Statistics,
    Trials,
)
from djsandbox_ray.reporting.curves import repetition_chart
from djsandbox_ray.reporting.figures import png
from djsandbox_ray.reporting.ranking import Unit
from djsandbox_ray.trials.stopping.stopping import StoppingConfig

_FACTORS = [1, 2, 4, 6, 8, 10]


class RepeatOrExpand(Hook):
    """Writes ``repetition.csv``, ``repetition.json``, the figure, and what it trained on.

    Beside those: ``repetition_assignments.parquet``, ``repetition_pools.json`` and, per factor,
    ``repetition_x<factor>_trials.parquet`` and ``..._curves.parquet``.
    """

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
        return Planned(trials, each * sum(set(factors)) * rows)

    def run(
        self,
        dataset: Dataset,
        evaluation: Dataset,
        statistics: Statistics,
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
            evaluation: the trusted split.
            statistics: that pools were made of.
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
            self._note("no pools were combined")
            return None
        self._check(factors, unit, seeds)
        rows = self.context.storage.read_rows(RankingRow, ranking.path) if ranking else []
        top = top_pool(pools, rows)
        arms = self._arms(pools, top.pool, sorted(set(factors)), unit or pools.draw_size)
        inputs = Inputs(dataset, evaluation, statistics, arms)
        chosen = scaling_seeds(self.config, seeds)
        measured = self._train(inputs, sorted(set(factors)), chosen)
        by_id = {pool.id: pool.draw_size or arms.draw_size for pool in arms.pools}
        different = {
            name: {factor: by_id[f"{name}/x{factor}"] for factor in factors} for name in FILLINGS
        }
        ruler = yardstick(self.context, first)
        found = Fillings.of(arms.draw_size, arms, different, measured, chosen, ruler)
        return self._written(top, found, chosen)

    def keep(self, output: Repetition | None) -> bool:
        """Keep the outcome unless trials crashed: the same command tries those again."""
        return output is None or self._crashed == 0

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
        storage, folder = self.context.storage, self.context.folder
        table = storage.read_table(pools.assignments)
        # Read by name where they are needed: a pyramid has many columns.
        wanted = {p.column for p in pools.pools if len(p.parts) == 1} | {top.column}
        codes = {name: table[name].to_numpy() for name in wanted}
        layers = Layers(pools, top.id, table["row_id"].to_numpy(), codes)
        made = [arm for factor in factors for arm in layers.strategies(factor, unit).values()]
        arms = Pools(
            id="",
            assignments=f"{folder}/repetition_assignments.parquet",
            pools=tuple(pool for pool, _ in made),
            size=top.size,
            draw_size=unit,
            eligible=pools.eligible,
            seed=pools.seed,
        )
        arms = replace(arms, id=content_id("pools", pools.id, to_json(arms)))
        columns = {pool.column: own for pool, own in made}
        storage.write_table(arms.assignments, pa.table({"row_id": table["row_id"], **columns}))
        storage.write_json(f"{folder}/repetition_pools.json", to_json(arms))
        return arms

    def _train(
        self, inputs: Inputs, factors: Sequence[int], seeds: range
    ) -> dict[Key, Mapping[str, float]]:
        """Train factor by factor; return the final metrics by pool and seed."""
        stopping = StoppingConfig(type="none", rungs=self.config.trials.early_stopping.rungs)
        measured: dict[Key, Mapping[str, float]] = {}
        costs, self._crashed = [], 0
        for factor in factors:
            own = tuple(p for p in inputs.pools.pools if p.id.endswith(f"/x{factor}"))
            study = Study(
                self.context,
                f"repetition_x{factor}",
                replace(inputs, pools=replace(inputs.pools, pools=own)),
                seeds,
                stopping,
                budget=factor * inputs.pools.draw_size,
                optional=True,
            )
            records = study.run()
            costs.append(study.cost(records))
            self.account(together(costs))
            self._crashed += study.write(records).crashed
            measured |= completed_metrics({(r.spec.pool, r.spec.seed): r for r in records})
        return measured

    def _written(self, top: TopPool, found: Fillings, seeds: range) -> Repetition:
        """Write the table, what it says, and the figure."""
        storage, folder = self.context.storage, self.context.folder
        rows, said = found.table(), {"top": top.pool.id, "seeds": [*seeds], **found.findings()}
        said["sentences"] = [top.sentence, *said["sentences"]]
        for line in said["sentences"]:
            self._note(line)
        unit = Unit.of(self.config.evaluation.aggregate)
        title = f"Repetition against diversity: {top.pool.id}"
        figure = png(repetition_chart(rows, title=title, unit=unit))
        paths = (
            f"{folder}/repetition.csv",
            f"{folder}/repetition.json",
            f"{folder}/figures/repetition.png",
        )
        text = storage.write_rows(RepetitionRow, paths[0], rows)
        storage.write_json(paths[1], said)
        storage.write_bytes(paths[2], figure)
        return Repetition(content_id("repetition", text, said), *paths)

    def _read(self, path: str) -> str:
        return self.context.storage.read_bytes(path).decode()

    def _note(self, line: str) -> None:
        self.context.progress.note(f"repetition: {line}")

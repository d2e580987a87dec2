"""How the errors of the top pool and of the controls fall with compute, and what that promises.

Every budget is trained on its own. The reports at the rungs of the longest training would be
cheaper, but their learning rate has not come down yet: what such a training has reached on its way
is worse than what one that ends there reaches, by an amount that changes with the rung.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import ValidationError

from djsandbox_ray.analysis.scale.compute_scaling import (
    CONTROLS,
    ComputeScaling,
    Draws,
    compute_scaling,
    scaling_sentences,
)
from djsandbox_ray.analysis.scale.fitting import error_of, seed_interval
from djsandbox_ray.analysis.together.winner import TopPool, top_pool
from djsandbox_ray.analysis.verdicts.grid import Key
from djsandbox_ray.errors import BadInput
from djsandbox_ray.hooks.conduct import StudyHook
from djsandbox_ray.hooks.hook import Planned
from djsandbox_ray.hooks.plans import scaling_seeds
from djsandbox_ray.hooks.study import Inputs, Study, configured_family, study_identity
from djsandbox_ray.identity import content_id
from djsandbox_ray.records import (
    Dataset,
    Evaluation,
    Pool,
    PoolKind,
    Pools,
    Ranking,
    RankingRow,
    Scaling,
    ScalingRow,
    StudyPlan,
)
from djsandbox_ray.reporting.curves import Curve, scaling_chart
from djsandbox_ray.reporting.figures import png
from djsandbox_ray.settings.sections import Component
from djsandbox_ray.trials.stages import total

_BUDGETS = [0.25, 0.5, 1.0]
_ALL_MODELS: list[str] = []
_FAR = 10
"""Without a full run in the configuration, it is this many times the largest budget."""


class ScaleCompute(StudyHook):
    """Writes ``scaling.csv``, ``scaling.json`` and the figure.

    Beside those, per model and budget: ``scaling_<model>_<budget>_trials.parquet`` and
    ``..._curves.parquet``.
    """

    VERSION = 2

    def identity(self) -> Any:
        """The trials, how scores are made, and how long the full run is."""
        cost = self.config.cost
        seeds = list(scaling_seeds(self.config))
        return [study_identity(self.config), seeds, cost and cost.full_samples]

    def ahead(
        self,
        pools: Pools | Planned | None,
        budgets: list[float] = _BUDGETS,
        models: list[str] = _ALL_MODELS,
        arms: int = 3,
        **_: Any,
    ) -> Planned:
        """The top pool and some controls with every seed, at all budgets, of all models."""
        if pools is None:
            return Planned()
        named, budget, config = self._models(models).values(), self._budgets(budgets), self.config
        each = (1 + arms) * len(scaling_seeds(config))
        families = [configured_family(config, model) for model in named]
        samples = sum(total(family.stages(one)) for family in families for one in budget)
        counted = [family.flops(one) for family in families for one in budget]
        flops = None if None in counted else each * sum(one or 0.0 for one in counted)
        return Planned(each * len(counted), each * samples, flops)

    def run(
        self,
        dataset: Dataset,
        evaluation: Evaluation,
        pools: Pools | None,
        ranking: Ranking | None,
        budgets: list[float] = _BUDGETS,
        models: list[str] = _ALL_MODELS,
        arms: int = 3,
        target: float = 0,
    ) -> Scaling | None:
        """Train the top pool and some controls at several budgets, and fit power laws.

        Args:
            dataset: the samples.
            evaluation: what models are measured on.
            pools: the pyramid.
            ranking: of the pyramid: the simplest of its best is the top pool, as for the recipe;
                without, the one of all parts is.
            budgets: fractions of ``trials.budget``; above 1 trains longer.
            models: architectures in place of ``trials.model.arch``; none: the configured one.
            arms: control arms, the first ones of the pyramid.
            target: samples of the full run; 0: ``cost.full_samples``, or ten times the largest
                budget.

        Returns:
            None where there is no pyramid.

        Raises:
            BadInput: an unknown architecture, or numbers that are out of bounds; says which.
        """
        if pools is None:
            self.note("scaling: no pools were combined")
            return None
        components = self._models(models)
        samples = self._budgets(budgets)
        top = top_pool(pools, self.rows(RankingRow, ranking))
        own = replace(pools, pools=(top.pool, *_controls(pools, arms)))
        inputs = Inputs(dataset, evaluation, own)
        full = self._full_run(target, samples)
        table: list[ScalingRow] = []
        found: dict[str, ComputeScaling] = {}
        for name, model in components.items():
            lines, found[name] = self._scaled(name, model, inputs, samples, full)
            table += lines
        return self._written(top, table, found, full)

    def _models(self, names: Sequence[str]) -> dict[str, Component]:
        """Return the models by name: the configured one with another architecture each."""
        config = self.config.trials.model
        if not names:
            return {str(getattr(config, "arch", config.type)): config}
        if "arch" not in type(config).model_fields:
            raise BadInput(f"scaling: models {names}: the model {config.type!r} has no 'arch'")
        if len({_slug(name) for name in names}) < len(names):
            raise BadInput(f"scaling: models {names}: two of them have one name")
        found = {}
        for name in names:
            try:
                found[name] = type(config).model_validate({**config.model_dump(), "arch": name})
            except ValidationError as error:
                raise BadInput(f"scaling: models: {error.errors()[0]['msg']}") from None
        return found

    def _budgets(self, fractions: Sequence[float]) -> list[int]:
        """Return the samples of every training, rising."""
        whole = self.config.trials.budget
        batch = getattr(self.config.trials.model, "batch_size", 1)
        if not fractions or not all(math.isfinite(f) and f > 0 for f in fractions):
            raise BadInput(f"scaling: budgets are {fractions}; fractions above 0 are needed")
        samples = sorted(round(fraction * whole) for fraction in fractions)
        if len(set(samples)) < len(samples):
            raise BadInput(f"scaling: budgets {fractions} of {whole} samples: two are the same")
        if samples[0] < batch:
            raise BadInput(
                f"scaling: the least budget has {samples[0]} samples, less than one batch of "
                f"{batch}; the least fraction is {batch / whole:.3g}"
            )
        return samples

    def _full_run(self, target: float, samples: Sequence[int]) -> int:
        if not math.isfinite(target) or target < 0:
            raise BadInput(f"scaling: target is {target}; a number of samples is needed, or 0")
        configured = self.config.cost.full_samples if self.config.cost else _FAR * samples[-1]
        return round(target) or configured

    def _scaled(
        self, name: str, model: Component, inputs: Inputs, samples: Sequence[int], full: int
    ) -> tuple[list[ScalingRow], ComputeScaling]:
        """Train one model at all budgets; return its rows and its laws."""
        # Those of the pyramid's own trials have chosen the pool: they would find it good again.
        seeds = scaling_seeds(self.config)
        top, *controls = (pool.id for pool in inputs.pools.pools)
        errors: dict[str, list[list[float]]] = {top: [], CONTROLS: []}
        for budget in samples:
            study = Study(
                self.context,
                StudyPlan(f"scaling_{_slug(name)}_{budget}", tuple(seeds)),
                inputs,
                model,
                budget,
            )
            measured = self.measure(study)
            for arm, pools in ((top, [top]), (CONTROLS, controls)):
                errors[arm].append([self._error(measured, pools, seed) for seed in seeds])
        family = configured_family(self.config, model)
        operations = [family.flops(budget) for budget in samples]
        whole = family.flops(full)
        tables = {arm: np.array(values) for arm, values in errors.items()}
        rows = [
            ScalingRow(
                arm,
                name,
                budget,
                math.nan if flops is None else flops,
                *seed_interval(line),
                seeds=int(np.isfinite(line).sum()),
            )
            for arm, table in tables.items()
            for budget, flops, line in zip(samples, operations, table, strict=True)
        ]
        compute, target = np.array(samples, dtype=np.float64), float(full)
        if whole is not None and None not in operations:
            compute, target = np.array(operations, dtype=np.float64), whole
        draws = Draws(inputs.pools.draw_size, full)
        return rows, compute_scaling(top, compute, tables[top], tables[CONTROLS], target, draws)

    def _error(
        self, measured: Mapping[Key, Mapping[str, float]], pools: Sequence[str], seed: int
    ) -> float:
        """Return the mean error of some arms with a seed; NaN unless all have a result.

        The mean of those that are left would be of other rows than that of the next seed.
        """
        found = [measured.get((pool, seed)) for pool in pools]
        score = self.config.evaluation.score_metrics()
        return sum(math.nan if m is None else error_of(m, score) for m in found) / len(found)

    def _written(
        self,
        top: TopPool,
        rows: Sequence[ScalingRow],
        found: Mapping[str, ComputeScaling],
        full: int,
    ) -> Scaling:
        """Write the table, the laws and the figure."""
        counted = all(math.isfinite(row.flops) for row in rows)
        sentences = [top.sentence, *scaling_sentences(found)]
        said = {
            "top": top.pool.id,
            "seeds": list(scaling_seeds(self.config)),
            "full_samples": full,
            "compute": "FLOPs" if counted else "samples",
            "models": {name: scaling.to_json() for name, scaling in found.items()},
            "sentences": sentences,
        }
        for line in sentences:
            self.note(f"scaling: {line}")
        curves = [curve for name, scaling in found.items() for curve in _curves(name, scaling)]
        title = f"Error against compute: {top.pool.id}"
        figure = png(scaling_chart(rows, curves, title=title, target=full))
        path, text = self.write_rows(ScalingRow, "scaling.csv", rows)
        law = self.write_sealed("scaling.json", said)
        shown = self.write_bytes("figures/scaling.png", figure)
        return Scaling(content_id("scaling", text, said), path, law, shown)


def _controls(pools: Pools, arms: int) -> tuple[Pool, ...]:
    controls = [pool for pool in pools.pools if pool.kind is PoolKind.CONTROL]
    if not 1 <= arms <= len(controls):
        raise BadInput(f"scaling: arms is {arms}; the pyramid has 1 to {len(controls)} controls")
    return tuple(controls[:arms])


def _curves(model: str, scaling: ComputeScaling) -> list[Curve]:
    """Return the laws as points from the least compute measured to the full run."""
    drawn = scaling.drawn()
    return [Curve(arm, model, x.tolist(), errors.tolist()) for arm, (x, errors) in drawn.items()]


def _slug(name: str) -> str:
    """Return an architecture's name as a part of a file name; it may be a path."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)

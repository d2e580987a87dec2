"""Has Data-Juicer itself run the recipe, and compares what it keeps with the statistics."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import ray
from numpy.typing import NDArray
from ray.exceptions import RayTaskError

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.hooks.hook import Hook
from djsandbox_ray.nodes.kinds import bundle
from djsandbox_ray.recipes.acceptance import accept, explain
from djsandbox_ray.recipes.export import with_scorer
from djsandbox_ray.recipes.ranges import applied
from djsandbox_ray.recipes.recipe_file import Promise
from djsandbox_ray.records import (
    Acceptance,
    Cost,
    Dataset,
    Recipe,
    Scorer,
    Statistics,
    Thresholds,
)
from djsandbox_ray.stats.operators import parse_process, resolve_paths
from djsandbox_ray.stats.parts import StatisticColumns
from djsandbox_ray.storage.own import temporary
from djsandbox_ray.storage.store import Storage


class Accept(Hook):
    """Writes ``acceptance.json``; a difference ends the run."""

    VERSION = 4

    def identity(self) -> Any:
        """The operators as they are given."""
        return self.config.operators

    def run(
        self,
        dataset: Dataset,
        statistics: Statistics,
        scorer: Scorer | None = None,
        recipe: Recipe | None = None,
        thresholds: Thresholds | None = None,
        rows: int = 0,
        processes: int = 1,
    ) -> Acceptance | None:
        """Run the recipe on the dataset; nothing to do without one, or where a policy forbids it.

        Args:
            dataset: the sample table.
            statistics: what the thresholds were chosen by.
            scorer: the model that the operators name ``${scorer}``.
            recipe: what is tested.
            thresholds: what it should do.
            rows: try so many rows only, a random sample of seed 0; 0 for all. Data-Juicer scores
                a few images per second and CPU.
            processes: of Data-Juicer.

        Raises:
            SandboxError: Data-Juicer failed or kept other rows: names the first of them.
        """
        if recipe is None or not recipe.path:
            return None
        if thresholds is None:
            raise BadInput("accept: the recipe is there, but not the thresholds that it stands for")
        storage, folder = self.storage, self.context.folder
        self.context.progress.stage("accept")
        model = storage.uri(scorer.path) if scorer else None
        operators = [
            resolve_paths(spec) for spec in parse_process(with_scorer(self.config.operators, model))
        ]
        columns = StatisticColumns(storage, statistics.statistics, dataset.rows)
        promise = Promise(applied(operators, thresholds.ranges), columns)
        start = time.monotonic()
        accepted = self._elsewhere(
            storage,
            recipe,
            dataset,
            promise,
            folder,
            rows=_sample(rows, dataset.rows),
            processes=processes,
            models=self.config.statistics.models,
        )
        self.account(_cost(accepted.rows, time.monotonic() - start, processes))
        lines = explain(storage.read_sealed(accepted.path))
        if accepted.differing:
            found = "\n".join(lines)
            raise SandboxError(f"accept: {storage.shown}/{recipe.path}: {found}")
        for line in lines:
            self.note(f"accept: {line}")
        return accepted

    def _elsewhere(self, *arguments: Any, processes: int, **options: Any) -> Acceptance:
        """Run :func:`_accept` on a node for operators: the driver's may be none for work."""
        if processes < 1:
            raise BadInput(f"accept: processes: 1 or more are needed, not {processes}")
        nodes, function = self.config.statistics.resources, cast(Any, _accept)
        self.context.await_room([bundle(processes, 0, nodes)], "accept: processes")
        task = ray.remote(num_cpus=processes, resources=nodes.demand())(function)
        call = task.options(name="accept").remote(*arguments, processes=processes, **options)
        try:
            accepted: Acceptance = ray.get(call)
        except RayTaskError as error:
            raise error.cause from None  # what it says is for the user, without Ray's traceback
        return accepted


def _accept(
    storage: Storage,
    recipe: Recipe,
    dataset: Dataset,
    promise: Promise,
    folder: str,
    *,
    rows: NDArray[np.int64] | None,
    processes: int,
    models: str | None,
) -> Acceptance:
    """Run the recipe; the storage may be anywhere, Data-Juicer reads a local file."""
    with temporary() as folder_here:
        path = folder_here / Path(recipe.path).name
        path.write_bytes(storage.read_bytes(recipe.path))
        return accept(
            path,
            storage,
            dataset,
            promise.mask(),
            folder,
            promise=promise,
            rows=rows,
            processes=processes,
            models=models,
        )


def _sample(size: int, rows: int) -> NDArray[np.int64] | None:
    if size < 0:
        raise BadInput(f"accept: rows: 0 (all) or more are needed, not {size}")
    if size == 0 or size >= rows:
        return None
    return np.sort(np.random.default_rng(0).choice(rows, size, replace=False))


def _cost(rows: int, seconds: float, processes: int) -> Cost:
    # Data-Juicer leaves out what an earlier operator has dropped: its arithmetic is not counted.
    return Cost(
        stage="accept",
        samples=rows,
        flops=None,
        cpu_seconds=seconds * processes,
        gpu_seconds=0.0,
        wall_seconds=seconds,
    )

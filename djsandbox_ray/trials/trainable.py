"""A Tune trial: a model family at work on one draw, one step per rung."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from traceback import format_exc
from typing import Any

import ray
from ray import tune

from djsandbox_ray.errors import SandboxError
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.pools.draws import draw
from djsandbox_ray.records import Pool, RungReport
from djsandbox_ray.trials.family import Diverged, ModelFamily, TrialTask


@dataclass(frozen=True)
class Shared:
    """What all trials of a run have in common; sent to every trial process once."""

    family: ModelFamily
    prepared: Any
    suite: Suite
    pools: Mapping[str, Pool]
    members: Mapping[str, Any]
    """Per pool, a reference to its rows in the object store."""
    draw_size: int
    base_seed: int
    rungs: tuple[int, ...]
    cpus: float
    gpus: float


class Trial(tune.Trainable):
    """Trains from one rung to the next at each step.

    Processes are reused from trial to trial: starting one and importing torch takes longer than a
    small trial itself.
    """

    # ``shared`` is what tune.with_parameters passes.
    def setup(self, config: dict[str, Any], *, shared: Shared) -> None:  # type: ignore[override]
        """Keep what is shared and begin the first trial."""
        self._shared = shared
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in this process."""
        shared = self._shared
        pool = shared.pools[new_config["trial"]["pool"]]
        seed = int(new_config["trial"]["seed"])
        rows = ray.get(shared.members[pool.id])
        drawn = draw(pool, rows, seed, shared.draw_size, shared.base_seed)
        self._task = TrialTask(
            seed=seed,
            rows=drawn.rows,
            captions=drawn.captions,
            rungs=shared.rungs,
            cpus=shared.cpus,
            gpus=shared.gpus,
            evaluate=shared.suite.run,
        )
        self._reports: Iterator[RungReport] | None = None
        return True

    def step(self) -> dict[str, Any]:
        """Train to the next rung.

        What the family raises is a result too: the process lives on for the next trial, and Tune
        starts again only those trials whose process died.
        """
        try:
            if self._reports is None:
                self._reports = self._shared.family.train(self._task, self._shared.prepared)
            report = next(self._reports, None)
            if report is None:
                raise SandboxError("the model family ended before the budget")
            _check(report, self._shared.rungs[-1])
        except Exception as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            failure = {
                "error": reason,
                "diverged": isinstance(error, Diverged),
                "traceback": format_exc(),
            }
            return {"failure": failure, "done": True}
        return {"report": asdict(report), "done": report.samples == self._shared.rungs[-1]}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Keep nothing: a trial that is cut off is trained again from the start."""


def _check(report: RungReport, budget: int) -> None:
    numbers = {"loss": report.loss, **report.metrics}
    if wrong := [name for name, value in numbers.items() if not isfinite(value)]:
        raise Diverged(f"not finite after {report.samples} samples: {', '.join(wrong)}")
    if report.samples > budget:
        raise SandboxError(f"{report.samples} samples were seen, more than the budget {budget}")

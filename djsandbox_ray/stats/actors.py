"""One pass of Ray Data over ranges of rows, and how long its actors held what they reserve."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

from djsandbox_ray.cluster import connect
from djsandbox_ray.errors import BadInput
from djsandbox_ray.stats.worker import Job, StatisticsWorker

Progress = Callable[[int, int], None]


def run_pass(
    tasks: Sequence[dict[str, Any]],
    job: Job,
    *,
    actors: int | Literal["auto"],
    cpus: float,
    gpus: float,
    progress: Progress | None,
) -> float:
    """Have actors compute ranges of rows.

    Args:
        tasks: per range its start, stop and the indices of the operators that lack it.
        job: what every actor needs to know.
        actors: their number; ``auto`` is one per CPU, or per share of a GPU.
        cpus: CPUs that Ray reserves per actor.
        gpus: GPUs, or a share of one.
        progress: called with (rows done, rows to do) after every range.

    Returns:
        Seconds that the actors lived, all together: for so long Ray holds what they reserve.

    Raises:
        BadInput: an operator cannot be used, or the cluster is too small for the actors.
    """
    connect()
    pool = min(_pool_size(actors, cpus, gpus), len(tasks))
    pipeline = _stream(tasks, job, pool, cpus, gpus)
    lives = _Lives(at_once=_has_free(pool * cpus, pool * gpus))
    done, total = 0, sum(task["stop"] - task["start"] for task in tasks)
    for row in pipeline.iter_rows():
        report = json.loads(row["report"])
        lives.note(report["actor"], report["age"])
        if "error" in report:
            raise BadInput(report["error"])
        done += report["rows"]
        if progress is not None:
            progress(done, total)
    return lives.total(pool)


class _Lives:
    """How long actors lived, from their ages when they report: clocks of nodes may differ.

    Ray Data asks for all actors at the start and lets each go once no range is left for it. Ray
    reserves before it looks for a process, which may have been waiting or be slow to start.

    Args:
        at_once: whether what all actors reserve is free at the start; if not, each is taken to
            begin with its process.
    """

    def __init__(self, at_once: bool) -> None:
        self._at_once = at_once
        self._start = time.perf_counter()
        self._born: dict[str, float] = {}
        self._ages: dict[str, float] = {}

    def note(self, actor: str, age: float) -> None:
        """Take note of an actor's age now; of several reports the least delayed is right."""
        born = time.perf_counter() - age
        self._born[actor] = min(born, self._born.get(actor, born))
        self._ages[actor] = max(age, self._ages.get(actor, age))

    def total(self, pool: int) -> float:
        """Return the seconds of all actors; one that got no range lived as long as the pool."""
        begun = {
            actor: self._start if self._at_once else max(born, self._start)
            for actor, born in self._born.items()
        }
        lives = [self._born[actor] + self._ages[actor] - begin for actor, begin in begun.items()]
        first = min(begun.values(), default=self._start)
        unseen = max(0, pool - len(lives)) * (time.perf_counter() - first)
        return math.fsum(lives) + unseen


def _stream(tasks: Sequence[dict[str, Any]], job: Job, pool: int, cpus: float, gpus: float) -> Any:
    """Return the pipeline: one block per range, and actors that read the table themselves."""
    import ray.data

    items = [{"task": json.dumps(task)} for task in tasks]
    return ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        StatisticsWorker,
        fn_constructor_args=(job,),
        batch_size=1,
        num_cpus=cpus,
        num_gpus=gpus or None,
        compute=ray.data.ActorPoolStrategy(size=pool),
    )


def _has_free(cpus: float, gpus: float) -> bool:
    import ray

    free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    return free.get("CPU", 0) >= cpus and free.get("GPU", 0) >= gpus


def _pool_size(actors: int | Literal["auto"], cpus: float, gpus: float) -> int:
    """Return the number of actors.

    Raises:
        BadInput: the cluster is too small for them, in which case Ray would wait forever.
    """
    import ray

    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    fits = math.floor(resources.get("CPU", 0) / cpus)
    if gpus:
        fits = min(fits, math.floor(resources.get("GPU", 0) / gpus))
    # One per CPU, not one per reserved share of it: an actor keeps a whole CPU busy.
    auto = math.floor(resources.get("CPU", 0) / max(1.0, cpus))
    wanted = max(1, min(fits, auto)) if actors == "auto" else actors
    if wanted > fits:
        raise BadInput(
            f"statistics: {wanted} actors of {cpus} CPUs and {gpus} GPUs do not fit into the "
            f"cluster ({resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs)"
        )
    return wanted

"""One pass of Ray Data over ranges of rows, and how long its actors held what they reserve."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from djsandbox_ray.nodes.connection import connect, slots
from djsandbox_ray.nodes.waiting import AwaitRoom
from djsandbox_ray.stats.worker import ERRORS, OperatorTask, StatisticsWorker
from djsandbox_ray.telemetry import metrics

OnProgress = Callable[[int, int], None]


def run_pass(
    tasks: Sequence[dict[str, Any]],
    job: OperatorTask,
    *,
    group: Sequence[Mapping[str, float]],
    fill: bool,
    share: int = 1,
    await_room: AwaitRoom,
    progress: OnProgress | None,
) -> float:
    """Have actors compute ranges of rows.

    Args:
        tasks: per range its start, stop and the indices of the operators that lack it.
        job: what every actor needs to know.
        group: what Ray reserves, a bundle per actor, all alike.
        fill: whether there are as many actors as have room: one per CPU, or per share of a GPU.
        share: then, ranges that are worth the start of one more actor.
        await_room: waits until there are nodes for the group.
        progress: called with (rows done, rows to do) after every range.

    Returns:
        Seconds that the actors lived, all together: for so long Ray holds what they reserve.

    Raises:
        BadInput: an operator cannot be used, or the cluster is too small for the actors.
        StorageFailed: there is no room for what they compute.
        SandboxError: a machine fails under them.
    """
    connect()
    await_room(group, "statistics")
    actor = group[0]
    pool = min(_room_for(actor), -(-len(tasks) // share)) if fill else min(len(group), len(tasks))
    pipeline = _stream(tasks, job, pool, actor)
    lives = _Lives(at_once=_has_free(pool, actor))
    done, total = 0, sum(task["stop"] - task["start"] for task in tasks)
    for row in pipeline.iter_rows():
        report = json.loads(row["report"])
        lives.note(report["actor"], report["age"])
        if "error" in report:
            raise ERRORS[report["kind"]](report["error"])
        done += report["rows"]
        for index in report["operators"]:
            metrics.OPERATOR_ROWS.add(report["rows"], operator=job.operators[index][0])
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


def _stream(
    tasks: Sequence[dict[str, Any]], job: OperatorTask, pool: int, actor: Mapping[str, float]
) -> Any:
    """Return the pipeline: one block per range, and actors that read the table themselves."""
    import ray.data

    items = [{"task": json.dumps(task)} for task in tasks]
    stream = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        StatisticsWorker,
        fn_constructor_args=(job,),
        batch_size=1,
        num_cpus=actor["CPU"],
        num_gpus=actor.get("GPU"),
        resources={name: actor[name] for name in actor if name not in ("CPU", "GPU")},
        compute=ray.data.ActorPoolStrategy(size=pool),
    )
    stream.set_name("statistics")  # on the dashboard
    return stream


def _has_free(pool: int, actor: Mapping[str, float]) -> bool:
    import ray

    free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    return all(free.get(name, 0) >= pool * amount for name, amount in actor.items())


def _room_for(actor: Mapping[str, float]) -> int:
    """Return how many actors the cluster can work for at once.

    One per CPU, not one per reserved share of it: an actor keeps a whole CPU busy.
    """
    return max(1, slots([{**actor, "CPU": max(1.0, actor["CPU"])}]))

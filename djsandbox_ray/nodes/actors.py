"""One pass of Ray Data over tasks: actors that load a model once, and what they held for how long.

Whoever has much to compute of many samples cuts it into ranges that lose little when a process is
killed, has a pass compute them, and keeps each as its report comes.
"""

from __future__ import annotations

import json
import math
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import psutil

from djsandbox_ray.errors import BadInput, SandboxError, StorageFailed
from djsandbox_ray.nodes.connection import connect, slots
from djsandbox_ray.nodes.waiting import AwaitRoom

OnProgress = Callable[[int, int], None]
"""Called with what is done and what there is to do."""
ERRORS: dict[str, type[SandboxError]] = {
    kind.__name__: kind for kind in (StorageFailed, BadInput, SandboxError)
}
"""What a report may say that an error is, the narrowest first: who is to mend it hangs on that."""


class PassWorker(ABC):
    """Computes tasks; made once per actor, from what all actors of a pass need to know."""

    def __init__(self) -> None:
        self._name = uuid.uuid4().hex
        # Ray reserves an actor's resources before it starts the process for it.
        self._born = time.perf_counter() - (time.time() - psutil.Process().create_time())

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Compute tasks.

        Args:
            batch: ``task``: JSON texts.

        Returns:
            ``report``: per task a JSON text with the actor, its age in seconds, and what
            :meth:`compute` returns or the error that ends the run and which of :data:`ERRORS` it
            is. The error is a value, because an exception would reach the driver as text of Ray's.
        """
        reports = []
        for text in batch["task"]:
            try:
                report = self.compute(json.loads(str(text)))
            except (SandboxError, ImportError) as error:
                report = {"error": str(error), "kind": _kind(error)}
            age = time.perf_counter() - self._born
            reports.append({**report, "actor": self._name, "age": age})
        return {"report": [json.dumps(report) for report in reports]}

    @abstractmethod
    def compute(self, task: dict[str, Any]) -> dict[str, Any]:
        """Compute a task, and return what the driver needs to know of it, as plain data."""


def _kind(error: SandboxError | ImportError) -> str:
    if isinstance(error, ImportError):  # a package that the user can install
        return BadInput.__name__
    return next(name for name, kind in ERRORS.items() if isinstance(error, kind))


def run_pass(
    tasks: Sequence[dict[str, Any]],
    worker: type[PassWorker],
    job: Any,
    *,
    name: str,
    where: str,
    group: Sequence[Mapping[str, float]],
    fill: bool,
    share: int = 1,
    await_room: AwaitRoom,
    on_report: Callable[[dict[str, Any]], None],
) -> float:
    """Have actors compute tasks.

    Args:
        tasks: plain data, each for one call of an actor.
        worker: the actors.
        job: what each is made from.
        name: of the pass, on the dashboard.
        where: the section of the configuration that asks for the actors.
        group: what Ray reserves, a bundle per actor, all alike.
        fill: whether there are as many actors as have room: one per CPU, or per share of a GPU.
        share: then, tasks that are worth the start of one more actor.
        await_room: waits until there are nodes for the group.
        on_report: called with every report, as it comes.

    Returns:
        Seconds that the actors lived, all together: for so long Ray holds what they reserve.

    Raises:
        BadInput: what an actor says of its input, or the cluster is too small for the actors.
        StorageFailed: there is no room for what they compute.
        SandboxError: a machine fails under them.
    """
    connect()
    await_room(group, where)
    actor = group[0]
    pool = min(_room_for(actor), -(-len(tasks) // share)) if fill else min(len(group), len(tasks))
    pipeline = _stream(tasks, worker, job, pool, actor, name)
    lives = _Lives(at_once=_has_free(pool, actor))
    for row in pipeline.iter_rows():
        report = json.loads(row["report"])
        lives.note(report["actor"], report["age"])
        if "error" in report:
            raise ERRORS[report["kind"]](report["error"])
        on_report(report)
    return lives.total(pool)


class _Lives:
    """How long actors lived, from their ages when they report: clocks of nodes may differ.

    Ray Data asks for all actors at the start and lets each go once no task is left for it. Ray
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
        """Return the seconds of all actors; one that got no task lived as long as the pool."""
        begun = {
            actor: self._start if self._at_once else max(born, self._start)
            for actor, born in self._born.items()
        }
        lives = [self._born[actor] + self._ages[actor] - begin for actor, begin in begun.items()]
        first = min(begun.values(), default=self._start)
        unseen = max(0, pool - len(lives)) * (time.perf_counter() - first)
        return math.fsum(lives) + unseen


def _stream(
    tasks: Sequence[dict[str, Any]],
    worker: type[PassWorker],
    job: Any,
    pool: int,
    actor: Mapping[str, float],
    name: str,
) -> Any:
    """Return the pipeline: one block per task, and actors that read the samples themselves."""
    import ray.data

    items = [{"task": json.dumps(task)} for task in tasks]
    stream = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        worker,
        fn_constructor_args=(job,),
        batch_size=1,
        num_cpus=actor["CPU"],
        num_gpus=actor.get("GPU"),
        resources={kind: actor[kind] for kind in actor if kind not in ("CPU", "GPU")},
        compute=ray.data.ActorPoolStrategy(size=pool),
    )
    stream.set_name(name)
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

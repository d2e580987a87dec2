"""Ray Data tasks that read shards and tables: what fails says so in words, and time is counted."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from traceback import format_exc
from typing import Any

from djsandbox_ray import records
from djsandbox_ray.dataset.faults import described
from djsandbox_ray.errors import SandboxError
from djsandbox_ray.masking import without_secrets
from djsandbox_ray.nodes.kinds import NodeKind

CPUS_PER_TASK = 1
_MAX_BLOCKS = 1024


class Tasks:
    """Runs functions in Ray tasks and adds up how long they took.

    Starting a process for them, a few seconds each on a fresh cluster, is not among it.

    Args:
        workers: tasks at a time; None for as many as there are CPUs.
        resources: which nodes they run on.
    """

    def __init__(self, workers: int | None, resources: NodeKind) -> None:
        self._workers = workers
        self._resources = resources
        self._seconds = 0.0

    def map(
        self, function: Callable[..., dict[str, Any]], rows: list[dict[str, Any]], **arguments: Any
    ) -> Iterator[dict[str, Any]]:
        """Run a function on rows; results come as they are ready.

        Raises:
            SandboxError: what the function raises, in words. It comes as a value: an exception
                would come with Ray's tracebacks.
        """
        import ray.data  # a third of a second, which a plan need not wait

        if not rows:
            return
        call: Callable[..., dict[str, Any]] = _timed
        data = ray.data.from_items(rows, override_num_blocks=min(len(rows), _MAX_BLOCKS)).map(
            call,
            fn_kwargs={"function": function, **arguments},
            compute=ray.data.TaskPoolStrategy(size=self._workers),
            num_cpus=CPUS_PER_TASK,
            resources=self._resources.demand(),
        )
        data.set_name(function.__name__)  # on the dashboard, where all of them are `_timed`
        for row in data.iter_rows():
            self._seconds += row["seconds"]
            result = pickle.loads(row["result"])
            if isinstance(result, SandboxError):
                raise result
            yield result

    def cost(self, stage: str, samples: int, wall_seconds: float) -> records.Cost:
        """Return what all tasks so far cost; reading is no arithmetic."""
        return records.Cost(
            stage=stage,
            samples=samples,
            flops=0.0,
            cpu_seconds=self._seconds * CPUS_PER_TASK,
            gpu_seconds=0.0,
            wall_seconds=wall_seconds,
        )


def _timed(
    row: dict[str, Any], *, function: Callable[..., dict[str, Any]], **arguments: Any
) -> dict[str, Any]:
    start = time.perf_counter()
    result: dict[str, Any] | SandboxError
    try:
        result = function(row, **arguments)
    except SandboxError as error:
        result = error
    except Exception as error:
        result = SandboxError(f"{function.__name__}: {described(error)}")
        # Not on the terminal; the event of the job that failed has it.
        result.add_note(without_secrets(format_exc()))
    return {"result": pickle.dumps(result), "seconds": time.perf_counter() - start}

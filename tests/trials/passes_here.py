"""A pass of actors without Ray: one actor, in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from djsandbox_ray.errors import BadInput


class Killed(BaseException):
    """Ends a pass as a signal does."""


class PassHere:
    """Takes the place of :func:`djsandbox_ray.nodes.actors.run_pass`."""

    def __init__(self) -> None:
        self.last = 1 << 10
        """Tasks after which it is killed."""
        self.passes: list[int] = []
        """Things that were computed, pass by pass."""
        self.before: Callable[[], None] = lambda: None
        """Called before each task."""

    def taken(self) -> list[int]:
        """Return what was computed, pass by pass, since this was asked for."""
        found, self.passes = self.passes, []
        return found

    def __call__(
        self, tasks: Sequence[dict[str, Any]], worker: Any, job: Any, *, on_report: Any, **_: Any
    ) -> float:
        """Compute tasks, each as Ray hands it on."""
        actor = worker(job)
        self.passes.append(0)
        for place, task in enumerate(tasks):
            self.before()
            if place == self.last:
                raise Killed
            (report,) = map(json.loads, actor({"task": [json.dumps(task)]})["report"])
            if "error" in report:
                raise BadInput(report["error"])
            self.passes[-1] += report["rows"]
            on_report(report)
        return 3.0

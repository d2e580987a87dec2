"""Which of several processes runs which tests: those on Ray are all run by one.

Two clusters on one machine would wait for each other's CPUs. (pytest 9.2 has put an end to xdist's
own groups: they are written into the ids of tests.)
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from xdist.scheduler import LoadScopeScheduling

ON_RAY = ("ray_cluster", "finished_run", "mark.integration", "mark.cluster", "world: World")
"""Words of modules with tests on Ray."""


@cache
def is_on_ray(module: Path) -> bool:
    """Say whether a module has tests on Ray."""
    text = module.read_text()
    return any(word in text for word in ON_RAY)


class OneCluster(LoadScopeScheduling):  # type: ignore[misc]
    """Gives the modules on Ray to one process, and every other test to whoever has time."""

    def _split_scope(self, nodeid: str) -> str:
        module = self.config.rootpath / nodeid.partition("::")[0]
        return "ray" if is_on_ray(module) else nodeid

    def remove_node(self, node: Any) -> str | None:
        """Return the test that has ended a process; it is not given to the next one."""
        work = self.assigned_work.pop(node)
        left = [(scope, test) for scope in work for test in work[scope] if not work[scope][test]]
        if not left:
            return None
        for scope, test in left[1:]:
            self.workqueue.setdefault(scope, {})[test] = False
            self.workqueue.move_to_end(scope, last=False)
        for other in self.assigned_work:
            self._reschedule(other)
        return left[0][1]

    def _reschedule(self, node: Any) -> None:
        """Give a process two tests at least: it begins one when it knows the next."""
        super()._reschedule(node)
        if self.workqueue and self._pending_of(self.assigned_work[node]) < 2:
            super()._reschedule(node)

"""No early stopping: every trial runs to its full budget."""

from __future__ import annotations

from typing import Any

from djsandbox_ray.trials.stopping.stopping import Competition, Stopping


class NoStopping(Stopping):
    """Every trial runs to its full budget; rungs are evaluated only."""

    def scheduler(self, competition: Competition) -> Any:
        """Return Tune's own queue."""
        from ray.tune.schedulers import FIFOScheduler

        return FIFOScheduler()  # type: ignore[no-untyped-call]

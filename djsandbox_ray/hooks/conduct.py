"""What jobs that train a study do alike: train it, put its cost on the bill, write its tables."""

from __future__ import annotations

from djsandbox_ray.hooks.hook import Hook, Planned
from djsandbox_ray.hooks.study import Study
from djsandbox_ray.records import Trials


class StudyHook(Hook):
    """A job that trains a study."""

    def planned(self, trials: int, unknown: str = "") -> Planned:
        """Return what so many trials of the run's model and budget are."""
        return Planned(trials, trials * self.config.trials.budget, unknown=unknown)

    def conduct(self, study: Study) -> Trials:
        """Train what no run of this storage has settled."""
        records = study.run()
        self.account(study.cost(records))
        return study.write(records)

    def keep(self, output: Trials | None) -> bool:
        """Keep the outcome unless trials crashed: the same command tries those again."""
        return output is None or output.crashed == 0

"""Makes what all trials start from, and reads the data of the stages that are the same for all."""

from __future__ import annotations

from typing import Any

from djsandbox_ray.dataset.complete import broken_dataset
from djsandbox_ray.hooks.hook import Hook
from djsandbox_ray.hooks.study import configured_family, given_data
from djsandbox_ray.records import Foundation
from djsandbox_ray.trials.family import identity_of
from djsandbox_ray.trials.foundation import broken_base


class MakeBase(Hook):
    """The base of the model that is trained, under ``models/``; nothing where it has none.

    A study that finds no base makes it itself: as a job of its own it is seen, and is done before
    anything else that takes long.
    """

    VERSION = 1
    SECTIONS = ("trials",)

    def identity(self) -> Any:
        """The model, and what the sources consist of."""
        family = configured_family(self.config)
        gpus = self.config.trials.resources.gpus_per_worker
        return [identity_of(family, gpus) if family.base() else None, *given_data(family)]

    def broken(self, output: Foundation) -> dict[str, str]:
        """The files of the base, and the tables."""
        wrong = broken_base(self.storage, output.base) if output.base else {}
        for dataset in output.fixed.values():
            wrong |= broken_dataset(self.storage, dataset)
        return wrong

    def run(self) -> Foundation:
        """Make or find everything."""
        self.context.progress.stage("base")
        # Whoever asks again in one process does so as something was found to be damaged.
        self.context.foundations.clear()
        found, cost = self.context.foundation(configured_family(self.config))
        self.account(cost)
        return found

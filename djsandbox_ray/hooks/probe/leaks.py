"""Finds evaluation samples among the training samples."""

from __future__ import annotations

from typing import Any

from djsandbox_ray.dataset.leaks import find_leaks
from djsandbox_ray.hooks.hook import Hook
from djsandbox_ray.records import Dataset, Leak


class Leaks(Hook):
    """Compares the exact hashes of both tables and decides whether leaked rows are kept out."""

    def identity(self) -> Any:
        """What happens to leaked rows."""
        return self.config.evaluation.leaks

    def run(self, dataset: Dataset, evaluation: Dataset) -> Leak:
        """Report the rows that occur in both."""
        remove = self.config.evaluation.leaks == "remove"
        leak = find_leaks(self.context.storage, dataset, evaluation, remove)
        if leak.rows:
            fate = "kept out of every pool" if remove else "KEPT in the pools, as configured"
            self.context.progress.note(
                f"leaks: {leak.rows} training rows occur in the evaluation split too; {fate}"
            )
        return leak

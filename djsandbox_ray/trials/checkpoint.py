"""Where a trial's state at its last rung is kept, so that a cut-off trial goes on from there.

``<storage>/trials/<trial id>/<owner>/<samples>/`` holds what every worker wrote, and last,
``done.json`` with the reports up to that rung: a folder without it does not count. Weights are read
with ``weights_only``; nothing here is a pickle of objects. Whose folder is whose, ``ownership``
says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from djsandbox_ray.records import RungReport
from djsandbox_ray.storage.own import temporary
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.strategies.strategy import Group

_REPORTS = TypeAdapter(tuple[RungReport, ...])
DONE = "done.json"
"""Makes a rung count."""
ALONE = "alone@000000"
"""The owner where there is no run."""


class Checkpoint:
    """The checkpoints of one trial.

    What another number of workers, or another strategy, has written does not count.

    Args:
        storage: where they are kept.
        trial: its id.
        group: the place of this worker.
        owner: of the folder: the driver that has the trial trained.
    """

    def __init__(
        self, storage: str, trial: str, group: Group | None = None, owner: str = ALONE
    ) -> None:
        self._storage = Storage(storage)
        self._trial, self._folder = f"trials/{trial}", f"trials/{trial}/{owner}"
        self._group = group or Group()

    def save(self, report: RungReport, write: Callable[[Path], None]) -> None:
        """Keep the state at a rung, before its report is yielded; called by every worker.

        Nothing is kept of a report that is not finite: it ends the trial.

        Args:
            report: the rung's report; that of rank 0 counts.
            write: writes this worker's files into a local folder; names must differ by worker.
        """
        folder = f"{self._folder}/{report.samples}"
        first = self._group.rank == 0
        reports = [kept for kept in self.reports() if kept.samples < report.samples]
        if first:
            self._remove(report.samples)  # left by an attempt that was cut off
        self._group.barrier()
        self._write(folder, write)
        self._group.barrier()
        if not first:
            return
        if isfinite(report.loss) and all(map(isfinite, report.metrics.values())):
            mark = {"group": self._mark(), "reports": [asdict(kept) for kept in (*reports, report)]}
            self._storage.write_json(f"{folder}/{DONE}", mark)
            for samples in self._rungs():
                if samples < report.samples:
                    self._remove(samples)

    @contextmanager
    def load(self) -> Iterator[tuple[int, Path] | None]:
        """Give the samples seen and a local folder with the files of all workers, or None."""
        newest = self._newest()
        if newest is None:
            yield None
            return
        samples, _ = newest
        kept = f"{self._folder}/{samples}"
        if self._storage.is_local:
            yield samples, Path(self._storage.uri(kept))
            return
        with temporary() as folder:
            self._storage.download(kept, folder)
            yield samples, folder

    def reports(self) -> tuple[RungReport, ...]:
        """Return the reports up to the newest checkpoint."""
        newest = self._newest()
        return newest[1] if newest else ()

    def remove(self) -> None:
        """Delete all checkpoints of the owner."""
        for samples in self._rungs():
            self._remove(samples)
        self._storage.remove(self._folder)
        self._storage.remove_empty(self._trial)

    def _rungs(self) -> list[int]:
        """Return the samples seen at the rungs of which something is kept, in order."""
        names = self._storage.names(self._folder)
        return sorted(int(name) for name in names if name.isdecimal())

    def _remove(self, samples: int) -> None:
        """Delete a checkpoint, first what makes it count."""
        self._storage.remove(f"{self._folder}/{samples}/{DONE}")
        self._storage.remove(f"{self._folder}/{samples}")

    def _newest(self) -> tuple[int, tuple[RungReport, ...]] | None:
        for samples in reversed(self._rungs()):
            path = f"{self._folder}/{samples}/{DONE}"
            if self._storage.exists(path):
                mark = self._storage.read_json(path)
                if mark["group"] == self._mark():
                    return samples, _REPORTS.validate_python(mark["reports"])
        return None

    def _mark(self) -> dict[str, Any]:
        strategy = self._group.strategy if self._group.size > 1 else None
        return {"workers": self._group.size, "strategy": strategy}

    def _write(self, folder: str, write: Callable[[Path], None]) -> None:
        if self._storage.is_local:
            place = Path(self._storage.uri(folder))
            place.mkdir(parents=True, exist_ok=True)
            write(place)
            return
        with temporary() as local:
            write(local)
            self._storage.upload(local, folder)

"""Where a trial's state at its last rung is kept, so that a cut-off trial goes on from there.

``<storage>/trials/<trial id>/<owner>/<samples>/`` holds what every worker wrote, and last,
``done.json`` with the reports up to that rung and the size and digest of every file: a folder
without it, or with other files than it says, does not count, and the trial begins anew or at the
rung before. Where judging takes long, the state is kept before it, and the report follows.

Weights are on the disk before ``done.json`` is; they are read with ``weights_only``, and nothing
here is a pickle of objects. Whose folder is whose, ``ownership`` says.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from djsandbox_ray.errors import Damaged, Missing, StorageFailed
from djsandbox_ray.records import RungReport
from djsandbox_ray.storage.filesystems import storage_failure
from djsandbox_ray.storage.own import temporary
from djsandbox_ray.storage.seals import (
    broken_below,
    seals_from_json,
    seals_of,
    seals_to_json,
    shortened,
)
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.strategies.strategy import Group

logger = logging.getLogger(__name__)

_REPORTS = TypeAdapter(tuple[RungReport, ...])
DONE = "done.json"
"""Makes a rung count."""
ALONE = "alone@000000"
"""The owner where there is no run."""
_PROBE_BYTES = 1 << 20
_DIGESTED_BYTES = 4 << 30
"""Of a checkpoint on a disk, so much is digested, some seconds per rung. An object store looks
after what it holds: there sizes tell whether an upload came to its end."""


@dataclass(frozen=True)
class _Kept:
    """What a checkpoint says of the rungs up to its own."""

    reports: tuple[RungReport, ...]
    judged: bool
    """Whether the last report is whole: else its metrics are to come."""


class Checkpoint:
    """The checkpoints of one trial.

    What another number of workers, or another strategy, has written does not count, nor what is
    damaged: that is said once.

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
        self._found: dict[int, _Kept | None] = {}
        """What is known of the checkpoints that were looked at: large files are read once."""

    def save(self, report: RungReport, write: Callable[[Path], None], judged: bool = True) -> None:
        """Keep the state at a rung, before its report is yielded; called by every worker.

        Nothing is kept of a report that is not finite: it ends the trial.

        Args:
            report: the rung's report; that of rank 0 counts.
            write: writes this worker's files into a local folder; names must differ by worker.
            judged: whether the report has its metrics; else :meth:`judge` gives them.
        """
        folder = f"{self._folder}/{report.samples}"
        first = self._group.rank == 0
        self._found.pop(report.samples, None)
        before = self.reports() if first else ()
        reports = (*(kept for kept in before if kept.samples < report.samples), report)
        if first:
            self._remove(report.samples)  # left by an attempt that was cut off
        self._group.barrier()
        self._write(folder, write)
        self._group.barrier()
        if not first:
            return
        if isfinite(report.loss) and all(map(isfinite, report.metrics.values())):
            most = _DIGESTED_BYTES if self._storage.is_local else 0
            mark = {
                "group": self._mark(),
                "reports": [asdict(kept) for kept in reports],
                "judged": judged,
                "files": seals_to_json(seals_of(self._storage, folder, most)),
            }
            self._storage.write_sealed(f"{folder}/{DONE}", mark)
            self._found[report.samples] = _Kept(reports, judged)
            for samples in self._rungs():
                if samples < report.samples:
                    self._remove(samples)

    def judge(self, report: RungReport) -> None:
        """Put the whole report in the place of the one that :meth:`save` was given without metrics.

        Called by every worker; that of rank 0 counts. The files stay as they are.
        """
        self._found.pop(report.samples, None)
        if self._group.rank == 0 and all(map(isfinite, report.metrics.values())):
            path = f"{self._folder}/{report.samples}/{DONE}"
            mark = self._storage.read_sealed(path)
            reports = [*mark["reports"][:-1], asdict(report)]
            self._storage.write_sealed(path, {**mark, "reports": reports, "judged": True})

    def pending(self) -> RungReport | None:
        """Return the report of the newest checkpoint if it has yet to be judged."""
        newest = self._newest()
        return newest[1].reports[-1] if newest and not newest[1].judged else None

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
        """Return the reports up to the newest checkpoint, but one that has yet to be judged."""
        newest = self._newest()
        if newest is None:
            return ()
        kept = newest[1]
        return kept.reports if kept.judged else kept.reports[:-1]

    def samples(self) -> int:
        """Return the samples seen at the newest checkpoint, judged or not; 0 if there is none."""
        newest = self._newest()
        return newest[0] if newest else 0

    def remove(self) -> None:
        """Delete all checkpoints of the owner."""
        for samples in self._rungs():
            self._remove(samples)
        self._storage.remove(self._folder)
        self._storage.remove_empty(self._trial)

    def discard(self) -> None:
        """Have the trial begin anew; called by every worker."""
        self._found.clear()
        self._group.barrier()
        if self._group.rank == 0:
            self.remove()
        self._group.barrier()

    def _rungs(self) -> list[int]:
        """Return the samples seen at the rungs of which something is kept, in order."""
        names = self._storage.names(self._folder)
        return sorted(int(name) for name in names if name.isdecimal())

    def _remove(self, samples: int) -> None:
        """Delete a checkpoint, first what makes it count."""
        self._storage.remove(f"{self._folder}/{samples}/{DONE}")
        self._storage.remove(f"{self._folder}/{samples}")

    def _newest(self) -> tuple[int, _Kept] | None:
        for samples in reversed(self._rungs()):
            if samples not in self._found:
                self._found[samples] = self._read(samples)
            if kept := self._found[samples]:
                return samples, kept
        return None

    def _read(self, samples: int) -> _Kept | None:
        """Return what a checkpoint says; None if it does not count."""
        folder = f"{self._folder}/{samples}"
        try:
            mark = self._storage.read_sealed(f"{folder}/{DONE}")
            if mark["group"] != self._mark():
                return None
            kept = _Kept(_REPORTS.validate_python(mark["reports"]), mark.get("judged", True))
            wrong = broken_below(self._storage, folder, seals_from_json(mark["files"]))
        except Missing:
            return None
        except (Damaged, KeyError, ValueError) as error:
            what = error.what if isinstance(error, Damaged) else f"{folder}/{DONE}: {error}"
        else:
            if not wrong:
                return kept
            what = shortened(wrong)
        logger.warning("a checkpoint is discarded, the trial does that part again: %s", what)
        return None

    def _mark(self) -> dict[str, Any]:
        strategy = self._group.strategy if self._group.size > 1 else None
        return {"workers": self._group.size, "strategy": strategy}

    def _write(self, folder: str, write: Callable[[Path], None]) -> None:
        if self._storage.is_local:
            place = Path(self._storage.uri(folder))
            with _failure_told(place, f"{self._storage.shown}/{folder}"):
                place.mkdir(parents=True, exist_ok=True)
                write(place)
                _to_disk(place)
            return
        with temporary() as local:
            with _failure_told(local, str(local)):
                write(local)
            self._storage.upload(local, folder)


@contextmanager
def _failure_told(folder: Path, shown: str) -> Iterator[None]:
    """Say in a sentence that a disk takes nothing."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if (told := storage_failure(error, shown) or _full(folder, shown)) is None:
            raise
        raise told from None


def _full(folder: Path, shown: str) -> StorageFailed | None:
    """Say whether a disk is full: torch only says that it is not where it should be in a file."""
    probe = folder / "room"
    try:
        probe.write_bytes(bytes(_PROBE_BYTES))
        _to_disk(folder)
    except OSError as error:
        return storage_failure(error, shown)
    finally:
        with suppress(OSError):
            probe.unlink(missing_ok=True)
    return None


def _to_disk(folder: Path) -> None:
    """Have the system write a folder down: a mark that outlives its files would be believed."""
    for path in (*folder.rglob("*"), folder):
        file = os.open(path, os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)

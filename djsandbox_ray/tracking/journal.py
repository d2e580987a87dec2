"""What a run has told its tracker, as JSON in the run's folder: what an outage kept away is here.

``<run folder>/tracking/<journal id>/`` holds ``run.json``, ``origin``, ``trials/<trial id>.json``
and ``artifacts/``. One run folder may hold several journals: to a tracker, a changed configuration
is another run. So it is in another storage: the same configuration, run by two people, is two runs.

:class:`Recorded` wraps any tracker and keeps what it is told; :func:`replay` tells it to a tracker
again, after an outage or for one of later choice.
"""

from __future__ import annotations

import json
import logging
import re
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from djsandbox_ray.errors import BadInput, Damaged, Missing, StorageFailed
from djsandbox_ray.identity import content_id
from djsandbox_ray.masking import masked, without_secrets
from djsandbox_ray.records import TrialRecord
from djsandbox_ray.storage.backlog import Backlog
from djsandbox_ray.storage.seals import sealed
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.tracking.tracker import DatasetInput, PoolVerdict, RunInfo, Tracker

M = TypeVar("M", bound=BaseModel)

logger = logging.getLogger(__name__)

_AGAIN = "run the configuration again (djsandbox run): it is written anew"
_ORIGIN = "origin"
_STAYING = ("metrics", "artifacts", "datasets", "judged", "description")
"""What a run has said before it was cut off, until it says something else."""


class _Entry(BaseModel):
    """JSON has no NaN, which a loss may be: it is written as text."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class RunEntry(_Entry):
    """All about the run but its trials."""

    name: str
    key: str
    origin: str = ""
    """Random, drawn when the journal was begun; none in journals of older versions."""
    address: str = ""
    """Where its tracker was when it was last started; empty in journals of older versions."""
    params: Mapping[str, str]
    tags: Mapping[str, str]
    datasets: tuple[DatasetInput, ...] = ()
    metrics: Mapping[str, tuple[float, int]] = {}
    """Value, and milliseconds since the epoch, by name."""
    artifacts: tuple[str, ...] = ()
    """Names; the files lie in the journal's folder ``artifacts``."""
    judged: Mapping[str, tuple[PoolVerdict, ...]] = {}
    """The verdicts on the pools of every study, by its name; none in journals of older versions."""
    description: str = ""
    """What the run has found; empty in journals of older versions, and as long as it is at work."""
    ok: bool | None = None
    """How the run ended; None while it is running, or if it was cut off."""

    @property
    def info(self) -> RunInfo:
        """The run as a tracker is told of it, with all of its datasets."""
        key = f"{self.key}-{self.origin}" if self.origin else self.key
        return RunInfo(self.name, key, self.params, self.tags, self.datasets)


class TrialEntry(_Entry):
    """The newest record of a trial, and how it is described."""

    record: TrialRecord
    tags: Mapping[str, str]
    params: Mapping[str, str]
    inputs: tuple[DatasetInput, ...] = ()


class Journal:
    """The files of one run; each is replaced whole. Made by :meth:`begin` or :meth:`all`."""

    def __init__(self, storage: Storage, folder: str, run: RunEntry) -> None:
        self._storage = storage
        self._folder = folder
        self.run = run

    @classmethod
    def begin(cls, storage: Storage, run_folder: str, info: RunInfo, address: str = "") -> Journal:
        """Begin the journal of a run, or go on with the one that is there."""
        folder = f"{run_folder}/tracking/{content_id('journal', info.key)}"
        before = _before(storage, folder)
        run = RunEntry(
            name=info.name,
            key=info.key,
            origin=before.origin if before else _origin(storage, folder),
            address=address,
            params=info.params,
            tags=info.tags,
        )
        if before:
            told = {name: getattr(before, name) for name in _STAYING}
            run = run.model_copy(update=told)
        journal = cls(storage, folder, run)
        journal.keep(datasets=tuple(dict.fromkeys((*info.datasets, *run.datasets))))
        return journal

    @classmethod
    def all(cls, storage: Storage, run_folder: str) -> list[Journal]:
        """Read the journals that a run folder holds."""
        folders = [
            f"{run_folder}/tracking/{name}" for name in storage.names(f"{run_folder}/tracking")
        ]
        return [
            cls(storage, folder, _read(storage, f"{folder}/run.json", RunEntry))
            for folder in folders
            if storage.exists(f"{folder}/run.json")
        ]

    @property
    def key(self) -> str:
        """The identity of the run among those of all storages."""
        return self.run.info.key

    def keep(self, **changes: Any) -> None:
        """Replace some fields of :attr:`run`."""
        self.run = self.run.model_copy(update=changes)
        self._write("run.json", _sealed(self.run))

    def keep_trial(self, entry: TrialEntry) -> None:
        """Replace what is known of a trial."""
        self._write(f"trials/{entry.record.spec.id}.json", _sealed(entry))

    def keep_artifact(self, name: str, data: bytes) -> None:
        """Replace a file of the run."""
        self._write(f"artifacts/{name}", data)
        self.keep(artifacts=tuple(dict.fromkeys((*self.run.artifacts, name))))

    def trials(self) -> Iterator[TrialEntry]:
        """Read the trials, in the order of their ids."""
        for name in self._storage.names(f"{self._folder}/trials"):
            yield _read(self._storage, f"{self._folder}/trials/{name}", TrialEntry)

    def artifacts(self) -> Iterator[tuple[str, bytes]]:
        """Read the files of the run.

        Raises:
            Missing: one is not there.
        """
        for name in self.run.artifacts:
            path = f"{self._folder}/artifacts/{name}"
            try:
                yield name, self._storage.read_bytes(path)
            except FileNotFoundError:
                raise Missing(f"{self._storage.shown}/{path} is not there", _AGAIN, path) from None

    def _write(self, name: str, data: bytes) -> None:
        path = f"{self._folder}/{name}"
        with suppress(FileNotFoundError):
            if self._storage.read_bytes(path) == data:
                return  # a repeated run says what it said before
        self._storage.write_bytes(path, data)


def _before(storage: Storage, folder: str) -> RunEntry | None:
    """Return what a journal says of its run, if it can be read: all of it is told again."""
    try:
        return _read(storage, f"{folder}/run.json", RunEntry)
    except Missing:
        return None
    except Damaged as error:
        logger.warning("%s: it is written anew", error.what)
        return None


def _origin(storage: Storage, folder: str) -> str:
    """Return what tells the run from others, kept by itself: a new one would be another run."""
    path = f"{folder}/{_ORIGIN}"
    if storage.exists(path):
        kept = storage.read_bytes(path).decode(errors="replace")
        if re.fullmatch(r"[0-9a-f]{12}", kept):
            return kept
    drawn = uuid.uuid4().hex[:12]
    storage.write_bytes(path, drawn.encode())
    return drawn


def _sealed(entry: _Entry) -> bytes:
    """Return an entry as JSON with a checksum."""
    content = sealed(json.loads(entry.model_dump_json()))
    return json.dumps(content, indent=2, ensure_ascii=False).encode()


def _read(storage: Storage, path: str, entry: type[M]) -> M:
    try:
        return entry.model_validate_json(json.dumps(storage.read_sealed(path)))
    except Missing:
        raise
    except Damaged as error:
        what = error.what
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        what = f"{storage.shown}/{path} is damaged or of another version: {message}"
    raise Damaged(what, _remedy(path), path)


def _remedy(path: str) -> str:
    if path.endswith("/run.json"):
        return "run the configuration again (djsandbox run): it is written anew"
    jobs = f"{path.partition('/tracking/')[0]}/jobs"
    return (
        f"remove it, and the marker of the job that ran the trial ({jobs}/trials.json, or that of "
        "a later study), and run the configuration again: it is told anew, nothing is trained again"
    )


class Recorded(Tracker):
    """Keeps a :class:`Journal` in the run's folder, from which ``replay`` sends everything again.

    Trials are written in the background: a run that is killed tells all of them again.

    Args:
        tracker: is told the same.
        folder: of the run, in the storage.
    """

    def __init__(self, tracker: Tracker, folder: str) -> None:
        super().__init__(tracker.config, tracker.storage)
        self._tracker = tracker
        self._folder = folder
        self._kept: Journal | None = None
        self._writes = Backlog("tracking journal")

    @property
    def ui_command(self) -> str | None:
        """That of the tracker."""
        return self._tracker.ui_command

    @property
    def address(self) -> str:
        """That of the tracker."""
        return self._tracker.address

    def start(self, run: RunInfo) -> None:
        """Begin the journal of a run, or go on with it."""
        shown = replace(run, params=masked(run.params), tags=masked(run.tags))
        self._kept = Journal.begin(self.storage, self._folder, shown, self.address)
        self._tracker.start(replace(shown, key=self._kept.key))

    def dataset(self, dataset: DatasetInput) -> None:
        """Keep an input of the run."""
        known = self._journal.run.datasets
        self._journal.keep(datasets=tuple(dict.fromkeys((*known, dataset))))
        self._tracker.dataset(dataset)

    def trial(
        self,
        record: TrialRecord,
        tags: Mapping[str, str],
        params: Mapping[str, str],
        inputs: Sequence[DatasetInput] = (),
    ) -> None:
        """Keep the newest record of a trial; its traceback is in the trial's own file."""
        tags, params = masked(tags), masked(params)
        shown = replace(record, traceback=None)
        entry = TrialEntry(record=shown, tags=tags, params=params, inputs=tuple(inputs))
        self._writes.put(record.spec.id, partial(self._journal.keep_trial, entry))
        self._tracker.trial(record, tags, params, inputs)

    def judged(self, stage: str, pools: Sequence[PoolVerdict]) -> None:
        """Keep the verdicts on the pools of a study."""
        self._writes.flush()
        self._journal.keep(judged={**self._journal.run.judged, stage: tuple(pools)})
        self._tracker.judged(stage, pools)

    def metrics(self, values: Mapping[str, float], time_ms: int | None = None) -> None:
        """Keep numbers of the run, each with the time at which it was first told."""
        self._writes.flush()  # the trials that they were made of
        now = time_ms or time.time_ns() // 1_000_000
        known = self._journal.run.metrics
        new = {
            name: (value, now)
            for name, value in values.items()
            if name not in known or known[name][0] != value
        }
        self._journal.keep(metrics={**known, **new})
        self._tracker.metrics(values, now)

    def artifact(self, name: str, data: bytes) -> None:
        """Keep a file of the run."""
        self._writes.flush()
        self._tracker.artifact(name, data)  # first, as it refuses what is no relative path
        self._journal.keep_artifact(name, data)

    def describe(self, text: str) -> None:
        """Keep what the run has found."""
        shown = without_secrets(text)
        self._journal.keep(description=shown)
        self._tracker.describe(shown)

    def finish(self, ok: bool, within: float | None = None) -> int:
        """Keep how the run ended, if it began.

        Raises:
            StorageFailed: that cannot be kept, of a run that came to its end.
        """
        try:
            if self._kept is not None:
                self._writes.flush(within)
                self._kept.keep(ok=ok)
        except StorageFailed:
            if ok:
                raise  # else it is why the run ends, which is being said
        return self._tracker.finish(ok, within)

    @property
    def _journal(self) -> Journal:
        if self._kept is None:
            raise RuntimeError("the tracker was not started")
        return self._kept


@dataclass(frozen=True)
class Replayed:
    """What was told."""

    runs: int
    """Configurations that were run under the run's name."""
    trials: int
    unsent: int
    """Things that could not be sent; telling them again is never wrong."""


def replay(storage: Storage, folder: str, new_tracker: Callable[[], Tracker]) -> Replayed:
    """Tell trackers all that the runs of a folder have recorded; what they know changes nothing.

    A run that was cut off ends as failed. The run must not be running.

    Args:
        storage: where the run lies.
        folder: of the run, in the storage.
        new_tracker: makes a tracker; one per configuration that was run.

    Raises:
        BadInput: nothing was recorded in the folder, or a file of it is damaged.
    """
    journals = Journal.all(storage, folder)
    if not journals:
        raise BadInput(
            f"{folder} in {storage.shown} holds nothing to send: no run of that name was started "
            "in this storage"
        )
    told = [_tell(journal, new_tracker()) for journal in journals]
    trials, unsent = (sum(column) for column in zip(*told, strict=True))
    return Replayed(len(journals), trials, unsent)


def _tell(journal: Journal, tracker: Tracker) -> tuple[int, int]:
    run = journal.run
    tracker.start(run.info)
    trials = 0
    for entry in journal.trials():
        tracker.trial(entry.record, entry.tags, entry.params, entry.inputs)
        trials += 1
    for stage, pools in run.judged.items():
        tracker.judged(stage, pools)
    by_time: dict[int, dict[str, float]] = defaultdict(dict)
    for name, (value, time_ms) in run.metrics.items():
        by_time[time_ms][name] = value
    for time_ms, values in by_time.items():
        tracker.metrics(values, time_ms)
    for name, data in journal.artifacts():
        tracker.artifact(name, data)
    if run.description:
        tracker.describe(run.description)
    return trials, tracker.finish(run.ok is True)

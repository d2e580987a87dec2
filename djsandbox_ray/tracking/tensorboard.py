"""The TensorBoard tracker: a folder of event files per trial, and one of the run as a whole.

``<folder>/<run>-<key>/<stage>/<pool>/seed-<n>/`` has the numbers of a trial, step = samples seen;
``<folder>/<run>-<key>/run/`` has those of the run, its verdicts as tables, and its pictures. What a
file of an earlier process says of a trial is written anew, in its place: nothing is there twice.
"""

from __future__ import annotations

import io
import itertools
import math
import os
import re
import shlex
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from PIL import Image, UnidentifiedImageError

from djsandbox_ray.errors import BadInput
from djsandbox_ray.identity import content_id
from djsandbox_ray.records import TrialRecord, TrialState
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.tracking.outbox import Refused
from djsandbox_ray.tracking.queued import Queued, QueuedConfig, Writer
from djsandbox_ray.tracking.rungs import mark, numbers, unsent
from djsandbox_ray.tracking.tracker import DatasetInput, PoolVerdict, RunInfo

_OURS = re.compile(r"events\.out\.tfevents\..+\.\d+\.\d{6}")
"""Files that :meth:`EventFiles._file` has named."""
_RUN = "run"
_LONGEST_NAME = 200
"""Characters of a folder's name; a longer one ends in a fingerprint."""


class TensorBoardConfig(QueuedConfig):
    """Where event files are written."""

    type: str = "tensorboard"
    folder: str | None = None
    """A folder of this machine; by default ``tensorboard`` in a local storage."""


class TensorBoardTracker(Queued):
    """Writes event files, which TensorBoard reads while they grow.

    Raises:
        BadInput: no folder is named, and the storage is not on a local disk.
    """

    Config = TensorBoardConfig
    config: TensorBoardConfig

    def __init__(self, config: TensorBoardConfig, storage: Storage) -> None:
        super().__init__(config, storage)
        if config.folder is None and not storage.is_local:
            raise BadInput(
                f"tracking.folder: event files are written to a local folder, and the storage "
                f"{storage.shown!r} is none: name one"
            )
        self._folder = Path(config.folder or storage.uri("tensorboard"))

    @property
    def ui_command(self) -> str:
        """The command that opens TensorBoard."""
        return f"tensorboard --logdir {shlex.quote(str(self._folder))}"

    @property
    def receiver(self) -> str:
        """The folder."""
        return f"TensorBoard's folder {self._folder}"

    def open(self, run: RunInfo) -> EventFiles:
        """Return what writes the event files of a run."""
        return EventFiles(self._folder / f"{run.name}-{content_id('tb', run.key)[-6:]}", run)


class EventFiles(Writer):
    """Writes the event files of one sandbox run.

    Args:
        folder: of the run.
        run: the sandbox run.
    """

    def __init__(self, folder: Path, run: RunInfo) -> None:
        self._folder, self._run = folder, run
        self._count = itertools.count()
        self._written: dict[Path, tuple[str, TrialState]] = {}
        """By the folder of a trial, what this process has written: a mark of its reports."""
        self._begun = False

    def start(self) -> None:
        """Begin the files of the run."""
        self._tell()

    def trial(
        self,
        record: TrialRecord,
        tags: Mapping[str, str],
        params: Mapping[str, str],
        inputs: Sequence[DatasetInput] = (),
    ) -> None:
        """Write the reports of a trial that are not there."""
        spec, reports = record.spec, record.reports
        parts = (tags.get("stage", "trials"), *spec.pool.split("/"), f"seed-{spec.seed}")
        folder = self._folder.joinpath(*map(_named, parts))
        before, state = self._written.get(folder, ("", None))
        new = unsent(reports, before) if state is not None else None
        events: list[tuple[Any, int]] = []
        if new is None:  # of an earlier process, or of another attempt
            _clear(folder)
            new, state = reports, None
            facts = {key: text for key, text in {**tags, **params}.items() if key != "state"}
            events.append((_text("trial", _table(("", ""), facts.items())), 0))
        for report in new:
            events += [
                (_scalar(name, value), report.samples) for name, value in numbers(report).items()
            ]
        if record.state is not state:
            said = f"{record.state}: {record.error}" if record.error else str(record.state)
            events.append((_text("state", said), reports[-1].samples if reports else 0))
        if events:
            self._append(folder, events)
        longer = new or not before
        self._written[folder] = (mark(reports) if longer else before, record.state)

    def judged(self, stage: str, pools: Sequence[PoolVerdict]) -> None:
        """Write the verdicts of a study as a table, best first."""
        heads = ("rank", "pool", "change", "verdict")
        rows = [
            (str(one.rank), one.pool, _change(one.change), one.verdict)
            for one in sorted(pools, key=lambda pool: pool.rank)
        ]
        table = _table(heads, rows)
        self._tell(_text(f"verdicts/{stage}", table))

    def metrics(self, numbers: Mapping[str, float], time_ms: int) -> None:
        """Write numbers of the run."""
        summaries = [_scalar(name, value) for name, value in numbers.items()]
        self._tell(*summaries, seconds=time_ms / 1000)

    def artifact(self, name: str, data: bytes) -> None:
        """Show pictures and Markdown; TensorBoard shows no other files."""
        if name.endswith(".png"):
            self._tell(_picture(name, data))
        elif name.endswith(".md"):
            self._tell(_text(name, data.decode()))

    def describe(self, text: str) -> None:
        """Write what the run has found."""
        self._tell(_text("answer", text))

    def end(self, ok: bool) -> None:
        """Say how the run ended."""
        self._tell(_text("state", "COMPLETED" if ok else "FAILED"))

    def _tell(self, *summaries: Any, seconds: float | None = None) -> None:
        """Write summaries of the run as a whole.

        Those of an earlier process go first: all that they hold is told again.
        """
        folder, told = self._folder / _RUN, list(summaries)
        if not self._begun:
            _clear(folder)
            facts = {**self._run.params, **self._run.tags}
            told = [_text("run", _table(("", ""), facts.items())), *told]
        if told:
            self._append(folder, [(summary, 0) for summary in told], seconds)
        self._begun = True

    def _append(
        self, folder: Path, events: Iterable[tuple[Any, int]], seconds: float | None = None
    ) -> None:
        """Write summaries, each with its step, to a file of their own."""
        with self._file(folder) as file:
            from tensorboardX.proto.event_pb2 import Event

            for summary, step in events:
                moment = time.time() if seconds is None else seconds
                file.write_event(Event(summary=summary, step=step, wall_time=moment))

    @contextmanager
    def _file(self, folder: Path) -> Iterator[Any]:
        # The writer of tensorboardX has a thread and a queue of its own: here is one already.
        from tensorboardX.event_file_writer import EventsWriter

        folder.mkdir(parents=True, exist_ok=True)
        # Files are read in the order of their names, which begin with the second.
        suffix = f".{os.getpid()}.{next(self._count):06d}"
        with closing(EventsWriter(str(folder / "events"), suffix)) as file:
            yield file


def _clear(folder: Path) -> None:
    for path in folder.glob("*"):
        if _OURS.fullmatch(path.name):
            path.unlink()


def _named(part: str) -> str:
    """Return the name of a folder."""
    name = re.sub(r"[^\w.&=+-]", "_", part).lstrip(".") or "_"
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_NAME]}-{content_id('name', part)[-6:]}"


def _scalar(name: str, value: float) -> Any:
    from tensorboardX.proto.summary_pb2 import Summary

    # Its own function warns of every NaN, which a trial that diverged has.
    tag = re.sub(r"[^-/\w.]", "_", name)
    return Summary(value=[Summary.Value(tag=tag, simple_value=value)])


def _text(name: str, text: str) -> Any:
    from tensorboardX.summary import text as summary_of

    return summary_of(name, text)


def _picture(name: str, data: bytes) -> Any:
    from tensorboardX.proto.summary_pb2 import Summary

    try:
        with Image.open(io.BytesIO(data)) as image:
            width, height, channels = *image.size, len(image.getbands())
    except UnidentifiedImageError:
        raise Refused("it is no picture") from None
    shown = Summary.Image(
        height=height, width=width, colorspace=channels, encoded_image_string=data
    )
    return Summary(value=[Summary.Value(tag=name, image=shown)])


def _change(change: float) -> str:
    return f"{change:+.4g}" if math.isfinite(change) else "-"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in lines)

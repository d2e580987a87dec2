"""The videos that models have made, kept in the storage: none is made twice.

``videos/<training id>/<samples>/<sampling id>/`` holds them, each written as soon as it is made, so
that a kill loses those alone that a model makes together. ``<key>.<digest>.mp4``: the key is that
of the prompt and the number of the video, whoever wanted it; by the digest of the file, one that is
not what was written is known, and made again. Beside them lies what was measured of them, so that
most videos need not stay.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import pyarrow as pa

from djsandbox_ray.errors import BadInput, Damaged, SandboxError
from djsandbox_ray.evaluation.answer_store import AnswerStore, Unanswered
from djsandbox_ray.evaluation.video.video_files import SUFFIX, Frames, file_name, video_bytes
from djsandbox_ray.evaluation.video.wanted import SamplingConfig, VideoMaker, WantedVideo
from djsandbox_ray.identity import content_id
from djsandbox_ray.storage.store import Storage

logger = logging.getLogger(__name__)

FOLDER = "videos"
BATCH = 16
"""Videos that a model is asked for at a time."""
Measured = Mapping[str, Sequence[float]]
"""Numbers by key: of one video each, or of all together under the empty key."""
_SCHEMA = pa.schema([("key", pa.string()), ("values", pa.list_(pa.float64()))])
_TABLE = ".parquet"
_DIGEST_BYTES = 8
_SHARED = "reference"


class Videos(Protocol):
    """Where an evaluator has its videos from, and where it keeps what it has measured."""

    cpus: float
    """For whoever measures."""
    gpus: float

    def each(self, wanted: Sequence[WantedVideo]) -> Iterator[tuple[WantedVideo, bytes]]:
        """Yield videos as MP4 files, in order; one of several that are wanted once each."""

    def kept(self, name: str, keys: Iterable[str]) -> dict[str, list[float]] | None:
        """Return what was measured of videos, if it is there for all of some keys."""

    def keep(self, name: str, measured: Measured) -> None:
        """Keep what was measured."""

    def shared(self, name: str, keys: Iterable[str]) -> dict[str, list[float]] | None:
        """Return what was measured once for all models, as :meth:`kept`."""

    def share(self, name: str, measured: Measured) -> None:
        """Keep what was measured once for all models."""


def sampling_id(sampling: SamplingConfig, asking: int) -> str:
    """Return what stands for a way to make videos.

    Args:
        sampling: the settings.
        asking: the version of what is asked.
    """
    return content_id("sampling", sampling.model_dump(mode="json"), asking)


class StoredVideos:
    """Videos out of a folder of the storage, and of a model where they are not there.

    Args:
        store: of the model's answers: training and samples say where its videos are.
        sampling: how they are made.
        asking: the version of what is asked.
        maker: the model; None where there is none.
    """

    def __init__(
        self,
        store: AnswerStore,
        sampling: SamplingConfig,
        asking: int = 1,
        maker: VideoMaker | None = None,
    ) -> None:
        self._storage, self._sampling, self._maker = store.storage, sampling, maker
        self._folder = f"{FOLDER}/{store.training}/{store.samples}/{sampling_id(sampling, asking)}"
        self._names: dict[str, list[str]] | None = None
        self.cpus = 1.0 if maker is None else maker.cpus
        self.gpus = 0.0 if maker is None else maker.gpus

    def each(self, wanted: Sequence[WantedVideo]) -> Iterator[tuple[WantedVideo, bytes]]:
        """Make what is not stored, and yield all as files, one at a time, in order.

        Raises:
            Unanswered: some are not stored, and there is no model.
            SandboxError: the model makes other videos than it was asked for.
        """
        lacking = [one for one in wanted if one.key not in self._listed]
        self._make(lacking, len(wanted))
        for one in wanted:
            data = self._read(one)
            if data is None:
                self._make([one], len(wanted))
                data = self._read(one)
            if data is None:
                raise SandboxError(f"{self._where}: {one.key} is not what was written just now")
            yield one, data

    def there(self, wanted: Iterable[WantedVideo]) -> Iterator[tuple[WantedVideo, bytes]]:
        """Yield those of some videos that are stored, as files, one at a time, in order."""
        for one in wanted:
            if (data := self._read(one, again=False)) is not None:
                yield one, data

    def kept(self, name: str, keys: Iterable[str]) -> dict[str, list[float]] | None:
        """See :meth:`Videos.kept`; a file that is damaged does not count."""
        return _measured(self._storage, f"{self._folder}/{name}{_TABLE}", keys)

    def keep(self, name: str, measured: Measured) -> None:
        """See :meth:`Videos.keep`."""
        self._storage.write_table(f"{self._folder}/{name}{_TABLE}", _table(measured))

    def shared(self, name: str, keys: Iterable[str]) -> dict[str, list[float]] | None:
        """See :meth:`Videos.shared`."""
        return _measured(self._storage, f"{FOLDER}/{_SHARED}/{name}{_TABLE}", keys)

    def share(self, name: str, measured: Measured) -> None:
        """See :meth:`Videos.share`."""
        self._storage.write_table(f"{FOLDER}/{_SHARED}/{name}{_TABLE}", _table(measured))

    def drop(self, keys: Iterable[str]) -> None:
        """Remove videos; what was measured of them stays."""
        for key in keys:
            for name in self._listed.pop(key, ()):
                self._storage.remove(f"{self._folder}/{name}")

    @property
    def _where(self) -> str:
        return f"{self._storage.shown}/{self._folder}"

    @property
    def _listed(self) -> dict[str, list[str]]:
        """The files that are there, by key."""
        if self._names is None:
            self._names = {}
            for name in self._storage.names(self._folder):
                if name.endswith(SUFFIX):
                    self._names.setdefault(name.partition(".")[0], []).append(name)
        return self._names

    def _make(self, wanted: Sequence[WantedVideo], of: int) -> None:
        """Have videos made, and keep each.

        Raises:
            Unanswered: there is no model.
        """
        if not wanted:
            return
        if self._maker is None:
            raise Unanswered(
                f"{self._where}: {len(wanted)} of {of} videos are not there, the first of "
                f"{wanted[0].prompt!r:.60}; they take the model, which is gone"
            )
        once = list({one.key: one for one in wanted}.values())
        for start in range(0, len(once), BATCH):
            batch = once[start : start + BATCH]
            made = iter(self._maker.videos(batch, self._sampling))
            for one in batch:
                frames = next(made, None)
                if frames is None:
                    raise SandboxError(
                        f"the model was asked for {len(batch)} videos, and made fewer; none of "
                        f"{one.prompt!r:.60}"
                    )
                self._write(one, frames)
            if next(made, None) is not None:
                raise SandboxError(f"the model made more than the {len(batch)} videos it was asked")

    def _write(self, one: WantedVideo, frames: Frames) -> None:
        wanted = (self._sampling.frames, *self._sampling.size, 3)
        if tuple(frames.shape) != wanted:
            raise SandboxError(
                f"the model made {tuple(frames.shape)} of {one.prompt!r:.60}; sampling asks for "
                f"(frames, height, width, 3) = {wanted}"
            )
        data = video_bytes(frames, self._sampling.fps)
        name = f"{one.key}.{_digest(data)}{SUFFIX}"
        self._storage.write_bytes(f"{self._folder}/{name}", data)
        self._listed[one.key] = [name]

    def _read(self, one: WantedVideo, *, again: bool = True) -> bytes | None:
        """Return a video; None if it is not what was written.

        Args:
            one: the video.
            again: whether it is then removed, to be made again.
        """
        for name in self._listed.get(one.key, ()):
            path = f"{self._folder}/{name}"
            try:
                data = self._storage.read_bytes(path)
            except FileNotFoundError:
                continue
            if name == f"{one.key}.{_digest(data)}{SUFFIX}":
                return data
            then = "made again" if again else "not shown"
            logger.warning(
                "%s/%s is not what was written: it is %s", self._storage.shown, path, then
            )
            if again:
                self._storage.remove(path)
        return None


class VideoFolder:
    """Videos that another program has made: ``<prompt>-<number>.mp4`` in one folder.

    Nothing is kept of what is measured.

    Args:
        folder: a local one.
        cpus: for whoever measures.
        gpus: as ``cpus``.
    """

    def __init__(self, folder: Path, cpus: float = 1.0, gpus: float = 0.0) -> None:
        self._folder, self.cpus, self.gpus = folder, cpus, gpus

    def check(self, wanted: Sequence[WantedVideo]) -> None:
        """Look whether all videos are there.

        Raises:
            BadInput: there is no such folder, or some are missing; says how many and which.
        """
        if not self._folder.is_dir():
            raise BadInput(f"{str(self._folder)!r} does not exist, or is no folder")
        names = [file_name(one.prompt, one.number) for one in wanted]
        lacking = [name for name in dict.fromkeys(names) if not (self._folder / name).is_file()]
        if lacking:
            raise BadInput(
                f"{str(self._folder)!r}: {len(lacking)} of {len(set(names))} videos are not there, "
                f"the first is {lacking[0]!r}"
            )

    def each(self, wanted: Sequence[WantedVideo]) -> Iterator[tuple[WantedVideo, bytes]]:
        """Yield videos as files, in order.

        Raises:
            BadInput: see :meth:`check`.
        """
        self.check(wanted)
        for one in wanted:
            yield one, (self._folder / file_name(one.prompt, one.number)).read_bytes()

    def kept(self, name: str, keys: Iterable[str]) -> dict[str, list[float]] | None:
        """Return nothing."""
        return None

    def keep(self, name: str, measured: Measured) -> None:
        """Do nothing."""

    shared, share = kept, keep


def laid_out(videos: Videos, wanted: Sequence[WantedVideo], folder: Path) -> None:
    """Write videos under VBench's names for them, for programs that read a folder.

    Args:
        videos: where they are from.
        wanted: which.
        folder: an empty one.

    Raises:
        BadInput: a prompt is no name for a file.
    """
    for one, data in videos.each(list(dict.fromkeys(wanted))):
        (folder / file_name(one.prompt, one.number)).write_bytes(data)


def _table(measured: Measured) -> pa.Table:
    keys, values = list(measured), [list(map(float, one)) for one in measured.values()]
    return pa.table([keys, values], schema=_SCHEMA)


def _measured(storage: Storage, path: str, keys: Iterable[str]) -> dict[str, list[float]] | None:
    """Return what a table holds, if that is something under each of some keys."""
    if not storage.exists(path):
        return None
    try:
        table = storage.read_table(path, _SCHEMA.names)
        found = dict(zip(table["key"].to_pylist(), table["values"].to_pylist(), strict=True))
    except Damaged as error:
        logger.warning("%s: it is measured again", error)
        return None
    return found if all(key in found for key in keys) else None


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).hexdigest()

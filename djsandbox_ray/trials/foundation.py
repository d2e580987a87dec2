"""What all trials of a family stand on: its base, and the data of its fixed stages; made once.

``models/<base id>/`` in the storage is the base. Runs share it, and the checkpoints on its way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ray

from djsandbox_ray.dataset.ingest import ingest, outcome
from djsandbox_ray.dataset.source import IngestConfig, Source
from djsandbox_ray.identity import content_id
from djsandbox_ray.nodes.kinds import bundle
from djsandbox_ray.nodes.waiting import Bundles
from djsandbox_ray.records import Cost, Dataset, Foundation
from djsandbox_ray.storage.lease import Lease
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.base import Base, BaseTask
from djsandbox_ray.trials.checkpoint import Checkpoint
from djsandbox_ray.trials.family import ModelFamily, check_numerics
from djsandbox_ray.trials.shared_folder import SharedFolder, result_under

_MARKER = "base.json"


class Ground:
    """Lays the foundation of trials.

    Args:
        storage: of the run.
        settings: how data are read.
        await_room: waits until the cluster has room for a group, or raises.
        note: told what is being done, in lines.
    """

    def __init__(
        self,
        storage: Storage,
        settings: IngestConfig,
        await_room: Callable[[Bundles, str], None],
        note: Callable[[str], None],
    ) -> None:
        self._storage, self._settings = storage, settings
        self._await_room, self._note = await_room, note

    def lay(self, family: ModelFamily) -> tuple[Foundation, Cost]:
        """Return what a family's trials stand on, and what it has cost now.

        Raises:
            BadInput: its data cannot be read, or what its base is made of cannot be used.
        """
        start = time.perf_counter()
        fixed = {name: self._read(source, name) for name, source in family.sources().items()}
        base, base_id, cost = family.base(), "", _NOTHING
        if base is not None:
            base_id, cost = self._base(base, family)
        known = {name: data.id for name, data in fixed.items()}
        found = content_id("foundation", base_id, known) if base_id or known else ""
        path = f"models/{base_id}" if base_id else ""
        seconds = time.perf_counter() - start
        return Foundation(found, path, fixed), _with_seconds(cost, seconds)

    def _read(self, source: Source, name: str) -> Dataset:
        settings = self._settings
        dataset = ingest(
            source,
            self._storage,
            max_rejected=settings.max_rejected,
            videos=settings.videos,
            resources=settings.resources,
            await_room=self._await_room,
            note=lambda text: self._note(f"{name}: {text}"),
        )
        self._note(f"{name}: {outcome(self._storage, dataset)}")
        return dataset

    def _base(self, base: Base, family: ModelFamily) -> tuple[str, Cost]:
        """Return the id of a base that is there, or is made now, and what that has cost."""
        trusted = {
            name: self._read(source, f"base {name}") for name, source in base.sources().items()
        }
        numerics = family.numerics(base.gpus) if trusted else {}
        known = {name: data.id for name, data in trusted.items()}
        base_id = content_id("base", base.identity(), known, numerics)
        cost = _NOTHING

        def make(lease: Lease) -> None:
            nonlocal cost
            cost = self._have_made(base, base_id, trusted, family, numerics, lease)

        folder = _folder(self._storage, f"models/{base_id}")
        folder.make_once(f"the base {base_id}", make, lambda text: self._note(f"base: {text}"))
        if trusted:
            clear_steps(self._storage, base_id)
        return base_id, cost

    def _have_made(
        self,
        base: Base,
        base_id: str,
        trusted: Mapping[str, Dataset],
        family: ModelFamily,
        numerics: dict[str, str],
        lease: Lease,
    ) -> Cost:
        self._await_room([bundle(base.cpus, base.gpus, base.nodes)], "trials.model.base")
        tables = {name: self._storage.uri(data.table) for name, data in trusted.items()}
        task: Any = ray.remote(
            num_cpus=base.cpus, num_gpus=base.gpus, resources=base.nodes.demand()
        )(_make)
        done = task.options(name="make the base").remote(
            self._storage.url, base_id, tables, base, family, numerics, lease.owner
        )
        found, seconds = result_under(lease, done)
        said = ", ".join(f"{name} {value:.3f}" for name, value in found.items())
        self._note(f"base: made{': ' if said else ''}{said}")
        return Cost(
            stage="base",
            samples=base.samples(),
            flops=base.flops(),
            cpu_seconds=seconds * base.cpus,
            gpu_seconds=seconds * base.gpus,
            wall_seconds=seconds,
        )


_NOTHING = Cost("base", samples=0, flops=0.0, cpu_seconds=0, gpu_seconds=0, wall_seconds=0)


def _with_seconds(cost: Cost, seconds: float) -> Cost:
    return Cost(cost.stage, cost.samples, cost.flops, cost.cpu_seconds, cost.gpu_seconds, seconds)


def broken_base(storage: Storage, path: str) -> dict[str, str]:
    """Return what is wrong with the files of a base, by path; empty where it is whole."""
    return _folder(storage, path).broken()


def clear_steps(storage: Storage, base_id: str) -> None:
    """Remove the checkpoints of a base that is there: its maker may have been killed just then."""
    for name in storage.names("trials"):
        if name.startswith(f"{base_id}-"):
            Checkpoint(storage.url, name).remove()


def _folder(storage: Storage, path: str) -> SharedFolder:
    return SharedFolder(storage, path, _MARKER)


def _make(
    url: str,
    base_id: str,
    tables: dict[str, str],
    base: Base,
    family: ModelFamily,
    numerics: dict[str, str],
    owner: str,
) -> tuple[dict[str, float], float]:
    """Make a base; return what is worth knowing of it, and the seconds that it took.

    Args:
        url: of the storage.
        base_id: names its folder.
        tables: the URIs of its trusted data, by name.
        base: makes it.
        family: whose base it is.
        numerics: that it is named after; empty where nothing is trained.
        owner: of the lease.

    Raises:
        Lost: another run makes it now.
        OtherNumbers: this node has other libraries than the driver, after which it is named.
    """
    start = time.perf_counter()
    if numerics:
        check_numerics(family, base.gpus, numerics)
    kept: dict[str, Checkpoint] = {}

    def checkpoint(part: str) -> Checkpoint:
        return kept.setdefault(part, Checkpoint(url, f"{base_id}-{part}"))

    found: dict[str, float] = {}

    def fill(folder: Path) -> dict[str, Any]:
        found.update(base.make(BaseTask(tables, folder, checkpoint, base.cpus, base.gpus)))
        return {"found": found}

    _folder(Storage(url), f"models/{base_id}").write(fill, owner)
    for part in kept.values():
        part.remove()
    return found, time.perf_counter() - start

"""Whose checkpoints are whose: two runs may train the same trial at once, each in its own folder.

``trials/<trial id>/<run>@<number>/`` belongs to the driver that holds the lease of that number on
the run, and to its workers. A driver takes over what former drivers of its run have left, whose
lease it has; of another run it copies the newest rung, and removes nothing as long as that run may
be alive.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache

from djsandbox_ray.storage.lease import has_ended
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.checkpoint import DONE, Checkpoint
from djsandbox_ray.trials.strategies.strategy import Group

_OWNER = re.compile(r"(?P<run>[A-Za-z0-9][A-Za-z0-9._-]*)@(?P<number>\d{6,})")


def owner_name(run: str, number: int) -> str:
    """Name the folders of a driver by the run and the number of its lease."""
    return f"{run}@{number:06d}"


def lease_path(run: str) -> str:
    """Return where the lease of a run lies in the storage."""
    return f"runs/{run}/lease"


def take_over(storage: Storage, trials: Collection[str], owner: str, group: Group) -> None:
    """Make what is left of trials this driver's own, so that they go on from there.

    Args:
        storage: of the trials.
        trials: their ids.
        owner: this driver.
        group: as that of which checkpoints count.
    """
    for trial in sorted(set(storage.names("trials")) & set(trials)):
        names = {*_owners(storage, trial), owner}
        found = {name: _samples(storage, trial, name, group) for name in names}
        # Not the newest driver's first: a move that was cut off has left only a part there.
        former = sorted(
            (name for name in names if _is_former(name, owner)),
            key=lambda name: (found[name], name),
        )
        if former and not storage.exists(f"trials/{trial}/{owner}"):
            most = former.pop()
            storage.move(f"trials/{trial}/{most}", f"trials/{trial}/{owner}")
            found[owner] = found.pop(most)
        best = max(found, key=lambda name: (found[name], name == owner))
        if found[best] > found[owner]:
            _copy(storage, trial, best, owner, found[best])
        for name in former:
            storage.remove(f"trials/{trial}/{name}")


def clear(storage: Storage, trials: Collection[str], owner: str) -> None:
    """Remove the checkpoints of trials that are over: this run's, and those of runs that ended."""

    @cache
    def ended(name: str) -> bool:
        match = _OWNER.fullmatch(name)
        return match is not None and has_ended(storage, lease_path(match["run"]))

    for trial in sorted(set(storage.names("trials")) & set(trials)):
        for name in _owners(storage, trial):
            if name == owner or _is_former(name, owner) or ended(name):
                Checkpoint(storage.url, trial, owner=name).remove()


def _owners(storage: Storage, trial: str) -> list[str]:
    folder = f"trials/{trial}"
    names = [name for name in storage.names(folder) if _OWNER.fullmatch(name)]
    return [name for name in names if not storage.is_link(f"{folder}/{name}")]


def _is_former(name: str, owner: str) -> bool:
    """Say whether a folder is that of an earlier driver of the run: its lease is ours now.

    That of a later one is not: whoever was taken over may not know of it yet.
    """
    run, _, number = name.partition("@")
    ours, _, mine = owner.partition("@")
    return run == ours and int(number) < int(mine)


def _samples(storage: Storage, trial: str, owner: str, group: Group) -> int:
    """Return the samples seen at the newest rung that counts; 0 if there is none."""
    return Checkpoint(storage.url, trial, group, owner).samples()


def _copy(storage: Storage, trial: str, source: str, target: str, samples: int) -> None:
    """Copy a rung, last what makes it count: its owner may remove it at any moment, that first."""
    there, here = (f"trials/{trial}/{owner}/{samples}" for owner in (source, target))
    try:
        storage.remove(here)
        storage.copy(there, here, [name for name in storage.stamps(there) if name != DONE])
        storage.copy(there, here, [DONE])
    except FileNotFoundError:
        storage.remove(here)

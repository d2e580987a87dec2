"""What drivers that were killed have left: gone after the next start, and nothing else with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from djsandbox_ray.errors import BadInput
from djsandbox_ray.outside.environment import node_folder
from djsandbox_ray.storage.lease import WATCH
from djsandbox_ray.storage.own import clear_scratch, own_folder
from djsandbox_ray.storage.parts import Leftovers
from djsandbox_ray.storage.store import Storage

_SHARED = ("trials", "datasets", "rejected", "acceptances", "models", "answers", "videos")
"""Folders of a storage that several runs write."""


@contextmanager
def cleared(storage: Storage, run: str) -> Iterator[None]:
    """Clear away what is known to be left, at the start; at the end, what must be looked at twice.

    Temporary folders of other nodes are cleared there, when the next one is made.

    Args:
        storage: of the run.
        run: whose lease is held.
    """
    for root in (partial(own_folder, "tmp"), partial(node_folder, "scratch")):
        with suppress(OSError, BadInput):  # whoever needs it says what is wrong with it
            clear_scratch(root())
    folders = [f"runs/{run}", *_SHARED] if storage.is_local else []
    left = Leftovers([Path(storage.uri(folder)) for folder in folders], WATCH)
    yield
    left.look_again()

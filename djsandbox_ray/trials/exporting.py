"""Trained models as folders for others, in the format of the library that they are of.

What later trials go on from is kept in another way (:func:`.shared_folder.kept_model`): while a
trial trains, only what it has changed of its base, as its family reads that again, in a folder that
runs share and that stands for what decides the weights. An export is asked for when the run is
over, is a whole model as it was evaluated, needs nothing of ours to be loaded, and belongs to one
run. Neither stands for the other: what is kept is no model without its base, and of a whole model
nobody can tell any more what was changed.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from djsandbox_ray.errors import BadInput, SandboxError, require
from djsandbox_ray.evaluation.evaluator import Artefact, Saved
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.shared_folder import SharedFolder

EXPORTED = "exported.json"
"""Says beside a model what it is, :class:`Exported`, with size and digest of its files."""


@dataclass(frozen=True)
class Exported:
    """What a folder with a model holds."""

    library: str = ""
    """That loads it, by the hub's name: ``open_clip``, ``transformers``, ``diffusers``; empty where
    only the program that made it can."""
    task: str = ""
    """What it does, in the hub's words: ``image-text-to-text``."""
    loading: str = ""
    """Python that loads it from the folder ``folder``."""


@runtime_checkable
class Exportable(Protocol):
    """A trained model, as evaluators see it, that can be had in the format of its library."""

    def export(self, folder: Path) -> Exported:
        """Write the model into an existing empty folder; it stays as it is.

        Raises:
            BadInput: the library has no counterpart for a part of it.
        """


def export_model(model: Any, storage: Storage, folder: str) -> None:
    """Put a model into a folder of a storage, in the place of an earlier one.

    Args:
        model: as an evaluator sees it.
        storage: where it is put.
        folder: of the storage.

    Raises:
        SandboxError: the model's family has no way to save it.
    """

    def fill(local: Path) -> dict[str, Any]:
        exported = Exported()
        if isinstance(model, Exportable):
            exported = model.export(local)
        elif isinstance(model, Artefact):
            shutil.copytree(model.folder, local, dirs_exist_ok=True)
        elif isinstance(model, Saved):
            model.save(local)
        else:
            raise SandboxError(f"a {type(model).__name__} has no way to be saved")
        return asdict(exported)

    _folder(storage, folder).write(fill)


def read_exported(storage: Storage, folder: str) -> Exported:
    """Return what a folder with a model says of it.

    Raises:
        Damaged: it cannot be read.
    """
    found = storage.read_sealed(f"{folder}/{EXPORTED}")
    return Exported(**{one.name: str(found.get(one.name, "")) for one in fields(Exported)})


def broken_export(storage: Storage, folder: str) -> dict[str, str]:
    """Return what is wrong with the files of a model, by path; empty where it is whole."""
    return _folder(storage, folder).broken()


def _folder(storage: Storage, folder: str) -> SharedFolder:
    return SharedFolder(storage, folder, EXPORTED)


def load_whole(empty: Any, state: dict[str, Any]) -> Any:
    """Return a model of a library that was made without numbers, with those of a trained one.

    Args:
        empty: on the meta device.
        state: weights by name, on the CPU.

    Raises:
        BadInput: they have other names; says which.
    """
    lacking = sorted(set(empty.state_dict()) ^ set(state))
    if lacking:
        raise BadInput(
            f"the model has parts for which {type(empty).__name__} has no counterpart, or lacks "
            f"some: {', '.join(lacking[:3])}"
        )
    empty.load_state_dict(state, assign=True)
    return empty.eval()


def emptied(make: Any, *args: Any) -> Any:
    """Return what ``make`` makes, on the meta device: without numbers."""
    with require("torch", "clip").device("meta"):
        return make(*args)

"""What a run has left in its folder: pools, recipes, and the dataset that they are about.

Sends to the tracker what a run has recorded: after an outage, or to another server.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar, get_args

import numpy as np
import yaml
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from djsandbox_ray.config import RunConfig, checked
from djsandbox_ray.errors import BadInput, Damaged
from djsandbox_ray.hooks.hook import HOOKS
from djsandbox_ray.records import Dataset, Evaluation, Pool, PoolKind, Pools
from djsandbox_ray.storage.lease import take
from djsandbox_ray.storage.seals import Seal, broken, seals_from_json
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.tracking.journal import Journal, Replayed, replay
from djsandbox_ray.tracking.tracker import TRACKERS
from djsandbox_ray.trials.ownership import lease_path
from djsandbox_ray.workflows.language.parameters import output_type

R = TypeVar("R")
_UNTRACKED = {"type": "none"}


class FinishedRun:
    """A run, or one round of a repeated one, read from its completion markers.

    Args:
        storage: where it lies.
        name: of the run; ``<run>/round-1`` for a later round.

    Raises:
        BadInput: there is no such run.
    """

    def __init__(self, storage: Storage, name: str) -> None:
        self.storage, self.name, self.folder = storage, name, f"runs/{name}"
        if not name or name.startswith("/") or {".", ".."} & set(name.split("/")):
            raise BadInput(f"{name!r} is not the name of a run")
        if not any(storage.exists(f"{self.folder}/{n}") for n in ("config.yaml", "run.json")):
            known = ", ".join(storage.names("runs")) or "none"
            raise BadInput(f"no run {name!r} in {storage.shown} (there are: {known})")

    def config(self) -> RunConfig:
        """Return the configuration of the run, as it was resolved, in the storage that this is.

        Raises:
            Damaged: it cannot be read.
            BadInput: it is no configuration of this version.
        """
        path = f"{self.folder}/config.yaml"
        where = f"{self.storage.shown}/{path}"
        try:
            document = yaml.safe_load(self.storage.read_bytes(path))
        except (yaml.YAMLError, FileNotFoundError, ValueError) as error:
            what = f"{where} is damaged: {str(error).splitlines()[0]}"
            raise Damaged(what, "run the configuration again (djsandbox run)", path) from None
        if not isinstance(document, dict):
            raise BadInput(f"{where} is no configuration")
        # By whom it was tracked does not matter here; nor are operators run, nor data read again.
        here = {**document, "storage": self.storage.url, "tracking": _UNTRACKED}
        return checked(here, where, elsewhere=True)

    def dataset(self) -> Dataset:
        """Return the data in question.

        Raises:
            BadInput: the run has not read it yet.
        """
        for job, found in self.outputs(Dataset):
            # The trusted split is a dataset, too.
            if self._hook(job) == "ingest":
                return found
        raise BadInput(f"the run {self.name!r} has not finished reading its dataset")

    def evaluation(self) -> Evaluation:
        """Return what models were measured on.

        Raises:
            BadInput: the run has measured none.
        """
        for _, found in self.outputs(Evaluation):
            return found
        raise BadInput(f"the run {self.name!r} has not read what models are measured on")

    def pools_with(self, name: str) -> list[tuple[Pools, Pool]]:
        """Return a pool with the pools beside it, once for every study that it was part of.

        Args:
            name: a pool's id; ``<job>:<id>`` where several jobs made different ones of that id.

        Raises:
            BadInput: there is no such pool, or several.
        """
        made = [
            (job, pools, pool)
            for job, pools in self.outputs(Pools)
            for pool in pools.pools
            if name in (pool.id, f"{job}:{pool.id}")
        ]
        if not made:
            raise BadInput(f"the run {self.name!r} has no pool {name!r} ({self._known_pools()})")
        if len({pool.hash for _, _, pool in made}) > 1:
            names = ", ".join(f"{job}:{pool.id}" for job, _, pool in made)
            raise BadInput(f"several pools are called {name!r}: name one of {names}")
        for path in {pools.assignments for _, pools, _ in made}:
            self._check(path, self._seals(self.folder))
        return [(pools, pool) for _, pools, pool in made]

    def pool_rows(self, name: str) -> NDArray[np.int64]:
        """Return the row ids of a pool.

        Args:
            name: see :meth:`pools_with`.

        Raises:
            BadInput: there is no such pool, or several, or one that is no set of rows or breaks a
                policy.
        """
        pools, pool = self.pools_with(name)[0]
        if pool.spoil:
            done = {"captions": "shuffles the captions", "frames": "repeats the first frames"}
            raise BadInput(
                f"pool {name!r}: every trial {done[pool.spoil]} of its draw; its rows alone are "
                "not what was trained on"
            )
        if pool.breaks:
            raise BadInput(
                f"pool {name!r} breaks a policy and is never exported: {'; '.join(pool.breaks)}"
            )
        return self._members(pools, pool)

    def evidence(self) -> list[dict[str, Any]]:
        """Return what speaks for every recipe of the run, with ``folder``, in order of names.

        Raises:
            Damaged: it is not what the run has written.
        """
        found = []
        rounds = [name for name in self.storage.names(self.folder) if name.startswith("round-")]
        for folder in [self.folder, *(f"{self.folder}/{name}" for name in rounds)]:
            seals = self._seals(folder)
            for name in self.storage.names(f"{folder}/recipes"):
                if name.endswith(".evidence.json"):
                    path = f"{folder}/recipes/{name}"
                    self._check(path, seals)
                    found.append({**self.storage.read_sealed(path), "evidence": path})
        return found

    def _members(self, pools: Pools, pool: Pool) -> NDArray[np.int64]:
        table = self.storage.read_table(pools.assignments, ["row_id", pool.column])
        members = table[pool.column].to_numpy() == pool.code
        return np.asarray(table["row_id"].to_numpy()[members], dtype=np.int64)

    def _known_pools(self) -> str:
        known = {
            pool.id: None
            for _, pools in self.outputs(Pools)
            for pool in pools.pools
            if pool.kind is PoolKind.BUCKET
        }
        return f"there are {', '.join(known)}" if known else "it has no pools yet"

    def settings(self) -> dict[str, Any]:
        """Return the configuration as plain data, as the run has written it down.

        Raises:
            Damaged: it cannot be read.
        """
        path = f"{self.folder}/config.yaml"
        try:
            return dict(yaml.safe_load(self.storage.read_bytes(path)))
        except (yaml.YAMLError, FileNotFoundError, ValueError, TypeError) as error:
            raise self.storage.damaged(path, str(error).splitlines()[0]) from None

    def outputs(self, kind: type[R]) -> Iterator[tuple[str, R]]:
        """Yield the outputs of one type, with their jobs, in the order of the jobs' names.

        Raises:
            Damaged: a completion marker is not what was written.
        """
        adapter, known = TypeAdapter(kind), fields(kind)  # type: ignore[arg-type]
        keys = {field.name for field in known}
        # An earlier version may have written less: what has a default since then.
        needed = {f.name for f in known if f.default is f.default_factory is MISSING}
        for name in self.storage.names(f"{self.folder}/jobs"):
            job = name.removesuffix(".json")
            output = self._marker(job).get("output")
            if not isinstance(output, dict) or not needed <= output.keys() <= keys:
                continue
            if not self._gives(job, kind):
                continue
            try:
                yield job, adapter.validate_python(output)
            except ValidationError as error:
                raise self.storage.damaged(self._path(job), error.errors()[0]["msg"]) from None

    def _gives(self, job: str, kind: type[Any]) -> bool:
        """Say whether the hook of a job gives records of a type: some have the same fields."""
        try:
            given = output_type(HOOKS.get(self._hook(job) or ""))
        except BadInput:  # a user's hook that is not here, or none was noted
            return True
        return kind in (get_args(given) or (given,))

    def _hook(self, job: str) -> str | None:
        """Return the hook of a finished job; earlier versions noted it with the costs only."""
        if "cost" in (marker := self._marker(job)):
            return str(marker["cost"].get("hook"))
        path = f"{self.folder}/costs.json"
        costs = self.storage.read_sealed(path) if self.storage.exists(path) else {}
        hook: str | None = costs.get(job, {}).get("hook")
        return hook

    def _seals(self, folder: str) -> dict[str, Seal]:
        """Return the seals of all that the jobs of a round have written."""
        seals: dict[str, Seal] = {}
        for name in self.storage.names(f"{folder}/jobs"):
            path = f"{folder}/jobs/{name}"
            try:
                seals |= seals_from_json(self.storage.read_sealed(path).get("files", {}))
            except ValueError as error:
                raise self.storage.damaged(path, str(error)) from None
        return seals

    def _check(self, path: str, seals: Mapping[str, Seal]) -> None:
        """Look whether a file is as a job wrote it; those of earlier versions have no seals.

        Raises:
            Damaged: it is not.
        """
        if wrong := broken(self.storage, {path: seals[path]} if path in seals else {}):
            raise self.storage.damaged(path, f"it {wrong[path]}")

    def _marker(self, job: str) -> dict[str, Any]:
        return self.storage.read_sealed(self._path(job))

    def _path(self, job: str) -> str:
        return f"{self.folder}/jobs/{job}.json"


def sync_run(name: str, url: str, uri: str | None) -> Replayed:
    """Send all that a run has recorded; what the tracker knows already changes nothing.

    Args:
        name: of the run.
        url: the storage.
        uri: of the MLflow server or database; by default the one that the run was tracked by.

    Raises:
        BadInput: there is no such run, or ``uri`` is needed: for a password, which the kept
            configuration does not hold, or as the run was tracked elsewhere than its configuration
            says on this machine.
        Held: the run is still running, or somebody else sends it.
    """
    storage = Storage(url)
    folder = FinishedRun(storage, name).folder
    tracking = _tracking(storage, folder) if uri is None else {"type": "mlflow", "uri": uri}
    if "***" in str(tracking.get("uri")):
        raise BadInput(
            "the kept configuration holds no passwords: name the server again with --uri"
        )
    if tracking["type"] == "none":
        raise BadInput(f"the run {name!r} was configured without a tracker: name one with --uri")
    kind = TRACKERS.get(tracking["type"])
    config = kind.Config.model_validate(tracking)
    if uri is None:
        _refuse_elsewhere(storage, folder, kind(config, storage).address)
    run = name.partition("/")[0]
    # To the end: for the tracker, a run that began meanwhile would be one that failed.
    with take(storage, lease_path(run), f"the run {run!r}"):
        return replay(storage, folder, lambda: kind(config, storage))


def _tracking(storage: Storage, folder: str) -> dict[str, Any]:
    """Return by what a run was tracked, as its configuration says.

    Raises:
        Damaged: that cannot be read.
    """
    path = f"{folder}/config.yaml"
    try:
        tracking = yaml.safe_load(storage.read_bytes(path))["tracking"]
        TRACKERS.get(tracking["type"]).Config.model_validate(tracking)
    except (yaml.YAMLError, FileNotFoundError, ValueError, KeyError, TypeError) as error:
        what = str(error).splitlines()[0]
        remedy = "run the configuration again (djsandbox run), or name the server with --uri"
        raise Damaged(f"{storage.shown}/{path} is damaged: {what}", remedy, path) from None
    return dict(tracking)


def _refuse_elsewhere(storage: Storage, folder: str, here: str) -> None:
    """Refuse to send to another place than where the run was tracked, which nobody asked for."""
    told = {journal.run.address for journal in Journal.all(storage, folder)} - {"", here}
    if told:
        raise BadInput(
            f"the run was tracked by {' and '.join(sorted(told))}; here its configuration means "
            f"{here or 'no server'}: set MLFLOW_TRACKING_URI as it was set for the run, or name "
            "the server with --uri"
        )

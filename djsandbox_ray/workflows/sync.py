"""Sends to the tracker what a run has recorded: after an outage, or to another server."""

from __future__ import annotations

from typing import Any

import yaml

from djsandbox_ray.errors import BadInput
from djsandbox_ray.storage import Storage
from djsandbox_ray.tracking import TRACKERS, Replayed, replay
from djsandbox_ray.tracking.journal import Journal
from djsandbox_ray.workflows.finished import FinishedRun
from djsandbox_ray.workflows.guard import refuse_if_running


def sync_run(name: str, url: str, uri: str | None) -> Replayed:
    """Send all that a run has recorded; what the tracker knows already changes nothing.

    Args:
        name: of the run.
        url: the storage.
        uri: of the MLflow server or database; by default the one that the run was tracked by.

    Raises:
        BadInput: there is no such run, it is still running, or ``uri`` is needed: for a password,
            which the kept configuration does not hold, or as the run was tracked elsewhere than
            its configuration says on this machine.
    """
    storage = Storage(url)
    folder = FinishedRun(storage, name).folder
    refuse_if_running(storage, name)
    settings: dict[str, Any] = yaml.safe_load(storage.read_bytes(f"{folder}/config.yaml"))
    tracking = settings["tracking"] if uri is None else {"type": "mlflow", "uri": uri}
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
    return replay(storage, folder, lambda: kind(config, storage))


def _refuse_elsewhere(storage: Storage, folder: str, here: str) -> None:
    """Refuse to send to another place than where the run was tracked, which nobody asked for."""
    told = {journal.run.address for journal in Journal.all(storage, folder)} - {"", here}
    if told:
        raise BadInput(
            f"the run was tracked by {' and '.join(sorted(told))}; here its configuration means "
            f"{here or 'no server'}: set MLFLOW_TRACKING_URI as it was set for the run, or name "
            "the server with --uri"
        )

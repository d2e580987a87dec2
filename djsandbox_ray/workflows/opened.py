"""What the hooks of a round work with, before anything is started or written."""

from __future__ import annotations

from djsandbox_ray.config import RunConfig
from djsandbox_ray.hooks.hook import Context
from djsandbox_ray.reporting.progress import Progress
from djsandbox_ray.storage.lease import Lease
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.tracking.journal import Recorded
from djsandbox_ray.tracking.tracker import TRACKERS
from djsandbox_ray.workflows.language.repeat import Round


def open_context(config: RunConfig, progress: Progress) -> Context:
    """Return what the hooks of the first round work with; nothing is started or written yet."""
    return open_round(Round.first(config), progress)


def open_round(this: Round, progress: Progress, lease: Lease | None = None) -> Context:
    """Return what the hooks of a round work with; nothing is started or written yet."""
    config, storage = this.config, Storage(this.config.storage)
    # With a storage of its own: what a job writes is noted down, what the tracker keeps is not.
    tracker = TRACKERS.get(config.tracking.type)(config.tracking, Storage(config.storage))
    # Every round is a run to the tracker; what they told it lies together, for `djsandbox sync`.
    recorded = Recorded(tracker, f"runs/{this.run}")
    return Context(config, storage, this.folder, recorded, progress, lease=lease)

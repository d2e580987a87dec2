"""Which runs of a sandbox run MLflow already holds: found by their key tags, or created."""

from __future__ import annotations

import getpass
import json
import logging
import os
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from djsandbox_ray.tracking.tracker import DatasetInput, RunInfo

if TYPE_CHECKING:
    from mlflow import MlflowClient, entities
    from mlflow.entities import Run

# Read by MLflow at every call; what the user has set stays. Retrying is the outbox's work: MLflow's
# own blocks for minutes, and could create a run twice. It would print the address of every run that
# ends, with the password in it.
ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}
RUN_KEY = "djsandbox.run_key"
TRIAL_KEY = "djsandbox.trial_key"
USER = "mlflow.user"
_LONGEST_DIGEST = 36


@dataclass
class Known:
    """What MLflow holds of a run, as far as it decides what must still be sent."""

    run_id: str
    status: str
    inputs: set[tuple[str, str]] = field(default_factory=set)
    """Name and digest of the datasets that are there."""
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, run: Run) -> Known:
        """Read what a run from MLflow says."""
        return cls(
            run_id=run.info.run_id,
            status=run.info.status,
            inputs={
                (item.dataset.name, item.dataset.digest)
                for item in (run.inputs.dataset_inputs if run.inputs else [])
            },
            params=dict(run.data.params),
            tags=dict(run.data.tags),
            metrics=dict(run.data.metrics),
        )


class MlflowIndex:
    """The runs of one sandbox run by trial key; the parent's is empty. Read once, kept up to date.

    Args:
        uri: tracking URI.
        experiment: made when it does not exist.
        artifacts: where a new experiment puts its artifacts; None lets the server decide.
        run: the sandbox run.
    """

    def __init__(self, uri: str, experiment: str, artifacts: str | None, run: RunInfo) -> None:
        self.run = run
        self.datasets = list(run.datasets)
        """What every run of the index has as inputs; may grow."""
        self._uri = uri
        self._experiment = experiment
        self._artifacts = artifacts
        self._known: dict[str, Known] | None = None

    @cached_property
    def client(self) -> MlflowClient:
        """The client, made at first use as importing MLflow takes seconds."""
        for key, value in ENVIRONMENT.items():
            os.environ.setdefault(key, value)
        from mlflow import MlflowClient

        # What they raise is told by who called them, in a line; they log it whole, with all
        # parameters of a statement.
        for name in ("mlflow", "alembic", "sqlalchemy"):
            logging.getLogger(name).setLevel(logging.CRITICAL)
        return MlflowClient(tracking_uri=self._uri)

    @property
    def experiment_id(self) -> str | None:
        """The number that MLflow has given the experiment; None as long as nobody has asked it."""
        found: str | None = self.__dict__.get("_experiment_id")
        return found

    def runs(self) -> dict[str, Known]:
        """Return all runs that are there."""
        if self._known is None:
            known: dict[str, Known] = {}
            for run in self._search():
                key = run.data.tags.get(TRIAL_KEY, "")
                if key in known:  # created by a call that was thought to have failed
                    self.client.delete_run(run.info.run_id)
                else:
                    known[key] = Known.of(run)
            self._known = known
        return self._known

    def forget(self) -> None:
        """Read anew at the next use."""
        self._known = None

    def delete(self, key: str) -> None:
        """Move a run to MLflow's deleted ones."""
        self.client.delete_run(self.runs()[key].run_id)
        del self.runs()[key]

    def files_beside_server(self) -> str | None:
        """Return where a server on another machine has files put, if that is a path of this one.

        MLflow's client writes there without a word; with a server that proxies files, it does not.
        """
        host = urlsplit(self._uri).hostname if self._uri.startswith("http") else None
        if host in (None, "localhost", "127.0.0.1", "::1"):
            return None
        place = self.client.get_experiment(self._experiment_id).artifact_location
        return place if urlsplit(place).scheme in ("", "file") else None

    def parent(self) -> Known:
        """Return the parent run, created if need be."""
        return self.ensure("", self.run.name, self.run.tags, None)

    def ensure(
        self,
        key: str,
        name: str,
        tags: Mapping[str, str],
        start_ms: int | None,
        inputs: Sequence[DatasetInput] = (),
    ) -> Known:
        """Return the run with this key, created if need be, with its own and all common inputs."""
        known = self.runs().get(key)
        if known is None:
            keys = {RUN_KEY: self.run.key, USER: user()} | ({TRIAL_KEY: key} if key else {})
            start_ms = start_ms or time.time_ns() // 1_000_000
            run = self.client.create_run(self._experiment_id, start_ms, {**tags, **keys}, name)
            known = self.runs()[key] = Known.of(run)
        new = mlflow_inputs([*self.datasets, *inputs], known.inputs)
        if new:
            self.client.log_inputs(known.run_id, new)
            known.inputs |= {(item.dataset.name, item.dataset.digest) for item in new}
        return known

    @cached_property
    def _experiment_id(self) -> str:
        found = self.client.get_experiment_by_name(self._experiment)
        if found is None:
            return self.client.create_experiment(self._experiment, self._artifacts)
        if found.lifecycle_stage != "active":
            raise RuntimeError(
                f"the experiment {self._experiment!r} is deleted in MLflow: restore it, or name "
                "another one"
            )
        return str(found.experiment_id)

    def _search(self) -> Iterable[Run]:
        token = None
        while True:
            page = self.client.search_runs(
                [self._experiment_id],
                filter_string=f'tags.`{RUN_KEY}` = "{self.run.key}"',
                order_by=["attributes.start_time ASC"],
                page_token=token,
            )
            yield from page
            token = page.token
            if not token:
                return


def user() -> str:
    """Name who runs this: by MLflow's own variable, as who submitted it, or as the system does."""
    named = os.environ.get("MLFLOW_TRACKING_USERNAME") or os.environ.get("DJSANDBOX_USER")
    try:
        return named or getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container's user often has no name
        return "unknown"


def mlflow_inputs(
    datasets: Sequence[DatasetInput], there: Collection[tuple[str, str]]
) -> list[entities.DatasetInput]:
    """Return the datasets as MLflow takes them, but for those with a name and digest of ``there``.

    MLflow shows the context beside each, and finds runs by it: ``dataset.context = 'evaluation'``.
    """
    from mlflow.entities import Dataset, InputTag
    from mlflow.entities import DatasetInput as MlflowInput

    new = {(item.name, item.digest[:_LONGEST_DIGEST]): item for item in datasets}
    return [
        MlflowInput(
            Dataset(
                name=name,
                digest=digest,
                source_type=item.source.partition("://")[0] if "://" in item.source else "local",
                source=json.dumps({"uri": item.source}),
                profile=json.dumps({"num_rows": item.rows}),
            ),
            [InputTag("mlflow.data.context", item.context)],
        )
        for (name, digest), item in new.items()
        if (name, digest) not in there
    ]

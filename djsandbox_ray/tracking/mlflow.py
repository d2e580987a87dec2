"""The MLflow tracker: one parent run per sandbox run, one nested run per trial."""

from __future__ import annotations

import itertools
import logging
import os
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import PurePosixPath

from pydantic import Field, field_validator

from djsandbox_ray.errors import BadInput, require
from djsandbox_ray.masking import without_secrets
from djsandbox_ray.records import TrialRecord
from djsandbox_ray.settings.sections import MOST_SECONDS, Component
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.tracking.mlflow_index import MlflowIndex
from djsandbox_ray.tracking.mlflow_runs import MlflowRuns
from djsandbox_ray.tracking.outbox import Outbox
from djsandbox_ray.tracking.tracker import DatasetInput, RunInfo, Tracker

logger = logging.getLogger(__name__)

_SERVERS = ("http", "https", "databricks", "databricks-uc")
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_URI = "MLFLOW_TRACKING_URI"


class MlflowConfig(Component):
    """Where MLflow keeps its runs."""

    type: str = "mlflow"
    uri: str | None = None
    """A server (``http://host:5000``) or a database (``sqlite:////data/mlflow.db``); without it,
    what the environment variable MLFLOW_TRACKING_URI names, or else a sqlite file in the
    storage."""
    experiment: str = Field("djsandbox", min_length=1, max_length=500)
    """The experiment that the runs belong to."""
    patience: float = Field(30.0, ge=0, le=MOST_SECONDS)
    """Seconds to wait at the end of a run while nothing can be sent."""

    @field_validator("uri")
    @classmethod
    def _known_scheme(cls, uri: str | None) -> str | None:
        return uri and _checked(uri)


class MlflowTracker(Tracker):
    """Hands everything to an :class:`Outbox`; training never waits for MLflow.

    What is sent twice, by a repeated or resumed run, changes nothing in MLflow; so what an outage
    kept from being sent is sent by telling everything again.

    Raises:
        BadInput: the storage is not on a local disk and no server or database is named, or
            MLFLOW_TRACKING_URI names none.
        MissingExtra: the package that talks to PostgreSQL is not installed.
    """

    Config = MlflowConfig
    config: MlflowConfig

    def __init__(self, config: MlflowConfig, storage: Storage) -> None:
        super().__init__(config, storage)
        named = config.uri or _from_environment()
        if named is None and not storage.is_local:
            raise BadInput(
                f"tracking.uri: the storage {storage.shown!r} cannot hold MLflow's sqlite file; "
                f"name a server (http://host:5000) or a database here or by {_URI}, or track "
                "nothing: tracking: {type: none}"
            )
        self._named = named
        self._uri = named or f"sqlite:///{storage.uri('mlflow.db')}"
        if self._uri.startswith("postgresql://"):  # SQLAlchemy 2.1 would take it for psycopg 3's
            self._uri = self._uri.replace("postgresql:", "postgresql+psycopg2:", 1)
        if self._uri.startswith("postgresql+psycopg2:"):
            require("psycopg2", "postgres")
        self._runs: MlflowRuns | None = None
        self._outbox: Outbox | None = None
        self._count = itertools.count()
        self._name = ""

    @property
    def ui_command(self) -> str:
        """The command that opens the UI, or the address of the server; without passwords."""
        uri = without_secrets(self._uri)
        if self._has_server:
            return uri
        return f"mlflow ui --backend-store-uri {shlex.quote(uri)}"

    @property
    def address(self) -> str:
        """The server or database that is named, or the file in the storage, wherever that lies."""
        return without_secrets(self._named) if self._named else "mlflow.db in the storage"

    def start(self, run: RunInfo) -> None:
        """Begin, or take up again, the parent run with the key ``run.key``.

        Raises:
            RuntimeError: the tracker was started before.
        """
        if self._runs is not None:
            raise RuntimeError("the tracker was started before")
        self._name = run.name
        artifacts = None if self._has_server else self._artifact_root()
        self._runs = MlflowRuns(MlflowIndex(self._uri, self.config.experiment, artifacts, run))
        self._outbox = Outbox(f"MLflow at {without_secrets(self._uri)}")
        self._send("the run", self._runs.start)

    def dataset(self, dataset: DatasetInput) -> None:
        """Queue an input of the parent run and of all trials that are sent after it."""
        self._send(f"dataset {dataset.digest}", partial(self._started.dataset, dataset))

    def trial(
        self,
        record: TrialRecord,
        tags: Mapping[str, str],
        params: Mapping[str, str],
        inputs: Sequence[DatasetInput] = (),
    ) -> None:
        """Queue the newest record of a trial; an older one that still waits is replaced."""
        send = partial(self._started.trial, record, dict(tags), dict(params), tuple(inputs))
        self._send(f"trial {record.spec.id}", send)

    def metrics(self, values: Mapping[str, float], time_ms: int | None = None) -> None:
        """Queue numbers of the parent run."""
        since = time_ms or time.time_ns() // 1_000_000
        send = partial(self._started.metrics, dict(values), since)
        self._send(f"metrics {next(self._count)}", send)

    def artifact(self, name: str, data: bytes) -> None:
        """Queue a file of the parent run; replaces one of the same name.

        Raises:
            ValueError: ``name`` is not a relative path inside the run's artifacts.
        """
        path = PurePosixPath(name)
        if not path.name or path.is_absolute() or ".." in path.parts:
            raise ValueError(f"not a relative path of an artifact: {name!r}")
        self._send(f"artifact {path}", partial(self._started.artifact, str(path), data))

    def finish(self, ok: bool, within: float | None = None) -> int:
        """End the parent run; give up after ``patience`` seconds in which nothing was sent.

        Args:
            ok: whether the run came to its end.
            within: give up after so many seconds, whatever was sent.

        Returns:
            How many things were not sent; a warning says so too.
        """
        if self._outbox is None:
            return 0
        self._send("the run", partial(self._started.end, ok))
        unsent = self._outbox.close(self.config.patience, within)
        if unsent:
            logger.warning(
                "MLflow at %s: %d things were not sent; they are safe in the storage, and the same "
                "command again sends them, or: %s",
                without_secrets(self._uri),
                unsent,
                self._sync_command,
            )
        return unsent

    @property
    def _sync_command(self) -> str:
        storage = shlex.quote(self.storage.shown)
        return f"djsandbox sync {shlex.quote(self._name)} --storage {storage}"

    @property
    def _has_server(self) -> bool:
        return self._uri.startswith(_SERVERS)

    @property
    def _started(self) -> MlflowRuns:
        if self._runs is None:
            raise RuntimeError("the tracker was not started")
        return self._runs

    def _send(self, what: str, send: Callable[[], None]) -> None:
        if self._outbox is None:
            raise RuntimeError("the tracker was not started")
        self._outbox.put(what, partial(self._started.attempt, send))

    def _artifact_root(self) -> str:
        root = self.storage.uri("mlartifacts")
        return PurePosixPath(root).as_uri() if self.storage.is_local else root


def _from_environment() -> str | None:
    """Return the address that MLflow's own variable names, if it is set."""
    uri = os.environ.get(_URI)
    try:
        return _checked(uri) if uri else None
    except ValueError as error:
        raise BadInput(f"{_URI}: {error}") from None


def _checked(uri: str) -> str:
    scheme, found, _ = uri.partition("://")
    known = found and scheme.split("+")[0] in _SERVERS + _DATABASES
    if known or uri in ("databricks", "databricks-uc"):
        return uri
    allowed = ", ".join(f"{name}://..." for name in ("http", "https", *_DATABASES))
    raise ValueError(
        f"{without_secrets(uri)!r} is no address of an MLflow server or database; "
        f"allowed: {allowed}, databricks"
    )

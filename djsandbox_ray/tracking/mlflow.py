"""The MLflow tracker: one parent run per sandbox run, one nested run per trial."""

from __future__ import annotations

import os
import shlex
from pathlib import PurePosixPath

from pydantic import Field, field_validator

from djsandbox_ray.errors import BadInput, require
from djsandbox_ray.masking import without_secrets
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.tracking.mlflow_index import MlflowIndex
from djsandbox_ray.tracking.mlflow_runs import MlflowRuns
from djsandbox_ray.tracking.queued import Queued, QueuedConfig
from djsandbox_ray.tracking.tracker import RunInfo

_SERVERS = ("http", "https", "databricks", "databricks-uc")
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_URI = "MLFLOW_TRACKING_URI"
_LOCAL_UI = "http://127.0.0.1:5000"
"""Where ``mlflow ui`` listens."""


class MlflowConfig(QueuedConfig):
    """Where MLflow keeps its runs."""

    type: str = "mlflow"
    uri: str | None = None
    """A server (``http://host:5000``) or a database (``sqlite:////data/mlflow.db``); without it,
    what the environment variable MLFLOW_TRACKING_URI names, or else a sqlite file in the
    storage."""
    experiment: str = Field("djsandbox", min_length=1, max_length=500)
    """The experiment that the runs belong to."""

    @field_validator("uri")
    @classmethod
    def _known_scheme(cls, uri: str | None) -> str | None:
        return uri and _checked(uri)


class MlflowTracker(Queued):
    """Has everything written to a server or a database.

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
        self._index: MlflowIndex | None = None

    @property
    def ui_command(self) -> str:
        """The command that opens the UI, or the address of the server; without passwords.

        As soon as the experiment is known, the page with its runs: of an experiment whose kind
        MLflow does not know, it opens one for traces of language models, which is empty.
        """
        uri = without_secrets(self._uri)
        found = self._index.experiment_id if self._index is not None else None
        page = f"/#/experiments/{found}/runs?workflowType=machine_learning" if found else ""
        if self._has_server:
            return f"{uri.rstrip('/')}{page}" if page and uri.startswith("http") else uri
        command = f"mlflow ui --backend-store-uri {shlex.quote(uri)}"
        return f"{command}  # then open {_LOCAL_UI}{page}" if page else command

    @property
    def address(self) -> str:
        """The server or database that is named, or the file in the storage, wherever that lies."""
        return without_secrets(self._named) if self._named else "mlflow.db in the storage"

    @property
    def receiver(self) -> str:
        """The server or database."""
        return f"MLflow at {without_secrets(self._uri)}"

    def open(self, run: RunInfo) -> MlflowRuns:
        """Return what writes the run to MLflow."""
        artifacts = None if self._has_server else self._artifact_root()
        self._index = MlflowIndex(self._uri, self.config.experiment, artifacts, run)
        return MlflowRuns(self._index)

    @property
    def _has_server(self) -> bool:
        return self._uri.startswith(_SERVERS)

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

"""Submits a run: checks it here, ships it, and gives it to the cluster as a Ray job."""

from __future__ import annotations

import re
import secrets
import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from textwrap import indent
from typing import Any

from djsandbox_ray.config import RunConfig, read_document
from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.identity import content_id
from djsandbox_ray.masking import MASK, masked, without_secrets
from djsandbox_ray.service.cluster_jobs import ClusterJob, ClusterJobs
from djsandbox_ray.service.shipment import Shipment, named_files, pack
from djsandbox_ray.settings.yaml_input import read_value
from djsandbox_ray.storage.own import temporary
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.tracking.mlflow import MlflowConfig
from djsandbox_ray.tracking.mlflow_index import user
from djsandbox_ray.tracking.tracker import TRACKERS
from djsandbox_ray.workflows.beforehand import check_run, checked_run, said
from djsandbox_ray.workflows.state import git_commit

STOP_SECONDS = 30
"""How long Ray waits between SIGTERM and SIGKILL: 3 seconds, where nobody asks for more."""
_NAME_LENGTH = 80
_OPTION = "--set"


@dataclass(frozen=True)
class Submission:
    """A run that is fit to be submitted."""

    path: str
    """Of the configuration."""
    document: dict[str, Any]
    """The configuration, with all replacements in place."""
    config: RunConfig
    """The same, checked."""
    named: tuple[str, ...]
    """Files and folders of the working folder that it names."""
    tracking: str
    """Where or how its tracker is seen; without passwords."""

    @property
    def storage(self) -> str:
        """The storage as jobs are told apart by it, whoever submits them; without secrets."""
        return without_secrets(Storage(self.config.storage).url, environment=False)


def prepare(path: str, overrides: Sequence[str] = (), storage: str | None = None) -> Submission:
    """Check a configuration as far as that can be done without the nodes.

    Args:
        path: as for :func:`djsandbox_ray.config.load_config`, like the others.
        overrides: the same.
        storage: the same.

    Raises:
        BadInput: with one line per error.
    """
    document = read_document(path, overrides, storage)
    config = checked_run(document, path, elsewhere=True)
    named, wrong = named_files(document, config)
    wrong += said(lambda: check_run(config, elsewhere=True), lambda: Storage(config.storage))
    if wrong:
        listed = indent("\n".join(map(without_secrets, wrong)), "  ")
        raise BadInput(f"{path}: cannot run on a cluster\n{listed}")
    return Submission(path, document, config, tuple(named), _tracking(config))


def submit_run(
    jobs: ClusterJobs,
    submission: Submission,
    command: Sequence[str],
    say: Callable[[str], None],
    *,
    over_budget: bool = False,
) -> ClusterJob:
    """Give a run to the cluster.

    Args:
        jobs: of the cluster.
        submission: the run.
        command: what the user typed, kept to say what resumes the run.
        say: takes lines for the user.
        over_budget: allow more than the section ``cost`` does.

    Raises:
        BadInput: a job that runs it is not over, or there is too much to ship.
        SandboxError: the cluster did not take it.
    """
    name, storage = submission.config.name, submission.storage
    if (other := jobs.running(name, storage)) is not None:
        raise BadInput(
            f"the run {name!r} in {storage} is {other.state} as the job {other.id}; see it with\n"
            f"  djsandbox logs {other.id} --follow --address {jobs.shown}"
        )
    with temporary() as folder:
        shipment = pack(folder, submission.document, submission.path, submission.named)
        say(f"shipping {shipment}")
        metadata = {
            "run": name,
            "config": content_id("config", submission.document),
            "user": user(),
            "storage": storage,
            "tracking": submission.tracking,
            "command": shown(command),
        }
        try:
            key = jobs.client.submit_job(
                entrypoint=_entrypoint(shipment, over_budget),
                submission_id=_new_id(name),
                runtime_env={"working_dir": str(folder), "env_vars": _variables()},
                metadata=metadata,
            )
        except (OSError, RuntimeError) as error:
            raise SandboxError(f"{jobs.shown} did not take the run: {error}") from error
    return jobs.get(key)


def _tracking(config: RunConfig) -> str:
    """Say where or how the tracker is seen; without an address the nodes know it, not this desk.

    Raises:
        BadInput: the tracker cannot be.
    """
    settings, storage = config.tracking, Storage(config.storage)
    if isinstance(settings, MlflowConfig) and settings.uri is None:
        otherwise = ", or else mlflow.db in the storage" if storage.is_local else ""
        return f"as MLFLOW_TRACKING_URI of the nodes says{otherwise}"
    return TRACKERS.get(settings.type)(settings, storage).ui_command or ""


def _entrypoint(shipment: Shipment, over_budget: bool) -> str:
    # The shell that Ray starts it with is replaced: signals reach the program itself.
    words = ["python", "-m", "djsandbox_ray", "run", shipment.config]
    return "exec " + shlex.join([*words, *(["--over-budget"] if over_budget else [])])


def _variables() -> dict[str, str]:
    commit = git_commit()
    return {
        "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS),
        "DJSANDBOX_USER": user(),
        **({"DJSANDBOX_GIT_COMMIT": commit} if commit else {}),
    }


def _new_id(run: str) -> str:
    """Return a submission id that says which run it is of, and from when."""
    when = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    return f"{run[:_NAME_LENGTH]}-{when}-{secrets.token_hex(2)}"


def shown(words: Sequence[str]) -> str:
    """Return a command as it was typed, without its secrets: everybody who sees a job sees it.

    What ``--set PATH=VALUE`` sets is masked by its keys, too.
    """
    found = []
    for before, word in zip(("", *words), words, strict=False):
        if before == _OPTION:
            word = _override(word)
        elif word.startswith(f"{_OPTION}="):
            word = f"{_OPTION}={_override(word.removeprefix(f'{_OPTION}='))}"
        found.append(word)
    return shlex.join(map(without_secrets, found))


def _override(word: str) -> str:
    path, _, text = word.partition("=")
    keys = re.split(r"[.\[\]]", path)
    secret = any(masked({key: text}) == {key: MASK} for key in keys) or _holds_secret(text)
    return f"{path}={MASK}" if secret else word


def _holds_secret(text: str) -> bool:
    """Tell whether a value that is a mapping or a list holds a secret in it."""
    try:
        value = read_value(text, "the value")
    except BadInput:
        return False  # no such command has come so far
    return isinstance(value, dict | list) and masked(value) != value

"""The connection to Ray: a local cluster, or the one that ``RAY_ADDRESS`` or the config names."""

from __future__ import annotations

import json
import logging
import os
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.masking import without_secrets
from djsandbox_ray.nodes.packing import groups_that_fit, in_words
from djsandbox_ray.settings.sections import MOST_PROCESSES, MOST_SECONDS, Section

OFFLINE = "HF_HUB_OFFLINE"
# Read by Ray, Hugging Face and Data-Juicer when they are imported, in every process of the cluster.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    OFFLINE: "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class ClusterConfig(Section):
    """Where the run finds Ray."""

    address: str | None = None
    """Address of a running cluster; by default ``RAY_ADDRESS``, or else a new local cluster."""
    cpus: int | None = Field(default=None, ge=1, le=MOST_PROCESSES)
    """CPUs of a new local cluster; by default all of this machine."""
    online: bool = False
    """Whether models and data may be fetched from Hugging Face's hub, by this process and by the
    nodes; else only what lies on their disks is found."""
    dashboard: bool = False
    """Whether a new local cluster has Ray's dashboard, whose address the run prints; it listens on
    this machine only."""
    wait: float | None = Field(default=None, ge=0, le=MOST_SECONDS)
    """Seconds to wait for nodes where no living one could hold what a stage needs; by default 600
    where an autoscaler runs, else 0: that is an error at once."""


def prepare_environment() -> None:
    """Set the environment that the libraries below expect; what the user has set stays."""
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    # Ray starts its workers anew; nothing here forks with an open table.
    warnings.filterwarnings("ignore", message="lance is not fork-safe")


def go_online() -> None:
    """Let this process, and those that it starts, ask Hugging Face's hub: ``cluster.online``."""
    os.environ[OFFLINE] = "0"
    # Of what was imported before the configuration was read.
    if (constants := sys.modules.get("huggingface_hub.constants")) is not None:
        constants.HF_HUB_OFFLINE = False  # type: ignore[attr-defined]


def is_online() -> bool:
    """Say whether Hugging Face's hub may be asked."""
    return os.environ.get(OFFLINE, "1").lower() in ("0", "false", "no", "off", "")


def connect(
    address: str | None = None, cpus: int | None = None, dashboard: bool = False
) -> str | None:
    """Connect to Ray, unless this process is connected already.

    Args:
        address: address of a running cluster; None for ``RAY_ADDRESS`` or else a new local one.
        cpus: CPUs of a new local cluster; None for all of this machine.
        dashboard: whether a new local cluster has one.

    Returns:
        The address of the dashboard that was started; None where none was.

    Raises:
        BadInput: ``cpus`` or ``dashboard`` with a running cluster.
        SandboxError: there is no cluster at the address, or it is of another version of Ray.
    """
    prepare_environment()
    import ray
    import ray.data

    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False  # stages show their own
    if ray.is_initialized():
        return None
    remote = address or os.environ.get("RAY_ADDRESS")
    for key, given in (("cpus", cpus), ("dashboard", dashboard)):
        if remote and given:
            raise BadInput(
                f"cluster.{key} is for a new local cluster, not for the one at {remote!r}"
            )
    # Ray refuses these two with the address of a running cluster.
    local: dict[str, Any] = {} if remote else {"num_cpus": cpus, "include_dashboard": dashboard}
    try:
        found = ray.init(
            address=remote or "local",
            log_to_driver=False,
            logging_level=logging.WARNING,
            runtime_env={"env_vars": _worker_environment()},
            **local,
        )
    except Exception as error:  # Ray raises bare ones too, as for a node that starts too slowly
        where = f"the cluster at {without_secrets(remote)!r}" if remote else "a local cluster"
        reason = without_secrets(str(error)).strip().splitlines() or [type(error).__name__]
        raise SandboxError(f"{where} cannot be connected to: {reason[0]}") from error
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    return f"http://{found.dashboard_url}" if dashboard else None


def _worker_environment() -> dict[str, str]:
    """What worker processes need: the settings, and the folder in which a user's modules lie."""
    path = [str(Path.cwd()), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    settings = {key: os.environ[key] for key in ENVIRONMENT}
    return {**settings, "PYTHONPATH": os.pathsep.join(dict.fromkeys(path))}


def node_resources() -> list[dict[str, float]]:
    """Return what every living node of the cluster has in all, free or not."""
    import ray

    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node["Resources"] for node in nodes if node["Alive"]]


def capacities() -> list[dict[str, float]]:
    """Return what trials can ever get of every living node.

    What the driver's own Ray job reserved for its entrypoint (``ray job submit
    --entrypoint-num-cpus``) is taken away: it is not free as long as this process lives.
    """
    import ray

    node_id, held = _entrypoint()
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    found = []
    for node in nodes:
        if node["Alive"]:
            own = held if node["NodeID"] == node_id else {}
            total = node["Resources"]
            found.append({name: total[name] - own.get(name, 0) for name in total})
    return found


def check_placeable(bundles: Sequence[Mapping[str, float]], where: str) -> None:
    """Check that the cluster has room for a group, free or not: Ray would wait for it for ever.

    Args:
        bundles: what each worker of the group needs of one node: ``{"CPU": 1, "GPU": 0.5}``.
        where: the section of the configuration that asks.

    Raises:
        BadInput: the living nodes can never place the group at once.
    """
    nodes = capacities()
    if groups_that_fit(bundles, nodes, most=1):
        return
    _, held = _entrypoint()
    own = f" beside the {in_words([held])} of this job's own entrypoint" if held else ""
    raise BadInput(
        f"{where} asks for {in_words(bundles)} at once, which the nodes of the cluster do not "
        f"have{own}: {in_words(nodes)}"
    )


def slots(bundles: Sequence[Mapping[str, float]]) -> int:
    """Return how many such groups have room in the whole cluster at once, free or not."""
    return groups_that_fit(bundles, capacities())


def waited_for(bundles: Sequence[Mapping[str, float]]) -> str:
    """Say what a group waits for, for the progress: ``4 CPUs (1.5 free)``; may lag by a second."""
    import ray

    free: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    wanted: dict[str, float] = {}
    for bundle in bundles:
        for name, amount in bundle.items():
            wanted[name] = wanted.get(name, 0) + amount
    return " and ".join(
        f"{wanted[name]:g} {name}{'s' * (name in ('CPU', 'GPU'))} ({free.get(name, 0):g} free)"
        for name in sorted(wanted)
        if wanted[name]
    )


def _entrypoint() -> tuple[str | None, dict[str, float]]:
    """Return the node on which the Ray job of this driver runs, and what it reserved there.

    Ray counts it as used by an actor of its own and tells it nowhere but in the job's record.
    """
    config = os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR")
    job = json.loads(config).get("metadata", {}).get("job_submission_id") if config else None
    if job is None:
        return None, {}
    from ray.experimental.internal_kv import _internal_kv_get

    found = _internal_kv_get(f"_ray_internal_job_info_{job}".encode(), namespace="job")
    record = json.loads(found) if found else {}
    held = {
        "CPU": record.get("entrypoint_num_cpus"),
        "GPU": record.get("entrypoint_num_gpus"),
        **(record.get("entrypoint_resources") or {}),
    }
    return record.get("driver_node_id"), {name: amount for name, amount in held.items() if amount}

"""The connection to Ray: a local cluster, or the one that ``RAY_ADDRESS`` or the config names."""

from __future__ import annotations

import logging
import os
import warnings
from pathlib import Path
from typing import Any

from djsandbox_ray.errors import BadInput

# Read by Ray, Hugging Face and Data-Juicer when they are imported, in every process of the cluster.
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def prepare_environment() -> None:
    """Set the environment that the libraries below expect; what the user has set stays."""
    for key, value in ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    # Ray starts its workers anew; nothing here forks with an open table.
    warnings.filterwarnings("ignore", message="lance is not fork-safe")


def connect(address: str | None = None, cpus: int | None = None) -> None:
    """Connect to Ray, unless this process is connected already.

    Args:
        address: address of a running cluster; None for ``RAY_ADDRESS`` or else a new local one.
        cpus: CPUs of a new local cluster; None for all of this machine.
    """
    prepare_environment()
    import ray
    import ray.data

    logging.getLogger("ray.data._internal.progress").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False  # stages show their own
    if ray.is_initialized():
        return
    remote = address or os.environ.get("RAY_ADDRESS")
    if remote and cpus:
        raise BadInput(f"cluster.cpus is for a new local cluster, not for the one at {remote!r}")
    # Ray refuses these two with the address of a running cluster.
    local: dict[str, Any] = {} if remote else {"num_cpus": cpus, "include_dashboard": False}
    ray.init(
        address=remote or "local",
        log_to_driver=False,
        logging_level=logging.WARNING,
        runtime_env={"env_vars": _worker_environment()},
        **local,
    )
    logging.getLogger("ray.data").setLevel(logging.WARNING)


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


def check_placeable(cpus: float, gpus: float, where: str) -> None:
    """Check that some node is large enough, free or not: Ray would wait for it for ever.

    Raises:
        BadInput: no node of the cluster can ever place it; ``where`` is the section that asks.
    """
    nodes = node_resources()
    if any(node.get("CPU", 0) >= cpus and node.get("GPU", 0) >= gpus for node in nodes):
        return
    have = "; ".join(f"{node.get('CPU', 0):g} CPUs, {node.get('GPU', 0):g} GPUs" for node in nodes)
    raise BadInput(
        f"{where} asks for {cpus:g} CPUs and {gpus:g} GPUs at once, "
        f"which no node of the cluster has ({have})"
    )

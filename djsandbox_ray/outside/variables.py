"""Which environment variables a program sees: few, and none of ours that is not named."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from djsandbox_ray.errors import BadInput

INHERITED = (
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "TZ",
    "LD_LIBRARY_PATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
)
"""Who and where we are, the drivers of devices, and which certificates are good."""
_SHORTEST_SECRET = 4


def variables(
    *, env: Mapping[str, str], pass_env: Sequence[str], cpus: float, gpus: float
) -> dict[str, str]:
    """Return all variables of a program but those that its environment adds.

    Args:
        env: what the configuration sets.
        pass_env: the variables of this node that it passes on.
        cpus: CPUs of the program: the threads of its libraries.
        gpus: GPUs of the program: without any, it sees none.

    Raises:
        BadInput: a variable that is to be passed on is not set here.
    """
    if lacking := [name for name in pass_env if name not in os.environ]:
        raise BadInput(f"pass_env: {', '.join(lacking)}: not set on this node")
    found = {name: os.environ[name] for name in INHERITED if name in os.environ}
    found |= {
        "PATH": os.pathsep.join(_search_path()),
        "OMP_NUM_THREADS": str(max(1, int(cpus))),
        "PYTHONUNBUFFERED": "1",
        "HF_HUB_OFFLINE": "1",  # nothing is downloaded unless the configuration says so
        **env,
        **{name: os.environ[name] for name in pass_env},
    }
    # Ray has chosen the devices.
    found["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "") if gpus else ""
    return found


def without_values(line: str, pass_env: Sequence[str]) -> str:
    """Return a line of output without the values of the variables that were passed on."""
    for name in pass_env:
        value = os.environ.get(name, "")
        if len(value) >= _SHORTEST_SECRET:
            line = line.replace(value, "***")
    return line


def _search_path() -> list[str]:
    """Return where programs are looked for: not among those of our own virtual environment."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    if sys.prefix == sys.base_prefix:
        return folders
    own = Path(sys.prefix).resolve()
    return [folder for folder in folders if folder and own not in _resolved(folder)]


def _resolved(folder: str) -> list[Path]:
    path = Path(folder).resolve()
    return [path, *path.parents]

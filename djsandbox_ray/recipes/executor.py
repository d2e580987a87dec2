"""Data-Juicer's own executor in a process of its own, ``python -m djsandbox_ray.recipes.executor``.

Data-Juicer changes logging, temporary folders, caches and the way processes start, for good. In
here that harms nobody; installation and downloads are switched off as for the statistics.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from djsandbox_ray.errors import SandboxError
from djsandbox_ray.stats.datajuicer import HOME
from djsandbox_ray.storage.own import own_folder, scratch

_SHORT = (Path("/dev/shm"), Path("/tmp"))
"""A socket's path has at most 107 bytes: temporary folders, of clusters above all, are longer."""
_FAULT = "An error occurred in "
_TAIL = 15
"""Lines of Data-Juicer's log that are shown when it fails."""


@dataclass(frozen=True)
class Executed:
    """What ``dj-process`` left."""

    kept: Path
    """JSON Lines: the rows that were kept, with their statistics under ``__dj__stats__``."""
    faults: tuple[str, ...]
    """Errors of operators that Data-Juicer went on after, each once: rows were lost by them."""


def execute(
    recipe: Path, data: Path, work: Path, *, processes: int = 1, models: str | None = None
) -> Executed:
    """Run a recipe on a data file as ``dj-process`` would.

    Nothing of the recipe is changed but where data, results and temporary files lie, and how many
    processes there are. GPUs are hidden: the statistics are computed on CPUs unless a
    configuration asks for more, and scores of a GPU are others in the last digits.

    Args:
        recipe: the YAML file.
        data: JSON Lines.
        work: an empty folder for all that Data-Juicer writes.
        processes: of every operator.
        models: the folder of model files; None for what the environment says.

    Raises:
        SandboxError: Data-Juicer failed; with the end of its log.
    """
    kept, log = work / "kept.jsonl", work / "log.txt"
    places = {
        "config": recipe.resolve(),
        "dataset_path": data,
        "export_path": kept,
        "export_type": "jsonl",
        "export_shard_size": 0,
        "work_dir": work / "work",
        "ds_cache_dir": work / "cache",
        "temp_dir": work / "temp",
        "np": processes,
        "executor_type": "default",
        "use_cache": "false",
        "use_checkpoint": "false",
        "open_tracer": "false",
        "open_monitor": "false",
        "keep_stats_in_res_ds": "true",
    }
    arguments = [word for name, value in places.items() for word in (f"--{name}", str(value))]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    if models is not None:
        environment[HOME] = models
    with scratch(own_folder("sockets", within=_short_folder())) as sockets, log.open("wb") as file:
        done = subprocess.run(
            [sys.executable, "-m", __name__, str(sockets), *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            check=False,
        )
    text = log.read_text(encoding="utf-8", errors="replace")
    if done.returncode or not kept.exists():
        tail = "\n".join(f"  {line}" for line in text.strip().splitlines()[-_TAIL:])
        raise SandboxError(
            f"Data-Juicer failed on {recipe} (exit code {done.returncode}); its last words:\n{tail}"
        )
    found = [line.partition(_FAULT)[2] for line in text.splitlines() if _FAULT in line]
    faults = (fault.removesuffix(" -- Traceback (most recent call last):") for fault in found)
    counted = Counter(faults).items()
    return Executed(kept, tuple(f"{what} ({times} times)" for what, times in counted))


def _short_folder() -> Path | None:
    """Return a folder with a short path, where there is one; None for the temporary directory."""
    return next((place for place in _SHORT if os.access(place, os.W_OK)), None)


def main(sockets: str, *arguments: str) -> None:
    """Be ``dj-process``, whose processes speak with each other through sockets in a folder."""
    from djsandbox_ray.stats.datajuicer import load

    load()  # first: it switches installation and downloads off
    from multiprocess.process import current_process

    current_process()._config["tempdir"] = sockets
    from data_juicer.config import init_configs
    from data_juicer.core.executor import DefaultExecutor
    from loguru import logger

    logger.enable("data_juicer")
    DefaultExecutor(init_configs([*arguments])).run(skip_return=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

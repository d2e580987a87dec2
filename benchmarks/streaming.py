"""Ingest, leaks, statistics and pools of data that do not fit into the object store: one table.

The same job runs twice in one driver, on a small and on a large data set of images of noise, which
nothing can compress, on a local Ray cluster with a small object store. Per size the table shows the
bytes of the data, what went through the object store and was spilled, and by how much the driver's
resident memory rose above what it was at the start; the last line is the ratio of both sizes.

    python benchmarks/streaming.py [--rows 400 3200] [--store-mb 80]
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

SIDE = 200
ROWS_PER_TAR = 200
OPERATORS = ["text_length_filter", "words_num_filter", "image_size_filter"]
MIB = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs=2, default=[400, 3200], help="two sizes")
    parser.add_argument("--store-mb", type=int, default=80, help="object store; Ray takes 75 up")
    parser.add_argument("--collect", action="store_true", help="hold the table in the driver, too")
    parser.add_argument("--json", action="store_true", help="print the numbers as JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / str(rows) for rows in given.rows]
        for folder, rows in zip(folders, given.rows, strict=True):
            make_tars(folder / "data", rows)
        start_ray(given.store_mb * MIB)
        found = [measure(folder, given.collect) for folder in folders]
    if given.json:
        print(json.dumps(found))
    else:
        print_table(found, given.store_mb)


def make_tars(folder: Path, rows: int) -> None:
    """Write pairs of an image of noise, about 120 kB, and a caption."""
    import numpy as np
    from PIL import Image

    folder.mkdir(parents=True)
    chance = np.random.default_rng(rows)
    for first in range(0, rows, ROWS_PER_TAR):
        with tarfile.open(folder / f"{first:06d}.tar", "w") as archive:
            for row in range(first, min(first + ROWS_PER_TAR, rows)):
                pixels = chance.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
                image = io.BytesIO()
                # Not compressed: noise would stay as large and take longer.
                Image.fromarray(pixels).save(image, "PNG", compress_level=0)
                caption = " ".join(["noise"] * (1 + row % 37)).encode()
                for extension, data in (("png", image.getvalue()), ("txt", caption)):
                    member = tarfile.TarInfo(f"{row:06d}.{extension}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))


def start_ray(object_store: int) -> None:
    """Start a cluster of two CPUs; what the sandbox connects to is then the cluster that is up."""
    from djsandbox_ray.nodes.connection import ENVIRONMENT, connect, prepare_environment

    prepare_environment()
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        object_store_memory=object_store,
        include_dashboard=False,
        log_to_driver=False,
        runtime_env={"env_vars": dict(ENVIRONMENT)},
    )
    connect()


def measure(folder: Path, collect: bool) -> dict[str, Any]:
    """Run the job on the data in a folder, with its storage beside them."""
    context = context_of(folder)
    before, start = store_stats(), time.perf_counter()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    resident = memory("VmRSS")
    rows = probe(context, collect)
    risen, wall = memory("VmHWM") - resident, time.perf_counter() - start
    after = store_stats()
    return {
        "rows": rows,
        "bytes": sum(file.stat().st_size for file in (folder / "data").iterdir()),
        **{key: after[key] - before[key] for key in after},
        "driver": risen,
        "wall": wall,
    }


def context_of(folder: Path) -> Any:
    from rich.console import Console

    from djsandbox_ray.config import checked
    from djsandbox_ray.reporting.progress import Progress
    from djsandbox_ray.workflows.opened import open_context

    document = {
        "name": "streaming",
        "storage": str(folder / "storage"),
        "dataset": {"type": "webdataset", "path": str(folder / "data")},
        "operators": OPERATORS,
        "pools": {"min_contrast": 0},
        "trials": {"model": {"type": "clip"}, "budget": 1000},
        "evaluation": {
            "dataset": {"type": "shapes", "samples": 50},
            "metrics": [{"type": "retrieval", "k": [1]}],
        },
        "tracking": {"type": "none"},
    }
    return open_context(checked(document, "streaming"), Progress(Console(quiet=True)))


def probe(context: Any, collect: bool) -> int:
    """Run the jobs from the source to the pools; return the number of samples."""
    from djsandbox_ray.dataset.sample_table import SampleTable
    from djsandbox_ray.hooks.ingest import Ingest, IngestEvaluation, Leaks
    from djsandbox_ray.hooks.pools import BuildPools
    from djsandbox_ray.hooks.statistics import ComputeStatistics

    dataset = Ingest(context).run()
    evaluation = IngestEvaluation(context).run()
    leak = Leaks(context).run(dataset, evaluation)
    statistics = ComputeStatistics(context).run(dataset, None)
    BuildPools(context).run(dataset, statistics, leak)
    if collect:
        SampleTable(context.storage.uri(dataset.table)).column("image")
    return int(dataset.rows)


def store_stats() -> dict[str, int]:
    """Return the bytes that were put into the object store and those that it has spilled."""
    import ray
    from ray._private.internal_api import get_memory_info_reply, get_state_from_address

    state = get_state_from_address(ray.get_runtime_context().gcs_address)
    stats = get_memory_info_reply(state).store_stats
    return {"stored": stats.cumulative_created_bytes, "spilled": stats.spilled_bytes_total}


def memory(what: str) -> int:
    """Return a size in bytes that Linux tells of this process: VmRSS, or VmHWM, its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{what}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(what)


def print_table(found: list[dict[str, Any]], store_mb: int) -> None:
    print(f"object store {store_mb} MiB, {len(OPERATORS)} operators, 2 CPUs\n")
    sizes = ("bytes", "stored", "spilled", "driver")
    titles = ("rows", "data", "put in store", "spilled", "driver's rise", "wall")
    print("".join(f"{title:>16}" for title in titles))
    for one in found:
        cells = [f"{one['rows']:,}", *(f"{one[key] / MIB:.1f} MiB" for key in sizes)]
        print("".join(f"{cell:>16}" for cell in (*cells, f"{one['wall']:.1f} s")))
    small, large = found
    keys = ("rows", *sizes, "wall")
    ratios = [f"x {large[key] / small[key]:.2f}" if small[key] else "-" for key in keys]
    print("".join(f"{ratio:>16}" for ratio in ratios))


if __name__ == "__main__":
    main()

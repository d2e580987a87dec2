"""Pool construction beside Data-Juicer Sandbox's own ``DataPoolConstruction``: one table.

Both sides get the same analysed data (made here with a seeded generator) and cut every statistic
into three. Each measurement is a fresh process that reports its own wall and CPU seconds, peak
memory and the bytes it wrote; the parent process stays free of large imports, since a child's
``ru_maxrss`` begins at its parent's size.

    python benchmarks/pools.py --sandbox-source PATH/data_pool_manipulators.py

Our side alone needs no source of theirs and writes no JSONL: any number of rows.

    python benchmarks/pools.py --alone --rows 5000000 [--fewest]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import runpy
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

COMMIT = "1dc20a58fa685af93c18dfa7c7900c093029af79"
HOW_TO_GET = f"""\
Data-Juicer Sandbox's pool construction is not in the wheel of py-data-juicer. Get its source and
name the file (outside this repository; it is not to be committed):

    git clone https://github.com/datajuicer/data-juicer
    git -C data-juicer checkout {COMMIT}
    python benchmarks/pools.py \\
        --sandbox-source data-juicer/data_juicer/core/sandbox/data_pool_manipulators.py
"""
STATS = "__dj__stats__"
# Distributions; sparse follows normal_0, whose order its ties keep in a sort in place.
KINDS = ("uniform", "normal", "sparse", "counts", "lognormal", "binary", "ratio", "exponential")
PARTS = 64
"""Files per statistic where our side is alone; a pipeline has up to 2,048, each a few milliseconds
to open."""
RESULT = "RESULT "
READING = """
Ratios: theirs / ours, for Parquet / for the same JSONL. Seconds are those of reading, cutting
and writing, without imports. Theirs reads the JSONL and writes every pool as a JSONL copy of its
samples, 3 per statistic; no control. Ours reads the statistics (as the pipeline has them, or
parsed from that JSONL) and writes assignments.parquet (one int8 per row and statistic, control
and self-test) and pools.json; samples stay in the sample table, which trials read by row id."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sandbox-source", type=Path, help="data_pool_manipulators.py")
    parser.add_argument("--alone", action="store_true", help="our side only, from Parquet")
    parser.add_argument("--fewest", action="store_true", help="5 controls, no self-tests")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--statistics", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3, help="runs of our side; medians count")
    parser.add_argument("--role", choices=sorted(ROLES), help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help="where to put the folder of the data")
    options = parser.parse_args()
    if options.alone and options.role is None:
        with tempfile.TemporaryDirectory(prefix="bench-pools-", dir=options.work) as work:
            options.work = Path(work)
            alone(options)
        return
    if not options.alone and (
        options.sandbox_source is None or not options.sandbox_source.is_file()
    ):
        where = f"{options.sandbox_source} is not a file.\n\n" if options.sandbox_source else ""
        parser.exit(2, where + HOW_TO_GET)
    if options.role:
        print(RESULT + json.dumps(ROLES[options.role](options)))
        return
    with tempfile.TemporaryDirectory(prefix="bench-pools-") as work:
        options.work = Path(work)
        compare(options)


def compare(options: argparse.Namespace) -> None:
    data = in_own_process("generate", options)
    theirs = in_own_process("theirs", options)
    sides = {"Data-Juicer Sandbox": theirs}
    for name, role in (("ours, Parquet", "ours_parquet"), ("ours, same JSONL", "ours_jsonl")):
        runs = [in_own_process(role, options) for _ in range(options.repeats)]
        sides[name] = {key: median(run[key] for run in runs) for key in runs[0]}
    print(
        f"\n{options.rows:,} rows x {options.statistics} statistics, 3 buckets each; analysed "
        f"JSONL {mib(data['jsonl'])}, statistics Parquet {mib(data['parquet'])}"
    )
    print_table(sides)
    print(READING)
    print_agreement(options)
    print(f"\nTheirs with one missing value: {theirs['with_a_missing_value']}; ours counts it.")


def alone(options: argparse.Namespace) -> None:
    """Run the hook of the pipeline on statistics as it finds them, where they lie."""
    in_own_process("generate_parts", options)
    found = in_own_process("ours_hook", options)
    print(f"\n{options.rows:,} rows x {options.statistics} statistics -> {found['pools']} pools")
    for title, key, shown in (
        ("wall seconds", "wall", "{:.1f}"),
        ("CPU seconds of all processes", "all_cpu", "{:.1f}"),
        ("peak memory of the driver", "peak", "{:,.0f} bytes"),
        ("  of it after imports", "baseline", "{:,.0f} bytes"),
        ("peak memory of all processes", "tree", "{:,.0f} bytes"),
        ("bytes written", "written", "{:,.0f}"),
    ):
        print(f"{title:30}{shown.format(found[key]):>22}")


def in_own_process(role: str, options: argparse.Namespace) -> dict[str, Any]:
    given: dict[str, Any] = {"role": role, "work": options.work, "rows": options.rows}
    given["statistics"] = options.statistics
    if options.sandbox_source is not None:
        given["sandbox-source"] = options.sandbox_source.resolve()
    command = [sys.executable, __file__, *(f"--{key}={value}" for key, value in given.items())]
    command += ["--alone"] if options.alone else []
    command += ["--fewest"] if options.fewest else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the process for {role!r} failed:\n{done.stderr[-4000:]}")
    return dict(json.loads(done.stdout.rpartition(RESULT)[2]))


def print_table(sides: dict[str, dict[str, Any]]) -> None:
    rows: list[tuple[str, str, Callable[[float], str]]] = [
        ("wall seconds", "wall", lambda x: f"{x:.3f}"),
        ("CPU seconds", "cpu", lambda x: f"{x:.3f}"),
        ("peak memory (whole process)", "peak", mib),
        ("  of it after imports", "baseline", mib),
        ("bytes read", "read", mib),
        ("bytes written", "written", mib),
    ]
    print(f"\n{'':29}" + "".join(f"{name:>22}" for name in sides) + f"{'ratios':>20}")
    for title, key, shown in rows:
        values = [side[key] for side in sides.values()]
        ratios = " / ".join(f"{values[0] / value:.3g}x" for value in values[1:])
        cells = "".join(f"{shown(value):>22}" for value in values)
        print(f"{title:29}{cells}{ratios:>20}")


def print_agreement(options: argparse.Namespace) -> None:
    """Compare the rows of both sides' pools, and look for an order that ties have carried over."""
    import numpy as np  # only now: no measured process begins at the size that this brings
    import pyarrow.parquet as pq

    values = pq.read_table(inputs(options)[1])
    assignments = pq.read_table(options.work / "ours_parquet" / "assignments.parquet")
    artefact: dict[str, list[Any]] = {}
    print("\nRows that both sides select, of the smaller pool (low / middle / high):")
    for name in statistic_names(options.statistics):
        files = [options.work / "theirs" / name / f"data_{name}_{part}.jsonl" for part in range(3)]
        theirs = [[json.loads(line)["row_id"] for line in file.open()] for file in files]
        ours = [np.flatnonzero(assignments[name].to_numpy() == code) for code in range(3)]
        pairs = zip(theirs, ours, strict=True)
        shares = [len(np.intersect1d(a, b)) / min(len(a), len(b)) for a, b in pairs]
        kind = "tie-free" if len(np.unique(values[name].to_numpy())) == len(values) else "ties"
        print(f"  {name:16}{kind:10}" + " / ".join(f"{share:8.3%}" for share in shares))
        if name == "sparse_0":
            artefact = {"theirs": theirs, "ours": ours}
    if artefact:
        previous = values["normal_0"].to_numpy()
        error = previous.std() / (len(previous) / 3) ** 0.5
        print("\nTies: mean of normal_0 in the pools of sparse_0 (90 % zeros), unrelated to it:")
        for side, pools in artefact.items():
            means = " / ".join(f"{previous[rows].mean():+.4f}" for rows in pools)
            print(f"  {side:8}{means}   (standard error {error:.4f})")


def mib(size: float) -> str:
    return f"{size / 2**20:.1f} MiB"


def statistic_names(count: int) -> list[str]:
    return [f"{KINDS[index % len(KINDS)]}_{index // len(KINDS)}" for index in range(count)]


def values_of(n: int, statistics: int, rng: Any) -> dict[str, Any]:
    """Return columns of ``n`` values by name, of a generator of numpy."""
    import numpy as np

    makers: dict[str, Callable[[], Any]] = {
        "uniform": lambda: rng.random(n),
        "normal": lambda: rng.normal(size=n),
        "sparse": lambda: np.where(rng.random(n) < 0.9, 0.0, rng.random(n)),
        "counts": lambda: rng.poisson(12, n).astype(float),
        "lognormal": lambda: rng.lognormal(4, 1, n),
        "binary": lambda: (rng.random(n) < 0.4).astype(float),
        "ratio": lambda: np.round(rng.beta(2, 5, n), 2),
        "exponential": lambda: rng.exponential(size=n),
    }
    names = statistic_names(statistics)
    return {name: makers[name.rsplit("_", 1)[0]]() for name in names}


def generate_parts(options: argparse.Namespace) -> dict[str, Any]:
    """Write statistics as the pipeline has them: an operator's folder of parts for each."""
    import numpy as np

    from djsandbox_ray.stats.parts import PartReport, part, write_part
    from djsandbox_ray.storage.store import Storage

    storage = Storage(str(options.work))
    step = -(-options.rows // min(PARTS, options.rows))
    for start in range(0, options.rows, step):
        stop = min(start + step, options.rows)
        rng, ids = np.random.default_rng(start), np.arange(start, stop)
        for name, values in values_of(stop - start, options.statistics, rng).items():
            report = PartReport(stop - start, {name: 0}, 0, (), 0.0)
            write_part(storage, part(f"{name}.parquet", start), ids, {name: values}, report)
    return {}


def ours_hook(options: argparse.Namespace) -> dict[str, Any]:
    """Run the hook that builds pools, in tasks of a cluster of its own."""
    from threading import Event, Thread

    import psutil
    from rich.console import Console

    from djsandbox_ray.config import RunConfig
    from djsandbox_ray.hooks.hook import Context
    from djsandbox_ray.hooks.pools import BuildPools
    from djsandbox_ray.nodes.connection import connect
    from djsandbox_ray.pools.config import MIN_CONTROLS
    from djsandbox_ray.records import Dataset, Leak, Statistic, Statistics
    from djsandbox_ray.reporting.progress import Progress
    from djsandbox_ray.settings.sections import Component
    from djsandbox_ray.storage.store import Storage
    from djsandbox_ray.tracking.tracker import NullTracker

    connect()
    storage, shapes = Storage(str(options.work)), {"type": "shapes", "samples": 10}
    config = RunConfig.model_validate(
        {
            "name": "pools",
            "storage": storage.url,
            "dataset": shapes,
            "operators": ["text_length_filter"],
            "pools": {"controls": MIN_CONTROLS, "self_tests": False} if options.fewest else {},
            "trials": {"model": {"type": "clip"}, "budget": 20},
            "evaluation": {"dataset": shapes, "metrics": [{"type": "retrieval"}]},
        }
    )
    tracker = NullTracker(Component(type="none"), storage)
    context = Context(config, storage, "run", tracker, Progress(Console(stderr=True)))
    names = statistic_names(options.statistics)
    statistics = tuple(Statistic(n, n, n, n, f"{n}.parquet") for n in names)
    dataset = Dataset("dataset", "samples.lance", options.rows, 0)
    leaks = Leak("leak", "leaks.parquet", 0, removed=True)
    over, peaks, made = Event(), [0], []
    used: dict[tuple[int, float], float] = {}  # CPU-seconds of processes, ended ones too

    def look() -> None:
        me, total = psutil.Process(), 0
        for process in (me, *me.children(recursive=True)):
            try:
                times = process.cpu_times()
                used[process.pid, process.create_time()] = times.user + times.system
                total += process.memory_full_info().pss  # what is shared counts once
            except psutil.Error:  # it has ended meanwhile
                continue
        peaks.append(total)

    def watch() -> None:
        while not over.wait(0.5):
            look()

    def run() -> None:
        made.append(BuildPools(context).run(dataset, Statistics("statistics", statistics), leaks))

    look()
    before = sum(used.values())
    watcher = Thread(target=watch, daemon=True)
    watcher.start()
    found = measured(run, options.work / f"{names[0]}.parquet", options.work / "run")
    over.set()
    watcher.join()
    look()
    cpu = sum(used.values()) - before
    return {**found, "all_cpu": cpu, "tree": max(peaks), "pools": len(made[0].pools)}


def generate(options: argparse.Namespace) -> dict[str, Any]:
    """Write the analysed JSONL as Data-Juicer exports it, and the same statistics as Parquet."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    n, rng = options.rows, np.random.default_rng(0)
    columns = values_of(n, options.statistics, rng)
    words = np.array(["a", "the", "red", "small", "round", "dog", "house", "tree", "near", "photo"])
    picks = rng.integers(0, len(words), (n, 24))
    jsonl, parquet = inputs(options)
    values = zip(*(column.tolist() for column in columns.values()), strict=True)
    names = list(columns)
    with jsonl.open("w") as file:
        for row, (pick, stats) in enumerate(zip(picks, values, strict=True)):
            of_row = dict(zip(names, stats, strict=True))
            sample = {"text": " ".join(words[pick]), "row_id": row, STATS: of_row}
            file.write(json.dumps(sample) + "\n")
    pq.write_table(pa.table({"row_id": np.arange(n), **columns}), parquet)
    return {"jsonl": jsonl.stat().st_size, "parquet": parquet.stat().st_size}


def ours_parquet(options: argparse.Namespace) -> dict[str, Any]:
    import pyarrow.parquet as pq

    return ours(options, "ours_parquet", inputs(options)[1], pq.read_table)


def ours_jsonl(options: argparse.Namespace) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.json as pj

    def read(source: Path) -> Any:
        stats = pa.struct([(name, pa.float64()) for name in statistic_names(options.statistics)])
        wanted = pj.ParseOptions(
            explicit_schema=pa.schema([("row_id", pa.int64()), (STATS, stats)]),
            unexpected_field_behavior="ignore",
        )
        table = pj.read_json(source, parse_options=wanted).flatten()
        return table.rename_columns([name.removeprefix(f"{STATS}.") for name in table.column_names])

    return ours(options, "ours_jsonl", inputs(options)[0], read)


def ours(
    options: argparse.Namespace, name: str, source: Path, read: Callable[[Path], Any]
) -> dict[str, Any]:
    import pyarrow as pa
    import pyarrow.dataset  # what read_table would import while it is timed

    from djsandbox_ray.pools.build import construct
    from djsandbox_ray.pools.config import PoolConfig
    from djsandbox_ray.pools.serialise import to_json
    from djsandbox_ray.records import Pools
    from djsandbox_ray.storage.store import Storage

    target = options.work / name
    storage = Storage(str(target))
    shared = ("pools", "size", "draw_size", "eligible", "not_testable", "contrast", "missing")

    def run() -> None:
        table = read(source)
        columns = {key: table[key].to_numpy() for key in table.column_names}
        row_ids = columns.pop("row_id")
        built = construct(row_ids, columns, PoolConfig())
        table = pa.table({"row_id": row_ids, **built.assignments})
        storage.write_table("assignments.parquet", table)
        fields = {field: getattr(built, field) for field in shared}
        record = Pools(id="pools-benchmark", assignments="assignments.parquet", seed=0, **fields)
        storage.write_json("pools.json", to_json(record))

    return measured(run, source, target)


def theirs(options: argparse.Namespace) -> dict[str, Any]:
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ["HF_DATASETS_CACHE"] = str(options.work / "cache")
    from data_juicer.utils.lazy_loader import LazyLoader

    def refuse(*_: Any, **__: Any) -> None:
        raise ImportError("nothing is installed during a benchmark")

    LazyLoader._install_package = refuse  # its habit of installing packages at run time
    construction = runpy.run_path(str(options.sandbox_source))["DataPoolConstruction"]
    jsonl = inputs(options)[0]

    def construct(source: Path, target: Path) -> None:
        construction({"dataset_path": str(source), "export_path": str(target)}).run()

    target = options.work / "theirs"
    result = measured(lambda: construct(jsonl, target), jsonl, target)
    gap = options.work / "gap.jsonl"
    first = [json.loads(line) for line in jsonl.open().readlines()[:100]]
    first[50][STATS]["uniform_0"] = None
    gap.write_text("".join(json.dumps(sample) + "\n" for sample in first))
    try:
        construct(gap, options.work / "gap")
        result["with_a_missing_value"] = "is accepted"
    except Exception as error:  # whatever it raises is the finding
        result["with_a_missing_value"] = f"{type(error).__name__}: {error}"
    return result


def measured(run: Callable[[], object], source: Path, target: Path) -> dict[str, Any]:
    """Run once, after imports: seconds, CPU seconds of this process and its children, bytes."""
    baseline = peak_memory()
    cpu, wall = cpu_seconds(), time.perf_counter()
    run()
    wall, cpu = time.perf_counter() - wall, cpu_seconds() - cpu
    return {
        "wall": wall,
        "cpu": cpu,
        "peak": peak_memory(),
        "baseline": baseline,
        "read": source.stat().st_size,
        "written": sum(file.stat().st_size for file in target.rglob("*") if file.is_file()),
    }


def cpu_seconds() -> float:
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in usage)


def peak_memory() -> int:
    """Peak resident bytes of this process (``ru_maxrss``: KiB on Linux, bytes on macOS)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def inputs(options: argparse.Namespace) -> tuple[Path, Path]:
    return options.work / "data.jsonl", options.work / "stats.parquet"


ROLES: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "generate_parts": generate_parts,
    "ours_hook": ours_hook,
    "generate": generate,
    "ours_parquet": ours_parquet,
    "ours_jsonl": ours_jsonl,
    "theirs": theirs,
}

if __name__ == "__main__":
    main()

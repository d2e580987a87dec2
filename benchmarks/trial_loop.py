"""Samples per second inside a trial beside a bare PyTorch loop on the same arrays.

The peer is the shortest loop that trains the same open_clip model on the same batches: uint8 images
and int64 tokens in memory, AdamW, no schedule, no reports. The trial is the whole of what a pool
pays for: a Ray Tune trial through the package's engine, from its start to its last report, with its
samples in Ray's object store. Both run on one thread, in turn, in the same run.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from typing import Any

import numpy as np
import pyarrow as pa
import ray
import torch
from open_clip import ClipLoss

from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.nodes.connection import connect
from djsandbox_ray.pools.draws import draw
from djsandbox_ray.records import Aggregate, Pool, PoolKind, TrialRecord, TrialSpec
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.clip.arch import build_model, image_size, load_arch
from djsandbox_ray.trials.clip.family import Clip, ClipConfig
from djsandbox_ray.trials.clip.samples import Packed
from djsandbox_ray.trials.clip.training import normalise
from djsandbox_ray.trials.config import Resources
from djsandbox_ray.trials.engine import run_trials
from djsandbox_ray.trials.stopping.stopping import Competition, NoStopping, StoppingConfig
from djsandbox_ray.trials.worker import Shared


def bare_loop(images: Any, tokens: Any, arch: dict[str, Any], budget: int, batch: int) -> float:
    """Train without anything around it; samples per second."""
    torch.set_num_threads(1)
    model, contrast = build_model(arch, seed=0), ClipLoss(cache_labels=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
    texts = torch.from_numpy(tokens).long()
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(texts)))
    start = time.perf_counter()
    for step in range(budget // batch):
        index = order[torch.arange(step * batch, (step + 1) * batch) % len(order)]
        loss = contrast(*model(normalise(pixels[index]), texts[index]))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    return budget / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="tiny")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--budget", type=int, default=38400)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()

    arch = load_arch(args.arch)
    rng = np.random.default_rng(0)
    side, context = image_size(arch), arch["text_cfg"].get("context_length", 77)
    images = rng.integers(0, 256, (args.rows, side, side, 3), dtype=np.uint8)
    tokens = rng.integers(1, arch["text_cfg"]["vocab_size"], (args.rows, context), dtype=np.int32)

    connect(cpus=1)
    storage = tempfile.TemporaryDirectory()
    samples = Packed(args.rows, (ray.put(images),), (ray.put(tokens),))
    rows = np.arange(args.rows, dtype=np.int64)
    pool = Pool("pool", PoolKind.BUCKET, "pool", 0, args.rows, "none")
    column = pa.table({"row_id": rows, "pool": np.zeros(args.rows, np.int8)})
    Storage(storage.name).write_table("assignments.parquet", column)
    draws = [draw(pool, rows, seed, args.rows, 0).hash for seed in (0, 1)]
    config = ClipConfig(type="clip", arch=args.arch, batch_size=args.batch)
    shared = Shared(
        family=Clip(config),
        prepared=(samples, samples),
        suite=Suite([], []),
        pools={"pool": pool},
        assignments="assignments.parquet",
        draw_size=args.rows,
        base_seed=0,
        rungs=(args.budget,),
        storage=storage.name,
        resources=Resources(),
        retries=0,
    )
    seen: dict[int, dict[str, float]] = {}

    def on_record(record: TrialRecord) -> None:
        times = seen.setdefault(record.spec.seed, {"start": time.perf_counter()})
        times["end"] = time.perf_counter()
        if record.final:
            times["inside"] = args.budget / record.final.train_seconds

    inside, whole, bare = [], [], []
    for repeat in range(args.repeats):
        bare.append(bare_loop(images, tokens, arch, args.budget, args.batch))
        # The first trial starts the process and imports torch; the second is what others cost.
        specs = [
            TrialSpec(f"{repeat}-{seed}", "pool", seed, draws[seed], args.budget) for seed in (0, 1)
        ]
        seen.clear()
        competition = Competition(
            pools=shared.pools,
            specs=specs,
            known={},
            rungs=shared.rungs,
            metrics=None,
            aggregate=Aggregate.STANDARDIZED,
            decisions=(),
            on_decision=print,
        )
        choice = NoStopping(StoppingConfig(type="none"))
        run_trials(specs, shared, choice, competition, on_record, "tune")
        inside.append(seen[1]["inside"])
        whole.append(args.budget / (seen[1]["end"] - seen[0]["end"]))
    ray.shutdown()
    storage.cleanup()

    base = statistics.median(bare)
    print(f"{args.arch}, batch {args.batch}, {args.budget} samples, median of {args.repeats}")
    print(f"{'':34}{'samples/s':>10}{'ratio to the bare loop':>25}")
    for name, values in (
        ("bare PyTorch loop", bare),
        ("trial, its own training seconds", inside),
        ("trial, wall from report to report", whole),
    ):
        median = statistics.median(values)
        print(f"{name:34}{median:10.0f}{median / base:25.3f}")


if __name__ == "__main__":
    main()

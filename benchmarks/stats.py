"""Statistics beside Data-Juicer's own ways to compute them: what a row costs, and what a start.

All sides get the same samples and operators: the operators called one after another on batches, in
one process, with nothing around them ("direct"); Data-Juicer's ``op.run``, operator after
operator, as its executor does, and ours, both with two processes; on request also its ``Analyzer``,
which writes tables and figures too. Each side is a fresh process and they take turns, at a quarter
of the rows and at all of them. CPU-seconds are those of the whole process tree, with imports and
the start of Ray; the line through both sizes tells the marginal cost of rows from the fixed cost.
The values of all sides must agree row by row.

    python benchmarks/stats.py [--rows 200000] [--images | --clip] [--analyzer]
"""

from __future__ import annotations

import argparse
import io
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DIRECT, RUN, OURS = "direct call", "Data-Juicer op.run", "djsandbox_ray"
ANALYZER = "Data-Juicer Analyzer"
PROCESSES = 2
BATCH = 1000
"""Rows per direct call: what Data-Juicer itself takes."""
TEXT: list[dict[str, dict[str, Any]]] = [
    {"alphanumeric_filter": {}},
    {"character_repetition_filter": {"rep_len": 5}},
    {"word_repetition_filter": {"rep_len": 2}},
    {"special_characters_filter": {}},
    {"text_length_filter": {}},
    {"words_num_filter": {}},
]
IMAGES: list[dict[str, dict[str, Any]]] = [
    {"image_aspect_ratio_filter": {}},
    {"image_shape_filter": {}},
    {"image_size_filter": {}},
]
WORDS = "a photo of the small red dog and two green cars on grass near my old house".split()  # noqa: SIM905
TOKEN, END = "<__dj__image>", "<|__dj__eoc|>"


def make_samples(folder: Path, rows: int, with_images: bool) -> None:
    """Write the same samples as a Lance table and as Data-Juicer's JSON lines."""
    import lance
    import pyarrow as pa

    rng = random.Random(0)
    texts = [" ".join(rng.choices(WORDS, k=rng.randint(5, 30))) for _ in range(rows)]
    columns: dict[str, Any] = {"row_id": list(range(rows)), "text": texts}
    paths: list[str] = []
    if with_images:
        columns["image"] = [make_image(row) for row in range(rows)]
        (folder / "images").mkdir()
        for row, image in enumerate(columns["image"]):
            paths.append(str(folder / "images" / f"{row}.jpg"))
            Path(paths[-1]).write_bytes(image)
    lance.write_dataset(pa.table(columns), str(folder / "storage" / "samples.lance"))
    with (folder / "samples.jsonl").open("w") as file:
        for row, text in enumerate(texts):
            sample: dict[str, Any] = {"row_id": row, "text": text}
            if with_images:
                sample |= {"images": [paths[row]], "tagged": f"{TOKEN} {text} {END}"}
            file.write(json.dumps(sample) + "\n")


def make_image(seed: int) -> bytes:
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
    size = (224 + int(rng.integers(0, 80)), 224)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


def make_clip(folder: Path) -> str:
    """Save an untrained CLIP with the vision tower of ViT-B/32 and a byte-level tokenizer."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from transformers import (
        CLIPConfig,
        CLIPImageProcessor,
        CLIPModel,
        CLIPProcessor,
        PreTrainedTokenizerFast,
    )

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    marks = ["<bos>", "<eos>"]
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=marks, initial_alphabet=alphabet)
    tokenizer.train_from_iterator([" ".join(WORDS)], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 0), ("<eos>", 1)]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<eos>"
    )
    text = {"vocab_size": 400, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 1}
    config = CLIPConfig(text_config=text, vision_config={"patch_size": 32})
    target = str(folder / "clip")
    CLIPModel(config).eval().save_pretrained(target)
    CLIPProcessor(CLIPImageProcessor(), fast).save_pretrained(target)
    return target


def run_ours(folder: Path, process: list[Any], rows: int) -> tuple[float, dict[str, list[float]]]:
    from djsandbox_ray.nodes.connection import connect
    from djsandbox_ray.records import Dataset
    from djsandbox_ray.stats.compute import StatisticsConfig, compute_statistics
    from djsandbox_ray.stats.operators import parse_process
    from djsandbox_ray.stats.parts import StatisticColumns
    from djsandbox_ray.storage.store import Storage

    connect(cpus=PROCESSES)
    storage = Storage(str(folder / "storage"))
    dataset = Dataset("data", "samples.lance", rows, 0)
    settings = StatisticsConfig(actors=PROCESSES)
    start = time.perf_counter()
    done = compute_statistics(storage, dataset, parse_process(process), settings=settings)
    seconds = time.perf_counter() - start
    columns = StatisticColumns(storage, done.statistics, rows)
    return seconds, {name: column.tolist() for name, column in columns.items()}


def run_direct(folder: Path, process: list[Any]) -> tuple[float, dict[str, list[float]]]:
    from data_juicer.ops import load_ops

    start = time.perf_counter()
    with (folder / "samples.jsonl").open() as file:
        samples = [json.loads(line) for line in file]
    table: dict[str, list[Any]] = {key: [row[key] for row in samples] for key in samples[0]}
    table["__dj__stats__"] = [{} for _ in samples]
    for operator in load_ops(process):
        for first in range(0, len(samples), BATCH):
            operator.compute_stats_batched(
                {key: values[first : first + BATCH] for key, values in table.items()}
            )
    return time.perf_counter() - start, collect(table)


def run_operators(folder: Path, process: list[Any]) -> tuple[float, dict[str, list[float]]]:
    from data_juicer.core.data import NestedDataset
    from data_juicer.ops import load_ops
    from datasets import load_dataset

    start = time.perf_counter()
    files = {"train": str(folder / "samples.jsonl")}
    dataset: Any = load_dataset(
        "json", data_files=files, split="train", cache_dir=str(folder / "cache")
    )
    dataset = NestedDataset(dataset)
    for operator in load_ops(process):
        operator.num_proc, operator.auto_op_parallelism = PROCESSES, False
        dataset = operator.run(dataset, reduce=False)
    return time.perf_counter() - start, collect(dataset)


def run_analyzer(folder: Path, process: list[Any]) -> tuple[float, dict[str, list[float]]]:
    from data_juicer.config import init_configs
    from data_juicer.core import Analyzer

    config = folder / "analyzer.yaml"
    config.write_text(
        json.dumps(
            {
                "dataset_path": str(folder / "samples.jsonl"),
                "export_path": str(folder / "analysis" / "out.jsonl"),
                "work_dir": str(folder / "analysis"),
                "ds_cache_dir": str(folder / "cache"),
                "use_cache": False,
                "text_keys": "text",
                "np": PROCESSES,
                "process": process,
            }
        )
    )
    start = time.perf_counter()
    dataset = Analyzer(init_configs(["--config", str(config)])).run()
    return time.perf_counter() - start, collect(dataset)


def collect(dataset: Any) -> dict[str, list[float]]:
    """Bring Data-Juicer's statistics into row order, a list per sample as its mean."""
    columns: dict[str, list[float]] = {}
    pairs = sorted(
        zip(dataset["row_id"], dataset["__dj__stats__"], strict=True), key=lambda p: p[0]
    )
    for _, stats in pairs:
        for key, value in stats.items():
            number = sum(value) / len(value) if isinstance(value, list) else value
            columns.setdefault(key, []).append(float(number))
    return columns


def side(name: str, folder: Path, rows: int) -> None:
    """Run one side in this process and leave its seconds and values in a file."""
    process = json.loads((folder / "process.json").read_text())
    if name == OURS:
        seconds, columns = run_ours(folder, process, rows)
    else:
        # The CLIP operator finds its images by special tokens, which text operators must not see.
        tagged = [
            {key: params | ({"text_key": "tagged"} if "similarity" in key else {})}
            for item in process
            for key, params in item.items()
        ]
        run = {DIRECT: run_direct, RUN: run_operators, ANALYZER: run_analyzer}[name]
        seconds, columns = run(folder, tagged)
    (folder / f"{name}.json").write_text(json.dumps({"seconds": seconds, "columns": columns}))


def measure(name: str, folder: Path, rows: int) -> dict[str, Any]:
    """Run one side in a fresh process; CPU seconds are those of all processes below it."""
    import psutil

    command = [sys.executable, __file__, "--side", name, "--folder", str(folder)]
    start = time.perf_counter()
    with (folder / f"{name}.log").open("w") as log:
        child = subprocess.Popen([*command, "--rows", str(rows)], stdout=log, stderr=log)
        tree, used = psutil.Process(child.pid), {}
        while child.poll() is None:
            try:
                for process in [tree, *tree.children(recursive=True)]:
                    times = process.cpu_times()
                    used[process.pid, process.create_time()] = times.user + times.system
            except psutil.NoSuchProcess:
                pass  # it ended between the list and the look
            time.sleep(0.1)
    wall = time.perf_counter() - start
    if child.returncode:
        sys.exit(f"{name} failed:\n{(folder / f'{name}.log').read_text()[-3000:]}")
    found = json.loads((folder / f"{name}.json").read_text())
    return {"wall": wall, "cpu": sum(used.values()), **found}


def disagreement(ours: dict[str, list[float]], theirs: dict[str, list[float]]) -> float:
    """Return the greatest difference of any value; exits if a statistic or row is missing."""
    if {key: len(values) for key, values in ours.items()} != {
        key: len(values) for key, values in theirs.items()
    }:
        sys.exit(f"different statistics: {sorted(ours)} and {sorted(theirs)}")
    pairs = (pair for key in ours for pair in zip(ours[key], theirs[key], strict=True))
    # `not <=` so that NaN on either side counts as infinitely far.
    return max(abs(a - b) if abs(a - b) <= 1e300 else float("inf") for a, b in pairs)


def compare(names: Sequence[str], process: list[Any], rows: int, images: bool) -> list[Any]:
    """Measure every side on as many rows; each result has ``gap``, its distance from the first."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_samples(folder, rows, images)
        (folder / "process.json").write_text(json.dumps(process))
        found = [measure(name, folder, rows) for name in names]
    columns = [one.pop("columns") for one in found]
    gaps = [disagreement(columns[0], values) for values in columns]
    return [{**one, "gap": gap} for one, gap in zip(found, gaps, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--images", action="store_true", help="add three image operators")
    parser.add_argument("--clip", action="store_true", help="only image_text_similarity, ViT-B/32")
    parser.add_argument("--analyzer", action="store_true", help="measure Data-Juicer's too")
    sides = [DIRECT, RUN, OURS, ANALYZER]
    parser.add_argument("--side", choices=sides, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        side(given.side, given.folder, given.rows)
        return
    names = sides if given.analyzer else sides[:3]
    with tempfile.TemporaryDirectory() as models:
        process = TEXT + (IMAGES if given.images else [])
        if given.clip:
            process = [{"image_text_similarity_filter": {"hf_clip": make_clip(Path(models))}}]
        sizes = (max(1, given.rows // 4), given.rows)
        small, large = (compare(names, process, n, given.images or given.clip) for n in sizes)
    print(f"{len(process)} operators; {PROCESSES} processes on every side but the first")
    print(
        f"{'':20}{f'CPU s, {sizes[0]:,}':>16}{f'{sizes[1]:,} rows':>16}{'per 1,000':>11}{'x':>6}"
        f"{'fixed s':>9}{'computing s':>13}{'wall s':>8}  agrees"
    )
    for name, few, many in zip(names, small, large, strict=True):
        gap = max(few["gap"], many["gap"])
        if gap > (1e-6 if given.clip else 1e-9):
            sys.exit(f"{name}: values differ by up to {gap:g}")
        marginal, direct = (
            (b["cpu"] - a["cpu"]) / (sizes[1] - sizes[0])
            for a, b in ((few, many), (small[0], large[0]))
        )
        print(
            f"{name:20}{few['cpu']:16.1f}{many['cpu']:16.1f}{1000 * marginal:11.3f}"
            f"{marginal / direct if direct > 0 else float('nan'):6.2f}"
            f"{few['cpu'] - marginal * sizes[0]:9.1f}"
            f"{many['seconds']:13.1f}{many['wall']:8.1f}  to {gap:.0e}"
        )


if __name__ == "__main__":
    main()

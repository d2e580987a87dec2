"""Statistics beside Data-Juicer's own ways to compute them: one table.

Three sides get the same samples, operators and number of processes: ours; Data-Juicer's
``op.run``, operator after operator, as its executor does; and its ``Analyzer``, which also writes
tables and figures. Each is a fresh process. "Computing" is the time of the call itself, "wall" and
"CPU" are of the whole process tree, from its start to its end, with imports and the start of Ray.
The values of all sides must agree row by row.

    python benchmarks/stats.py [--rows 50000] [--images | --clip]
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
from pathlib import Path
from typing import Any

OURS, RUN, ANALYZER = "djsandbox_ray", "Data-Juicer op.run", "Data-Juicer Analyzer"
PROCESSES = 2
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
        seconds, columns = (run_operators if name == RUN else run_analyzer)(folder, tagged)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--images", action="store_true", help="add three image operators")
    parser.add_argument("--clip", action="store_true", help="only image_text_similarity, ViT-B/32")
    parser.add_argument("--side", choices=[OURS, RUN, ANALYZER], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        side(given.side, given.folder, given.rows)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_samples(folder, given.rows, given.images or given.clip)
        process = TEXT + (IMAGES if given.images else [])
        if given.clip:
            process = [{"image_text_similarity_filter": {"hf_clip": make_clip(folder)}}]
        (folder / "process.json").write_text(json.dumps(process))
        results = {name: measure(name, folder, given.rows) for name in (OURS, RUN, ANALYZER)}
    print(f"{given.rows:,} rows, {len(process)} operators, {PROCESSES} processes on each side")
    print(
        f"{'':22}{'computing s':>12}{'rows/s':>9}{'wall s':>8}{'x':>6}{'CPU s':>8}{'x':>6}  agrees"
    )
    ours = results[OURS]
    for name, found in results.items():
        gap = disagreement(ours["columns"], found["columns"])
        tolerance = 1e-6 if given.clip else 1e-9
        if gap > tolerance:
            sys.exit(f"{name}: values differ by up to {gap:g}")
        print(
            f"{name:22}{found['seconds']:12.1f}{given.rows / found['seconds']:9.0f}"
            f"{found['wall']:8.1f}{found['wall'] / ours['wall']:6.1f}"
            f"{found['cpu']:8.1f}{found['cpu'] / ours['cpu']:6.1f}  to {gap:.0e}"
        )


if __name__ == "__main__":
    main()

"""The 31 operators of the paper's Table 4 beside Data-Juicer's ``op.run``: values, and speed.

Of every operator two processes are asked in turns, about the same rows: one has the operator as an
actor of ours has it, the other calls ``op.run`` and has no code of this project. Both read media
from files. CPU-seconds are those of a process and all below it. Each round asks for few rows and
for many, others in every round, as neither side may know them already: the line through both tells
the cost of rows from that of a start. Values must agree row by row, to 1e-9, of models to 1e-6.

Models are small, and trained on the captions or random, as those of the tests; images and clips are
of the generated worlds unless files with others are named. An operator of which a package or a file
is not there is not run, and what it needs is said.

    python benchmarks/operators.py [--only NAME ...] [--scale 1] [--pairs FILE] [--clips FILE]
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from djsandbox_ray.dataset.source import Sample
    from djsandbox_ray.stats.operators import OperatorSpec

TESTS = Path(__file__).resolve().parent.parent / "tests"
"""Where the tests have small models, and Data-Juicer without this project."""
sys.path[:0] = [str(TESTS), str(TESTS / "stats")]

OURS, RUN = "djsandbox_ray", "op.run"
ROUNDS = 2
FEW = 4
ROWS = {"text": 4000, "image": 200, "video": 16}
"""Of a round, beside the few."""
BATCH = 32
"""Rows that an actor computes together, by default."""
TEXT_BATCH = 256


@dataclass(frozen=True)
class Found:
    """What one side needed, and its values by statistic."""

    row: float
    """CPU-seconds of a row."""
    columns: dict[str, list[float]]


class Side:
    """A process that computes one operator after another."""

    def __init__(self, name: str, log: Path) -> None:
        self.name, self._log = name, log
        with log.open("w") as file:
            self._process = subprocess.Popen(
                [sys.executable, __file__, "--side", name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
            )

    def end(self) -> None:
        """End the process; it has nothing to keep."""
        self._process.kill()
        self._process.communicate()

    def ask(self, **wanted: Any) -> dict[str, Any]:
        """Have it build an ``operator``, or compute ``rows``: ``seconds``, and ``stats`` per row.

        Raises:
            RuntimeError: the operator fails.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps(wanted), file=self._process.stdin, flush=True)
            answer = dict(json.loads(self._process.stdout.readline()))
        except (BrokenPipeError, ValueError):
            sys.exit(f"{self.name} has ended:\n{self._log.read_text()[-3000:]}")
        if "error" in answer:
            raise RuntimeError(f"{self.name} fails: {answer['error']}")
        return answer


def ours(name: str, params: dict[str, Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Return what computes rows, and what reads off the result values per row."""
    from djsandbox_ray.stats.fused import FusedOperators, only_looks_at_text
    from djsandbox_ray.stats.operators import OperatorSpec

    spec = OperatorSpec(name, params)
    fused = FusedOperators([spec])
    size = TEXT_BATCH if only_looks_at_text(spec) else BATCH

    def files(rows: list[dict[str, Any]], key: str) -> list[list[bytes]]:
        return [[Path(path).read_bytes() for path in row[key]] for row in rows]

    def compute(rows: list[dict[str, Any]]) -> Any:
        done = []
        for first in range(0, len(rows), size):
            some = rows[first : first + size]
            images = files(some, "images") if fused.reads_images([0]) else None
            videos = files(some, "videos") if fused.reads_videos([0]) else None
            done += fused([row["text"] for row in some], images, [0], videos)
        return done

    def read(done: Any) -> list[dict[str, Any]]:
        if failures := [failure for one in done for failure in one.failures]:
            raise ValueError(f"rows without a value: {failures[:3]}")
        columns = {key: np.concatenate([one.columns[key] for one in done]) for key in spec.keys}
        rows = zip(*(column.tolist() for column in columns.values()), strict=True)
        return [dict(zip(columns, row, strict=True)) for row in rows]

    return compute, read


def theirs(name: str, params: dict[str, Any]) -> tuple[Callable[..., Any], Callable[..., Any]]:
    """As :func:`ours`; none of this project's code is imported."""
    import data_juicer_alone as alone

    operator = alone.build(name, params)
    return lambda rows: alone.run(operator, rows), alone.statistics


def side(name: str) -> None:
    """Answer what comes in, line by line, until it ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever else is printed goes to the log
    if name == RUN:
        import data_juicer_alone

        data_juicer_alone.prepare(os.environ["NLTK_DATA"])
    compute = read = None
    for line in sys.stdin:
        wanted, answer = json.loads(line), {}
        try:
            if "operator" in wanted:
                compute, read = {OURS: ours, RUN: theirs}[name](*wanted["operator"])
            else:
                before = used()
                done = compute(wanted["rows"])
                answer = {"seconds": used() - before, "stats": read(done)}
        except Exception as error:  # the others are compared
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer, default=lambda v: v.tolist()), file=answers, flush=True)


def used() -> float:
    """Return the CPU-seconds of this process, and of those below it that have ended."""
    below = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + below.ru_utime + below.ru_stime


def compare(
    sides: Sequence[Side], spec: OperatorSpec, rows: list[dict[str, Any]], many: int
) -> list[Found]:
    """Measure both sides on their turns."""
    seconds: dict[str, dict[int, list[float]]] = {OURS: {}, RUN: {}}
    values: dict[str, list[dict[str, Any]]] = {OURS: [], RUN: []}
    for one in sides:
        one.ask(operator=[spec.name, dict(spec.params)])
        one.ask(rows=rows[:FEW])  # what is loaded with the first row
    first = FEW
    for turn in range(ROUNDS):
        for count in (FEW, many):
            for one in sides if turn % 2 else sides[::-1]:
                answer = one.ask(rows=rows[first : first + count])
                seconds[one.name].setdefault(count, []).append(answer["seconds"])
                values[one.name] += answer["stats"]
            first += count
    found = []
    for name in (OURS, RUN):
        least = [min(seconds[name][count]) for count in (FEW, many)]
        row = max(least[1] - least[0], 1e-9) / (many - FEW)
        columns = {key: [number(row[key]) for row in values[name]] for key in spec.keys}
        found.append(Found(row, columns))
    return found


def number(value: Any) -> float:
    """Return the mean of several values; NaN where there are none."""
    return float("nan") if value is None or not np.size(value) else float(np.mean(value))


def gap(left: dict[str, list[float]], right: dict[str, list[float]]) -> float:
    """Return the greatest difference; infinite where one side has a value and the other none."""
    a, b = (np.array([*columns.values()]) for columns in (left, right))
    if not np.array_equal(np.isnan(a), np.isnan(b)) or np.isnan(a).all(axis=1).any():
        return float("inf")
    return float(np.nanmax(np.abs(a - b)))


def samples(path: Path | None, generated: dict[str, Any], content: str) -> Iterator[Sample]:
    """Read a file, parquet or JSON lines as Data-Juicer's; without one, make samples."""
    from djsandbox_ray.dataset.source import SOURCES, Rejection

    config = dict(generated)
    if path is not None:
        kind = "parquet" if path.suffix == ".parquet" else "jsonl"
        config = {"type": kind, "path": str(path), "content": content}
    made = SOURCES.get(config["type"])
    for shard in made(made.Config.model_validate(config)).shards():
        for item in shard.read():
            if isinstance(item, Rejection):
                sys.exit(f"{item.source}: {item.reason}: {item.detail}")
            yield item


def laid_out(folder: Path, found: Iterator[Sample], key: str, most: int) -> list[dict[str, Any]]:
    """Write media to files; the rows are those of Data-Juicer, with both kinds of text."""
    from djsandbox_ray.dataset.media import TOKENS, without_tokens

    token = {kind: token for token, kind in TOKENS.items()}[key.removesuffix("s")]
    rows = []
    for place, sample in zip(range(most), found, strict=False):
        path = folder / f"{key}-{place}"
        path.write_bytes(sample.all_media[0].data)
        text = without_tokens(sample.text)
        tagged = f"{token} {text} <|__dj__eoc|>"
        rows.append({"text": text, "tagged": tagged, key: [str(path)]})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these operators, not all 31")
    parser.add_argument("--scale", type=float, default=1, help="of the numbers of rows")
    parser.add_argument("--pairs", type=Path, help="parquet or JSON lines of images with captions")
    parser.add_argument("--clips", type=Path, help="the same of videos")
    parser.add_argument("--side", choices=[OURS, RUN], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.side:
        side(given.side)
        return
    with tempfile.TemporaryDirectory() as work:
        table(given, Path(work))


def table(given: argparse.Namespace, work: Path) -> None:
    """Print a line per operator."""
    names = given.only or small().TABLE_4
    if unknown := {*names} - {*small().TABLE_4}:
        sys.exit(f"not of Table 4: {', '.join(sorted(unknown))}")
    rows = prepared_rows(given, work)
    specs = prepared_operators(names, [row["text"] for row in rows["text"][:500]], work)
    lacking = {spec.name: missing for spec in specs if (missing := missing_needs(spec))}
    specs = [spec for spec in specs if spec.name not in lacking]
    print(f"{'operator':38}{'rows':>6}{'a CPU-second':>14}{RUN:>10}{'x':>7}  differ by")
    equal, sides = 0, []
    for spec in specs:
        some, size = chosen(spec, rows, given.scale)
        alone = "spacy" in spec.model_kinds  # ours remembers what it has parsed
        sides = sides or [Side(one, work / f"{one}.log") for one in (OURS, RUN)]
        try:
            mine, other = compare(sides, spec, some, size)
        except RuntimeError as error:
            print(f"{spec.name:38}{error}", flush=True)
            continue
        finally:
            if alone or spec is specs[-1]:
                for one in sides:
                    one.end()
                sides = []
        far = gap(mine.columns, other.columns)
        equal += far <= (1e-6 if spec.name in small().MODELS else 1e-9)
        print(
            f"{spec.name:38}{ROUNDS * (FEW + size):6}{1 / mine.row:14.1f}{1 / other.row:10.1f}"
            f"{other.row / mine.row:7.2f}  {far:.0e}",
            flush=True,
        )
    print(f"{equal} of {len(specs)} give the values of op.run; {len(lacking)} are not run")
    for name, missing in lacking.items():
        print(f"{name} needs {missing}")
    if equal < len(specs):
        sys.exit("values differ")


def prepared_rows(given: argparse.Namespace, work: Path) -> dict[str, list[dict[str, Any]]]:
    """Write samples to files: of text and image in pairs, as many as each takes, and videos."""
    most = {kind: FEW + ROUNDS * (FEW + size) for kind, size in sizes(given.scale).items()}
    pairs = {"type": "shapes", "samples": most["text"]}
    pictures = {**pairs, "image_size": 224}
    clips = {"type": "clips", "samples": most["video"], "frames": 17, "size": 128}
    wanted = (
        ("text", "images", given.pairs, pairs),
        ("image", "images", given.pairs, pictures),
        ("video", "videos", given.clips, clips),
    )
    rows = {}
    for kind, key, path, generated in wanted:
        (folder := work / kind).mkdir()
        content = "videos" if key == "videos" else "pairs"
        rows[kind] = laid_out(folder, samples(path, generated, content), key, most[kind])
    return rows


def prepared_operators(
    names: Sequence[str], texts: Sequence[str], work: Path
) -> list[OperatorSpec]:
    """Make the models, where both sides look for them."""
    os.environ |= {
        "DATA_JUICER_EXTERNAL_MODELS_HOME": str(work / "home"),
        "NLTK_DATA": str(work / "home" / "nltk_data"),
        "HF_DATASETS_CACHE": str(work / "cache"),
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "OMP_NUM_THREADS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    from djsandbox_ray.stats.operators import OperatorSpec

    make, tiny = small(), importlib.import_module("tiny_models")
    tokenizer = tiny.tokenizer(work / "tokenizer", texts)
    home = make.home(work / "home", texts, tokenizer)
    if (detector := home / make.DETECTOR_HOME).exists():
        os.environ["EASYOCR_MODULE_PATH"] = str(detector)
    params = make.parameters(work, tokenizer, tiny.clip(work / "clip", tokenizer))
    return [OperatorSpec(name, params.get(name, {})) for name in names]


def missing_needs(spec: OperatorSpec) -> str:
    from djsandbox_ray.stats.needs import needs

    return "; ".join(f"{need.what}: {need.remedy}" for need in needs(spec) if not need.there)


def chosen(
    spec: OperatorSpec, rows: dict[str, list[dict[str, Any]]], scale: float
) -> tuple[list[dict[str, Any]], int]:
    """Return the rows for an operator, and how many of them a round takes beside the few."""
    from djsandbox_ray.stats import inspection

    reads = inspection.reads(spec.filter_class)
    kind = next((kind for kind in ("video", "image") if kind in reads), "text")
    some = rows[kind]
    if inspection.needs_tokens(spec.filter_class):
        some = [{**row, "text": row["tagged"]} for row in some]
    size = sizes(scale)["image" if "spacy" in spec.model_kinds else kind]
    size = min(size, (len(some) - FEW) // ROUNDS - FEW)
    if size <= FEW:
        least = FEW + ROUNDS * (2 * FEW + 1)
        sys.exit(f"{spec.name}: {len(some)} rows of its kind are too few: {least} are needed")
    return some, size


def sizes(scale: float) -> dict[str, int]:
    return {kind: max(FEW + 1, round(size * scale)) for kind, size in ROWS.items()}


def small() -> Any:
    """Return what the tests make small models with."""
    return importlib.import_module("table4_models")


if __name__ == "__main__":
    main()

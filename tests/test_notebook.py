"""``import djsandbox_ray as dj``: what a run has left, as tables and pictures."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from factories import (
    confirmation_row,
    minimal_config,
    minimal_document,
    pool,
    pools,
    ranking_row,
    trial_record,
    write_config,
)
from PIL import Image
from written_tables import written

import djsandbox_ray as dj
from djsandbox_ray.dataset.source import Sample
from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.records import (
    Confirmation,
    ConfirmationRow,
    Dataset,
    PoolKind,
    Ranking,
    RankingRow,
    Report,
    Statistic,
    Statistics,
    Trials,
)
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.trials.trial_records import curves_table, trials_table
from djsandbox_ray.workflows.language.parameters import as_data

ROWS, FOLDER = 12, "runs/demo"
POOLS = [
    pool("text_len/low", low=1.0, high=4.0, size=4),
    *(pool(f"control/{number}", size=4, column=f"control/{number}") for number in range(3)),
]


def png(colour: str) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(file, "PNG")
    return file.getvalue()


class Left:
    """Leaves in a storage what jobs leave there."""

    def __init__(self, folder: Path) -> None:
        self.storage = Storage(str(folder))
        config = minimal_config(name="demo").model_dump(mode="json")
        self.storage.write_bytes(f"{FOLDER}/config.yaml", yaml.safe_dump(config).encode())

    def job(self, name: str, hook: str, output: Any) -> None:
        marker = {"output": as_data(output), "cost": {"hook": hook}}
        self.storage.write_sealed(f"{FOLDER}/jobs/{name}.json", marker)

    def dataset(self) -> None:
        colours = ["red", "blue"] * (ROWS // 2)
        samples = [
            Sample(png(colour), f"a {colour} thing", f"x#{i}", {"colour": colour})
            for i, colour in enumerate(colours)
        ]
        written(samples, Path(self.storage.uri("")))
        self.job("dataset", "ingest", Dataset("d", "x.lance", ROWS, 0))

    def statistics(self) -> None:
        table = pa.table({"row_id": np.arange(ROWS), "text_len": np.arange(ROWS) + 1.0})
        path = "datasets/d/stats/op.parquet"
        self.storage.write_table(path, table)
        found = (Statistic("text_len", "text_len", "text_length_filter", "op", path),)
        self.job("statistics", "statistics", Statistics("s", found))

    def pools(self) -> None:
        columns = {one.column: np.full(ROWS, -1, dtype=np.int8) for one in POOLS}
        columns["text_len"][:4] = 0
        path = f"{FOLDER}/assignments.parquet"
        self.storage.write_table(path, pa.table({"row_id": np.arange(ROWS), **columns}))
        self.job("pools", "pools", pools(POOLS, assignments=path))

    def trials(self, name: str = "trials", metric: float = 0.6) -> None:
        records = [
            trial_record("text_len/low", seed, metric, id=f"{name}{seed}") for seed in (0, 1)
        ]
        records += [
            trial_record(f"control/{number}", seed, 0.5, id=f"{name}c{number}{seed}")
            for number in range(3)
            for seed in (0, 1)
        ]
        tables = [f"{FOLDER}/{name}.parquet", f"{FOLDER}/{name}_curves.parquet"]
        by_id = {one.id: one for one in POOLS}
        self.storage.write_table(tables[0], trials_table(records, by_id, None))
        self.storage.write_table(tables[1], curves_table(records))
        self.job(name, "train", Trials(name, *tables, completed=len(records), failed=0))

    def verdicts(self) -> None:
        rows = [ranking_row("text_len/low", 0.2, metrics={"m": 0.6})]
        self.storage.write_rows(RankingRow, f"{FOLDER}/ranking.csv", rows)
        self.job("ranking", "judge", Ranking.of("r", f"{FOLDER}/ranking.csv", rows))
        again = [confirmation_row("text_len/low", 0.15)]
        self.storage.write_rows(ConfirmationRow, f"{FOLDER}/confirmation.csv", again)
        # Has the same fields as a ranking.
        self.job("confirmation", "confirmation", Confirmation("c", f"{FOLDER}/confirmation.csv"))

    def report(self) -> None:
        self.storage.write_bytes(f"{FOLDER}/figures/ranking.png", png("white"))
        self.storage.write_bytes(f"{FOLDER}/report.html", b"<html>")
        paths = (f"{FOLDER}/report.html", f"{FOLDER}/figures/ranking.png")
        self.job("report", "report", Report("p", *paths))


@pytest.fixture
def left(tmp_path: Path) -> Left:
    return Left(tmp_path / "storage")


@pytest.fixture
def result(left: Left) -> dj.Result:
    for leave in (left.dataset, left.statistics, left.pools, left.trials):
        leave()
    left.verdicts()
    left.report()
    return dj.load(left.storage.url, "demo")


def test_importing_it_does_nothing_else() -> None:
    code = (
        "import os, sys; before = dict(os.environ); import djsandbox_ray as dj\n"
        "assert dict(os.environ) == before\n"
        "assert {'load', 'plan', 'run'} <= set(dj.__all__)\n"
        "print(sorted({'ray', 'pandas', 'numpy', 'pydantic', 'typer'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        dj.nosuch  # noqa: B018


def test_the_verdicts(left: Left, result: dj.Result) -> None:
    (row,) = result.ranking.to_dict("records")
    assert (row["pool"], row["change"], row["verdict"]) == ("text_len/low", 0.2, "better")
    assert row["metric:m"] == 0.6
    assert result.summary == repr(result)
    assert result.summary.startswith("demo: keep text_len/low (any text_len): +15.00 %")
    assert result.figure().size == (8, 6)
    assert result.report() == left.storage.uri(f"{FOLDER}/report.html")


def test_trials_have_scores_in_the_unit_of_the_first_study(left: Left, result: dj.Result) -> None:
    left.trials("again", 0.75)
    table = dj.load(left.storage.url, "demo").trials
    assert list(table["job"].unique()) == ["trials", "again"]
    best = table[table["pool"] == "text_len/low"].groupby("job")["score"].mean()
    assert best["trials"] == pytest.approx(0.2)
    assert best["again"] == pytest.approx(0.5)
    controls = table[table["kind"] == PoolKind.CONTROL]
    assert controls["score"].abs().max() == pytest.approx(0.0)
    assert result.curves["job"].value_counts().to_dict() == {"trials": 8, "again": 8}
    first = result.curves[result.curves["job"] == "trials"]
    assert len(first) == 8
    assert first["metric:m"].max() == 0.6


def test_statistics_and_pools(result: dj.Result) -> None:
    assert result.statistics.index.name == "row_id"
    assert result.statistics["text_len"].tolist() == list(np.arange(ROWS) + 1.0)
    first = result.pools.iloc[0]
    assert (first["id"], first["job"], first["low"], first["high"]) == (
        "text_len/low",
        "pools",
        1,
        4,
    )


def test_samples_of_a_pool_can_be_looked_at(result: dj.Result) -> None:
    few = result.samples("text_len/low", 3)
    assert few.index.is_monotonic_increasing
    assert set(few.index) <= {0, 1, 2, 3}
    assert len(few) == 3
    assert few["text_len"].tolist() == [row + 1 for row in few.index]
    for row, sample in few.iterrows():
        colour = "blue" if row % 2 else "red"  # type: ignore[operator]
        assert sample["text"] == f"a {colour} thing"
        assert sample["meta"] == {"colour": colour}
        assert isinstance(sample["image"], Image.Image)
        assert [one.kind for one in sample["media"]] == ["image"]
    assert result.samples("text_len/low", 3).index.equals(few.index)
    assert len(result.samples("text_len/low", 99)) == 4
    assert len(result.samples(n=99)) == ROWS
    with pytest.raises(BadInput, match="no pool 'nosuch'"):
        result.samples("nosuch")


def test_a_run_that_has_only_begun_says_what_it_lacks(left: Left) -> None:
    left.dataset()
    result = dj.load(left.storage.url, "demo")
    assert "has found nothing yet" in repr(result)
    for name in ("ranking", "trials", "curves", "statistics", "pools"):
        with pytest.raises(SandboxError, match="the run 'demo' has no"):
            getattr(result, name)
    for call in (result.figure, result.recipe, result.report):
        with pytest.raises(SandboxError, match="the run 'demo' has no"):
            call()
    assert len(result.samples(n=2)) == 2  # without statistics
    with pytest.raises(BadInput, match="no run 'other'"):
        dj.load(left.storage.url, "other")


def test_a_plan_is_data_that_reads_as_on_the_terminal(tmp_path: Path) -> None:
    pytest.importorskip("open_clip", reason="counting the operations of another model")
    made = dj.plan(minimal_document(), storage=str(tmp_path), changes={"trials.seeds": 5})
    assert made["trials"] == 5 * made["pools"]
    assert f"trials  {made['trials']}: 0 found in the cache" in repr(made)
    assert list(tmp_path.iterdir()) == []


def test_what_is_wrong_says_where_in_the_file(tmp_path: Path) -> None:
    path = str(write_config(tmp_path, pools={"buckets": 1}))
    with pytest.raises(BadInput, match=r"config\.yaml:\d+:\d+: pools\.buckets: Input should be"):
        dj.plan(path)
    # What was changed does not stand in the file.
    with pytest.raises(BadInput, match=r"(?m)^  pools\.buckets: Input should be"):
        dj.plan(path, changes={"pools.buckets": 0})
    with pytest.raises(BadInput, match="the configuration: 1 error"):
        dj.plan(minimal_document(pools={"buckets": 1}))


@pytest.mark.integration
def test_a_run_gives_its_result(ray_cluster: None, tmp_path: Path) -> None:
    from small_runs import SMALL, document

    small = document(tmp_path, None, SMALL)
    result = dj.run(small, quiet=True)
    assert len(result.ranking) == len(result.pools[result.pools["kind"] != PoolKind.CONTROL])
    assert result.trials["score"].notna().any()
    assert result.figure().width > 100
    assert dj.plan(small)["trials_to_run"] == 0


def test_what_the_page_names_is_there() -> None:
    page = (Path(__file__).resolve().parents[1] / "docs" / "notebook.md").read_text()
    used = set(re.findall(r"result\.(\w+)", page))
    assert {"ranking", "trials", "samples", "report"} <= used
    assert not {name for name in used if not hasattr(dj.Result, name)}
    assert not {name for name in re.findall(r"dj\.(\w+)", page) if name not in dj.__all__}
    for block in re.findall(r"```py\n(.*?)```", page, re.S):
        compile(block, "notebook.md", "exec")

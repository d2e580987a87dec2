"""Every benchmark runs to its end at toy size; what streaming claims holds at the size it needs."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from small_runs import ROOT, environment

BENCHMARKS = ROOT / "benchmarks"
TOYS = {
    "early_stopping": ("--studies=1",),
    "many_trials": ("--trials=60", "--slots=8"),
    "orchestration": (
        "--operators=1",
        "--controls=5",
        "--seeds=2",
        "--budget=64",
        "--rows=400",
        "--stopping=none",
        "--workers=1",
    ),
    "threshold_search": ("--studies=1", "--proposals=2", "--noise=0.1"),
    "trial_loop": ("--rows=64", "--budget=64", "--batch=32", "--repeats=1"),
    "unequal_noise": ("--studies=1", "--seeds=2"),
}
"""In this process, on the session's cluster."""
LONG = ("orchestration",)
ALONE = {
    "llava_loop": ("--size=tiny", "--batch=4", "--steps=2", "--repeats=1"),
    "operators": (
        "--scale=0.01",
        *("--only", "text_length_filter", "image_shape_filter", "image_nsfw_filter"),
    ),
    "stats": ("--rows=200",),
    "streaming": ("--rows", "10", "20"),
    "t2v_loop": ("--size=tiny", "--batch=4", "--steps=2", "--repeats=1"),
}
"""These measure processes of their own."""


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr("ray.shutdown", lambda: None)  # others still need the cluster
    return monkeypatch


def _run(name: str, words: tuple[str, ...], here: pytest.MonkeyPatch) -> None:
    path = str(BENCHMARKS / f"{name}.py")
    here.setattr(sys, "argv", [path, *words])
    runpy.run_path(path, run_name="__main__")


def _alone(name: str, *words: str) -> str:
    command = [sys.executable, str(BENCHMARKS / f"{name}.py"), *words]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_benchmark_is_run_here() -> None:
    assert {path.stem for path in BENCHMARKS.glob("*.py")} == {*TOYS, *ALONE, "pools"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in LONG else ()) for n in TOYS]
)
def test_a_benchmark_prints_its_table(
    name: str,
    here: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request: pytest.FixtureRequest,
) -> None:
    if "import ray" in (BENCHMARKS / f"{name}.py").read_text():
        request.getfixturevalue("ray_cluster")
    _run(name, TOYS[name], here)
    assert len(capsys.readouterr().out.splitlines()) >= 3


def test_our_side_of_the_pools_needs_nothing_of_others(
    here: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as ended:
        _run("pools", (), here)
    assert ended.value.code == 2
    assert "data_pool_manipulators.py" in capsys.readouterr().err
    given = ("--rows=300", "--statistics=2", f"--work={tmp_path}", f"--sandbox-source={__file__}")
    for role in ("generate", "ours_parquet", "ours_jsonl"):
        _run("pools", (*given, f"--role={role}"), here)
        found = json.loads("{" + capsys.readouterr().out.rpartition("{")[2])
        numbers = [value for value in found.values() if isinstance(value, int | float)]
        assert min(numbers) >= 0
        assert max(numbers) > 0


@pytest.mark.slow
def test_our_side_of_the_pools_runs_alone(tmp_path: Path) -> None:
    words = ("--alone", "--rows=3000", "--statistics=2", f"--work={tmp_path}")
    assert "3,000 rows x 2 statistics -> 13 pools" in _alone("pools", *words)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALONE)
def test_a_benchmark_of_processes_prints_its_table(name: str) -> None:
    assert len(_alone(name, *ALONE[name]).splitlines()) >= 3


@pytest.mark.slow
def test_each_operator_of_the_table_has_its_line() -> None:
    """Its speed beside that of ``op.run``, which gives the same values; or what it needs."""
    table = runpy.run_path(str(ROOT / "tests" / "stats" / "table4_models.py"))["TABLE_4"]
    lines = _alone("operators", "--scale=0.01").splitlines()
    (end,) = [at for at, line in enumerate(lines) if " give the values of op.run; " in line]
    timed = {line.split()[0]: line.split() for line in lines[1:end]}
    wanting = {line.split()[0] for line in lines[end + 1 :]}
    assert {*timed} | wanting == {*table}
    assert {*timed} & wanting == set()
    assert lines[end] == (
        f"{len(timed)} of {len(timed)} give the values of op.run; {len(wanting)} are not run"
    )
    for name, (_, _, ours, theirs, ratio, gap) in timed.items():
        assert min(map(float, (ours, theirs, ratio))) > 0, name
        assert float(gap) <= 1e-6, name


@pytest.mark.slow
def test_early_stopping_is_replayed_on_studies_that_were_trained() -> None:
    words = ("--shapes=1", "--samples=1500", "--budget=2000")
    found = _alone("early_stopping", *words)
    assert sum(line.startswith("  none ") for line in found.splitlines()) == 2


# A data set several times the object store goes by: the driver holds next to nothing of it.

STORE_MB = 80
MIB = 1 << 20


@pytest.fixture(scope="module")
def sizes() -> tuple[dict[str, Any], dict[str, Any]]:
    """The same job on a small and on a large data set, in one driver with a cluster of its own."""
    words = ("--rows", "400", "2800", "--store-mb", f"{STORE_MB}", "--json")
    small, large = json.loads(_alone("streaming", *words).splitlines()[-1])
    return small, large


@pytest.mark.slow
def test_the_driver_does_not_grow_with_the_data(sizes) -> None:
    small, large = sizes
    more = large["bytes"] - small["bytes"]
    assert (large["rows"], large["bytes"] > 3.5 * STORE_MB * MIB) == (2800, True)
    # What the first job has imported and left free helps the second, but by less than the rest.
    assert small["driver"] < more / 2
    assert large["driver"] < more / 4


@pytest.mark.slow
def test_samples_stay_out_of_the_object_store(sizes) -> None:
    for size in sizes:
        assert size["spilled"] == 0
        assert 0 < size["stored"] < min(size["bytes"] / 20, STORE_MB * MIB / 4)

"""What the README and the docs show must work: commands, configurations, classes."""

from __future__ import annotations

import importlib
import re
import shlex
import socket
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pytest
import yaml
from factories import minimal_config
from ray import cloudpickle
from rich.console import Console
from typer.testing import CliRunner

from djsandbox_ray.cli import app
from djsandbox_ray.config import load_config
from djsandbox_ray.errors import BadInput
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.workflows.score import BENCHMARKS

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def _blocks(language: str) -> list[Any]:
    found = []
    for page in PAGES:
        for number, text in enumerate(
            re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.S)
        ):
            found.append(pytest.param(text, id=f"{page.stem}-{number}"))
    return found


def _commands(program: str) -> list[str]:
    lines = [line for block in _blocks("bash") for line in block.values[0].splitlines()]
    return [line.split("#")[0].strip() for line in lines if line.startswith(program)]


def _shown(key: str) -> Any:
    """Return what ``docs/extending.md`` shows under a key of a configuration."""
    text = (ROOT / "docs" / "extending.md").read_text()
    blocks = [yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.S)]
    return next(block[key] for block in blocks if key in block)


@pytest.fixture
def my_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All classes that the docs show, as the module that the docs call them from."""
    path = tmp_path / "my_module.py"
    path.write_text("\n".join(block.values[0] for block in _blocks("python")))
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("my_module", None)
    return path


@pytest.mark.parametrize("command", _commands("make"))
def test_make_targets_exist(command: str) -> None:
    made = subprocess.run(
        [*shlex.split(command), "--dry-run"], cwd=ROOT, capture_output=True, check=False
    )
    assert made.returncode == 0, made.stderr


@pytest.mark.parametrize("command", _commands("djsandbox"))
def test_djsandbox_commands_are_understood(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    arguments = shlex.split(command)[1:]
    if arguments[0] in ("submit", "status", "logs", "stop"):
        _at_no_cluster(arguments, monkeypatch)
        return
    if arguments[0] == "score":  # of files that are not here
        with pytest.raises(BadInput, match=r"does not exist|no file"):
            CliRunner().invoke(app, arguments, catch_exceptions=False)
        return
    if arguments[0] == "init" and "--demo" not in arguments:
        with pytest.raises(BadInput, match="'my-data'"):
            CliRunner().invoke(app, arguments, catch_exceptions=False)
        return
    arguments = [word.replace("my-data.yaml", "configs/demo.yaml") for word in arguments]
    # Running the demo is another test; here its arguments are checked by planning it.
    arguments = ["plan" if word in ("run", "rescore") else word for word in arguments]
    of_a_run = ("sync", "recipe", "materialise", "report", "export-model")
    if arguments[0] in ("plan", *of_a_run) and "--storage" not in arguments:
        arguments += ["--storage", str(tmp_path)]
    if "--power" in arguments or arguments[0] in of_a_run:  # these need a run: there is none
        with pytest.raises(BadInput, match="no run"):
            CliRunner().invoke(app, arguments, catch_exceptions=False)
        return
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output


def _at_no_cluster(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is understood but that there is no cluster, whatever runs on this machine."""
    with socket.socket() as silent:  # bound, but nobody listens
        silent.bind(("127.0.0.1", 0))
        nowhere = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", nowhere)
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)  # the nodes have it
        words = [nowhere if word.endswith(":8265") else word for word in arguments]
        words = [word.replace("my.yaml", "configs/demo.yaml") for word in words]
        if words[0] == "submit" and "--storage" not in words:
            words += ["--storage", "s3://bucket/team"]
        with pytest.raises(BadInput, match="no Ray dashboard answers"):
            CliRunner().invoke(app, words, catch_exceptions=False)


def _adds(value: Any) -> bool:
    """Say whether a part of a section is shown, and not a component of its own."""
    return isinstance(value, dict) and "type" not in value


def _whole(part: dict[str, Any]) -> str:
    """Return the shipped configuration that a part is about, by its model or its evaluators."""
    metrics = part.get("evaluation", {}).get("metrics", [])
    kinds = {part.get("trials", {}).get("model", {}).get("type"), *(one["type"] for one in metrics)}
    if kinds & {"t2v", "denoising", "prompt_match"}:
        return "t2v"
    return "llava" if kinds & {"llava", "caption_nll", *BENCHMARKS} else "demo"


@pytest.mark.parametrize("text", _blocks("yaml"))
def test_configurations_are_valid(text: str, my_module: Path, tmp_path: Path) -> None:
    document = yaml.safe_load(text)
    path = tmp_path / "shown.yaml"
    if "jobs" in document:
        from djsandbox_ray.workflows.language.workflow import load_workflow

        path.write_text(text)
        assert load_workflow(str(path)).jobs
        return
    if "process" in document:  # a recipe
        from djsandbox_ray.recipes.recipe_file import read_recipe

        path.write_text(text)
        assert read_recipe(path)
        return
    if document.get("dataset", {}).get("content", "pairs") != "pairs":  # no family trains on it
        from djsandbox_ray.dataset.source import SOURCES

        source = SOURCES.get(document["dataset"]["type"])
        assert source.Config.model_validate(document["dataset"]).content in source.CONTENTS
        return
    if "name" not in document:  # a part of one: it takes the place of what is shipped
        demo = yaml.safe_load((ROOT / "configs" / f"{_whole(document)}.yaml").read_text())
        document = {
            **demo,
            **{
                key: {**demo.get(key, {}), **value} if _adds(value) else value
                for key, value in document.items()
            },
        }
        document["evaluation"]["score"] = None
    path.write_text(yaml.safe_dump(document))
    try:
        assert load_config(str(path)).name
    except BadInput as error:
        # Nothing is trained on conversations and documents yet; all else must be right.
        _, *problems = str(error).splitlines()
        if not problems or not all("but dataset.content is" in line for line in problems):
            raise


@pytest.mark.parametrize("text", _blocks("python"))
def test_classes_are_short(text: str) -> None:
    assert len([line for line in text.splitlines() if line.strip()]) <= 10


def test_the_evaluator_measures(my_module: Path) -> None:
    from djsandbox_ray.evaluation.data import EvaluationSet
    from djsandbox_ray.evaluation.evaluator import EVALUATORS
    from djsandbox_ray.evaluation.suite import Suite

    class Same:
        def images(self, split: EvaluationSet) -> np.ndarray[Any, Any]:
            return np.eye(2, dtype=np.float32)

        def texts(self, texts: Any) -> np.ndarray[Any, Any]:
            return np.eye(2, dtype=np.float32)

    config = EVALUATORS.get("my_module:Alignment").Config(type="my_module:Alignment")
    suite = Suite([config], [EvaluationSet("id", "", 2, ("a", "b"), ({}, {}))])
    assert suite.run(Same()) == {"alignment/mean_cosine": 1.0}


def test_the_model_family_reports_its_rungs(my_module: Path, tmp_path: Path) -> None:
    from djsandbox_ray.settings.sections import Component
    from djsandbox_ray.trials.checkpoint import Checkpoint
    from djsandbox_ray.trials.family import FAMILIES, TrialTask
    from djsandbox_ray.trials.strategies.strategy import Group

    rows = np.array([1, 2, 3])
    task = TrialTask(
        seed=0,
        rows=rows,
        captions=rows,
        rungs=(5, 10),
        cpus=1,
        gpus=0,
        checkpoint=Checkpoint(str(tmp_path), "trial"),
        group=Group(),
        evaluate=lambda encoder: {},
    )
    family = FAMILIES.get("my_module:Counter")(Component(type="my_module:Counter"))
    reports = list(family.train(task, None))
    assert [(report.samples, report.metrics) for report in reports] == [
        (5, {"rows": 3.0}),
        (10, {"rows": 3.0}),
    ]


def test_the_pool_builder_makes_pools(my_module: Path) -> None:
    from djsandbox_ray.pools.build import construct
    from djsandbox_ray.pools.config import PoolConfig

    rows = np.arange(7000, 9000)
    columns = {"text_len": np.random.default_rng(0).integers(20, 90, len(rows)).astype(float)}
    extra = _shown("pools")["extra"]
    built = construct(rows, columns, PoolConfig.model_validate({"extra": extra}))
    held = {
        pool.id: rows[built.assignments[pool.column] == pool.code]
        for pool in built.pools
        if pool.kind == "bucket" and pool.statistic is None
    }
    assert list(held) == ["recent/all", "recent/long", "readable/inside"]
    assert {len(some) for some in held.values()} == {built.size}
    assert min(held["recent/all"]) >= 8000
    assert min(columns["text_len"][held["recent/long"] - 7000]) > 40
    assert max(columns["text_len"][held["readable/inside"] - 7000]) <= 60


def test_the_refiner_proposes_ranges(my_module: Path) -> None:
    from djsandbox_ray.pools.build import construct
    from djsandbox_ray.pools.config import PoolConfig
    from djsandbox_ray.recipes.refiner import REFINERS, Evidence
    from djsandbox_ray.records import Pools, Range

    columns = {"text_len": np.arange(101.0), "num_words": np.arange(101.0) / 2}
    columns["num_words"][0] = np.nan
    built = construct(np.arange(101), columns, PoolConfig())
    pools = Pools("id", "path", built.pools, built.size, built.draw_size, built.eligible, 0)
    kind = REFINERS.get("my_module:Median")
    refiner = kind(kind.Config(type="my_module:Median"))
    found = refiner.propose(Evidence(columns, pools, chosen=("text_len/high", "num_words/high")))
    assert [Range(r.statistic, r.low, r.high) for r in found] == [
        Range("text_len", 50.0, None),
        Range("num_words", 25.25, None),
    ]


def test_the_hook_runs_and_the_format_is_written(
    ray_cluster: None, my_module: Path, storage: Storage, tmp_path: Path
) -> None:
    from djsandbox_ray.dataset.writers.materialise import materialise
    from djsandbox_ray.hooks.hook import Context
    from djsandbox_ray.reporting.progress import Progress
    from djsandbox_ray.settings.sections import Component
    from djsandbox_ray.tracking.tracker import NullTracker
    from djsandbox_ray.workflows.language.workflow import load_workflow
    from djsandbox_ray.workflows.runner import run_workflow

    config, said = minimal_config(dataset__samples=30), StringIO()
    tracker = NullTracker(Component(type="none"), storage)
    context = Context(config, storage, "runs/docs", tracker, Progress(Console(file=said)))
    workflow = load_workflow({"jobs": _shown("jobs")})
    outputs = run_workflow(workflow, context, lambda output: None)
    assert "30 captions" in said.getvalue()

    dataset, rows, folder = outputs["dataset"], np.array([2, 29, 7]), tmp_path / "written"
    done = materialise(
        storage, dataset, rows, str(folder), form="my_module:Captions", rows_per_shard=2
    )
    assert (done.rows, done.shards) == (3, 2)
    lines = [(folder / f"00000{shard}.txt").read_text().splitlines() for shard in (0, 1)]
    texts = lance.dataset(storage.uri(dataset.table)).take([2, 7, 29])["text"].to_pylist()
    assert lines == [[f"2 {texts[0]}", f"7 {texts[1]}"], [f"29 {texts[2]}"]]


def test_the_family_trains_and_the_hopeless_are_stopped(
    ray_cluster: None, my_module: Path, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    from djsandbox_ray.records import TrialState
    from djsandbox_ray.settings.sections import Component
    from djsandbox_ray.trials.family import FAMILIES

    monkeypatch.syspath_prepend(str(ROOT / "tests" / "trials"))
    arena = importlib.import_module("trial_world").Arena(storage, buckets=3, controls=1)
    module = importlib.import_module("my_module")
    # Workers that run already do not find it in their path.
    cloudpickle.register_pickle_by_value(module)  # type: ignore[no-untyped-call]
    counter = FAMILIES.get("my_module:Counter")

    class Learns(counter):  # type: ignore[misc, valid-type]
        """Learns nothing from the rows of the first pools and of the control."""

        def train(self, task: Any, shared: Any) -> Any:
            for report in super().train(task, shared):
                lost = task.rows.min() < 600
                yield replace(report, metrics={"m": 0.001 if lost else 0.5})

    try:
        _, plain = arena.run(counter(Component(type="my_module:Counter")), None)
        stopping = _shown("trials")["early_stopping"]
        _, last = arena.run(Learns(Component(type="learns")), None, stopping)
    finally:
        cloudpickle.unregister_pickle_by_value(module)  # type: ignore[no-untyped-call]
    assert {record.state for record in plain.values()} == {TrialState.COMPLETED}
    assert {record.reports[-1].metrics["rows"] for record in plain.values()} == {200.0}
    states = {record.spec.pool: record.state for record in last.values()}
    done, stopped = TrialState.COMPLETED, TrialState.STOPPED
    assert states == {"control/0": done, "s/0": stopped, "s/1": stopped, "s/2": done}


def test_the_source_is_read(
    my_module: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from PIL import Image

    from djsandbox_ray.dataset.prepare import prepared
    from djsandbox_ray.dataset.source import SOURCES, Sample

    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (4, 4)).save("cat.png")
    kind = SOURCES.get("my_module:OneCat")
    source = kind(kind.Config(type="my_module:OneCat"))
    (shard,) = prepared(source)
    (sample,) = shard.read()
    assert isinstance(sample, Sample)
    assert sample.text == "a cat"

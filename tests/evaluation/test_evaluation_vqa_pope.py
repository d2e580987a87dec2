"""POPE: three splits about the same images, its rules, and the answers of its tool and of LLaVA."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from asked_world import Says, evaluator, jpeg, set_of, write_lines

from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.asking import Asked
from djsandbox_ray.evaluation.vqa.pope import SPLITS

THINGS = {"random": "boat", "popular": "chair", "adversarial": "fork"}


def lines_of(split: str) -> list[dict[str, Any]]:
    """Two images: one thing that is there, and one of the split's that is not."""
    entries = []
    for image in ("one.jpg", "two.jpg"):
        for thing, label in (("cat", "yes"), (THINGS[split], "no")):
            text = f"Is there a {thing} in the image?"
            entries.append({"image": image, "text": text, "label": label})
    return [{"question_id": number, **entry} for number, entry in enumerate(entries, 1)]


@pytest.fixture
def pope(tmp_path: Path) -> Path:
    folder = tmp_path / "pope"
    for split in SPLITS:
        write_lines(folder / f"coco_pope_{split}.json", lines_of(split))
    for number, name in enumerate(("one.jpg", "two.jpg")):
        (folder / name).write_bytes(jpeg(number))
    return folder


def test_a_question_of_several_splits_is_asked_once(pope: Path) -> None:
    found = evaluator("pope", path=str(pope))
    data = set_of(found.source())
    assert data.rows == 2
    model = Says(lambda asked: "Yes" if "cat" in asked.text else "No")
    scores = found.evaluate(model, data)
    counts = Counter(one.text for one in model.asked)
    word = "Answer the question using a single word or phrase."
    assert counts[f"Is there a cat in the image?\n{word}"] == 2  # images
    assert len(model.asked) == 2 * 4
    assert scores["pope/f1"] == scores["pope/random_precision"] == 1
    assert scores["pope/yes"] == 0.5


def test_yes_to_all_has_two_thirds(pope: Path) -> None:
    found = evaluator("pope", path=str(pope))
    scores = found.evaluate(Says(lambda asked: ""), set_of(found.source()))
    assert scores["pope/f1"] == pytest.approx(2 / 3)
    assert scores["pope/yes"] == 1
    assert scores["pope/unparsed"] == 1
    strict = evaluator("pope", path=str(pope), parse="strict")
    scores = strict.evaluate(Says(lambda asked: "Yes it is"), set_of(strict.source()))
    assert (scores["pope/f1"], scores["pope/accuracy"], scores["pope/unparsed"]) == (0, 0, 1)
    assert strict.asking() == found.asking()
    assert strict.identity() != found.identity()


def test_splits_that_are_not_there_are_named(pope: Path) -> None:
    (pope / "coco_pope_popular.json").unlink()
    found = evaluator("pope", path=str(pope))
    with pytest.raises(BadInput, match="no question of the split 'popular' is to be answered by y"):
        found.check(set_of(found.source()))
    some = evaluator("pope", path=str(pope), splits=["adversarial", "random"])
    data = set_of(some.source())
    some.check(data)
    scores = some.evaluate(Says(lambda asked: "no"), data)
    assert "pope/popular_f1" not in scores
    assert scores["pope/f1"] == 0
    names = [metric.name for metric in some.metrics() if metric.scored]
    assert names == ["pope/f1"]


def test_limit_takes_images(pope: Path) -> None:
    found = evaluator("pope", path=str(pope), limit=1)
    data = set_of(found.source())
    assert "4 of 8 questions are asked (limit: 1 images)" in found.remarks(data)[0]
    assert len({one.row for one in found.ask(data, {})}) == 1


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"image": "one.jpg", "text": "Is it?"}, r"random.json:5: no text under 'label'"),
        ({"image": "one.jpg", "text": "Is it?", "label": "maybe"}, "the label is yes or no"),
        (
            {"image": "one.jpg", "text": "Is there a cat in the image?", "label": "no"},
            "random twice",
        ),
        ({"image": "three.jpg", "text": "Is it?", "label": "no"}, "1 of 3 images are not in"),
    ],
)
def test_damaged_files_are_named(pope: Path, entry: dict[str, Any], said: str) -> None:
    write_lines(pope / "coco_pope_random.json", [*lines_of("random"), entry])
    with pytest.raises(BadInput, match=said):
        set_of(evaluator("pope", path=str(pope)).source())


def test_a_file_of_no_split_is_named(pope: Path) -> None:
    (pope / "more.json").write_text("{}")
    with pytest.raises(BadInput, match=r"more.json: its name is to hold one of random, popular"):
        set_of(evaluator("pope", path=str(pope)).source())


def official(folder: Path, reply: Any) -> str:
    for split in SPLITS:
        made = [{"question": e["text"], "answer": reply(split, e)} for e in lines_of(split)]
        write_lines(folder / f"answers_{split}.jsonl", made)
    return str(folder)


def right(split: str, entry: dict[str, Any]) -> str:
    return str(entry["label"]).title()


def test_answers_of_its_own_tool(pope: Path, tmp_path: Path) -> None:
    found = evaluator("pope", path=str(pope))
    data, said = found.made_elsewhere(official(tmp_path / "made", right))
    assert len(said) == 12  # a program was asked every question of every split
    assert found.score_said(data, said)["pope/f1"] == 1

    def once(split: str, entry: dict[str, Any]) -> str:
        return "No" if split == "random" else right(split, entry)

    data, said = found.made_elsewhere(official(tmp_path / "other", once))
    scores = found.score_said(data, said)
    assert [scores[f"pope/{split}_f1"] for split in SPLITS] == [0, 1, 1]


def test_answers_in_another_order_are_refused(pope: Path, tmp_path: Path) -> None:
    folder = Path(official(tmp_path / "made", right))
    path = folder / "answers_popular.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[1], lines[0], *lines[2:]]))
    found = evaluator("pope", path=str(pope))
    with pytest.raises(BadInput, match=r"answers_popular.jsonl:1: it answers 'Is there a chair"):
        found.made_elsewhere(str(folder))
    path.write_text("\n".join(lines[:3]))
    with pytest.raises(BadInput, match=r"1 of 12 questions have no answer: 'popular / 3'$"):
        found.made_elsewhere(str(folder))
    path.write_text("\n".join([*lines, lines[0]]))
    with pytest.raises(
        BadInput, match=r"^1 of 13 answers belong to no question: .*popular.jsonl:5"
    ):
        found.made_elsewhere(str(folder))


def test_answers_of_llava_in_one_file(pope: Path, tmp_path: Path) -> None:
    word = "\nAnswer the question using a single word or phrase."
    asked, made = [], []
    pairs = [(split, entry) for split in SPLITS for entry in lines_of(split)]
    for number, (split, entry) in enumerate(pairs):
        prompt = entry["text"] + word
        asked.append(
            {"question_id": number, "image": entry["image"], "text": prompt, "category": split}
        )
        made.append({"question_id": number, "prompt": prompt, "text": right(split, entry)})
    questions = write_lines(tmp_path / "llava_pope_test.jsonl", asked)
    answers = write_lines(tmp_path / "llava-v1.5-7b.jsonl", made[::-1])
    found = evaluator("pope", path=str(pope))
    data, said = found.made_elsewhere(answers, questions)
    assert found.score_said(data, said)["pope/f1"] == 1
    with pytest.raises(BadInput, match="--questions names its file"):
        found.made_elsewhere(answers)
    named = [
        {**one, "category": entry["category"], "image": entry["image"]}
        for one, entry in zip(made, asked, strict=True)
    ]
    data, said = found.made_elsewhere(write_lines(tmp_path / "named.jsonl", named))
    assert found.score_said(data, said)["pope/f1"] == 1


def fifth_wrong(entry: dict[str, Any]) -> str:
    digest = hashlib.sha256(f"{entry['image']}{entry['text']}".encode()).hexdigest()
    if int(digest, 16) % 5:
        return "Yes." if entry["label"] == "yes" else "No."
    return "No, there is not." if entry["label"] == "yes" else "Yes"


GOLDEN = {"random": 0.8019868, "popular": 0.7990762, "adversarial": 0.8022524}
YES = {"random": 0.5067, "popular": 0.5103, "adversarial": 0.5063}


@pytest.mark.shared_data
def test_the_numbers_of_the_pack(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "benchmarks" / "pope"
    found = evaluator("pope", path=str(folder))
    for split in SPLITS:
        lines = (folder / f"coco_pope_{split}.json").read_text().splitlines()
        made = [json.loads(line) for line in lines]
        assert len(made) == 3000
        answers = [{"question": e["text"], "answer": fifth_wrong(e)} for e in made]
        write_lines(tmp_path / f"{split}.jsonl", answers)
    data, said = found.made_elsewhere(str(tmp_path))
    assert (data.rows, len(said)) == (500, 9000)
    scores = found.score_said(data, said)
    for split in SPLITS:
        assert scores[f"pope/{split}_f1"] == pytest.approx(GOLDEN[split], abs=1e-7)
        assert scores[f"pope/{split}_yes"] == pytest.approx(YES[split], abs=5e-5)
    assert scores["pope/f1"] == pytest.approx(sum(GOLDEN.values()) / 3, abs=1e-7)


@pytest.mark.shared_data
def test_asking_gives_the_same_numbers_for_fewer_questions(shared_data: Path) -> None:
    found = evaluator("pope", path=str(shared_data / "benchmarks" / "pope"))
    data = found.questions()
    by_key = {one.key: one.question for one in found.placed(data)}

    def reply(asked: Asked) -> str:
        question = by_key[asked.key]
        label = next(iter(question.labels.values()))
        return fifth_wrong({"image": question.image, "text": question.text, "label": label})

    model = Says(reply)
    scores = found.evaluate(model, data)
    assert len(model.asked) < 7000
    for split in SPLITS:
        assert scores[f"pope/{split}_f1"] == pytest.approx(GOLDEN[split], abs=1e-7)
    always = found.evaluate(Says(lambda asked: "Yes"), data)
    assert always["pope/f1"] == pytest.approx(2 / 3)
    assert always["pope/accuracy"] == 0.5

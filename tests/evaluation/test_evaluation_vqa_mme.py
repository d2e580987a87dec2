"""MME: its files, its pairs, its scores, and what its official tool writes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from asked_world import Says, evaluator, jpeg, samples_of, set_of
from pydantic import ValidationError

from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.asking import Asked
from djsandbox_ray.evaluation.vqa.mme import COGNITION, PERCEPTION, SUBTASKS

Reply = Callable[[str, str, str, str], str]


@pytest.fixture
def mme(tmp_path: Path) -> Path:
    """Two subtasks with two images each, as the official tool's folder has them."""
    for subtask in ("existence", "code_reasoning"):
        lines = []
        for number in range(2):
            name = f"000{number}.jpg"
            place = tmp_path / "mme" / subtask / ("images" if subtask == "existence" else "")
            place.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(jpeg(number + len(subtask)))
            lines += [
                f"{name}\tIs there a cat? Please answer yes or no.\tYes\n",
                f"{name}\tIs there a dog?  Please answer yes or no.\tNo\n",
            ]
        (tmp_path / "mme" / f"{subtask}.txt").write_text("".join(lines))
    return tmp_path / "mme"


def two(mme: Path, **settings: object):  # type: ignore[no-untyped-def]
    return evaluator("mme", path=str(mme), subtasks=("existence", "code_reasoning"), **settings)


def test_an_image_is_a_row_with_both_questions(mme: Path) -> None:
    data = set_of(two(mme).source())
    assert data.rows == 4
    first = data.metadata[2]["questions"]["mme"]
    assert [one["answer"] for one in first] == ["yes", "no"]
    assert {one["subtask"] for one in first} == {"existence"}
    assert data.metadata[0]["whole"] == {"images": 4, "questions": 8}
    # The same name in two subtasks is not the same image.
    assert len({sample.image for sample in samples_of(two(mme).source())}) == 4


def test_the_words_are_llavas(mme: Path) -> None:
    model = Says(lambda asked: "yes")
    two(mme).evaluate(model, set_of(two(mme).source()))
    word = "Answer the question using a single word or phrase."
    assert {one.text for one in model.asked} == {
        f"Is there a cat?\n{word}",
        f"Is there a dog?\n{word}",
    }
    assert [one.row for one in model.asked] == [0, 0, 1, 1, 2, 2, 3, 3]


def test_pairs_count_beside_questions(mme: Path) -> None:
    found = two(mme)
    data = set_of(found.source())
    # Of existence, both questions about one image and one about the other are right.
    said = {"2/0": "Yes.", "2/1": "no", "3/0": "Yes", "3/1": "yes, it is", "0/0": "maybe"}
    scores = found.evaluate(Says(lambda asked: said.get(asked.key, "")), data)
    assert scores["mme/existence"] == pytest.approx(100 * (3 / 4 + 1 / 2))
    assert scores["mme/code_reasoning"] == 0
    assert scores["mme/perception"] == scores["mme/existence"]
    assert scores["mme/cognition"] == 0
    assert scores["mme/unparsed"] == 4 / 8  # wrong, and not skipped


def test_the_release_has_a_file_for_every_image(tmp_path: Path) -> None:
    for subtask, answers, images in (
        ("artwork", "questions_answers_YN", "images"),
        ("OCR", "", ""),
    ):
        for number in range(2):
            for below in (answers, images):
                (tmp_path / subtask / below).mkdir(parents=True, exist_ok=True)
            ending = "png" if number else "jpg"
            image = tmp_path / subtask / images / f"{number}.{ending}"
            image.write_bytes(jpeg(number + len(subtask)))
            text = "Is it old? Please answer yes or no.\tYes\nIs it new?\tNo"
            (tmp_path / subtask / answers / f"{number}.txt").write_text(text)
    found = evaluator("mme", path=str(tmp_path), subtasks=("artwork", "OCR"))
    data = set_of(found.source())
    assert data.rows == 4
    found.check(data)
    scores = found.evaluate(Says(lambda asked: "yes" if "old" in asked.text else "no"), data)
    assert scores["mme/perception"] == 400
    elsewhere = evaluator(
        "mme",
        path=str(tmp_path),
        images=str(tmp_path),
        subtasks=("artwork", "OCR"),
    )
    assert set_of(elsewhere.source()).metadata == data.metadata


def test_metrics_say_what_they_can_be(mme: Path) -> None:
    known = {metric.name: metric for metric in evaluator("mme", path="x").metrics()}
    assert (known["mme/perception"].high, known["mme/perception"].chance) == (2000, 750)
    assert (known["mme/cognition"].high, known["mme/cognition"].chance) == (800, 300)
    assert [name for name, metric in known.items() if metric.scored] == [
        "mme/perception",
        "mme/cognition",
    ]
    assert len(known) == 2 + 14 + 2
    some = {
        metric.name: metric for metric in evaluator("mme", path="x", subtasks=["OCR"]).metrics()
    }
    assert some["mme/perception"].high == 200
    assert "mme/cognition" not in some


def test_limit_takes_images_of_every_subtask(mme: Path) -> None:
    found = two(mme, limit=1)
    data = set_of(found.source())
    asked = found.ask(data, {})
    assert len(asked) == 4
    assert len({one.row for one in asked}) == 2
    assert "4 of 8 questions are asked (limit: 1 images of each" in found.remarks(data)[0]
    assert found.ask(data, {}) == asked
    assert found.asking() != two(mme).asking()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("0001.jpg\tIs it?", r"existence.txt:5: image, question and answer are needed"),
        ("0001.jpg\tIs it?\tperhaps", r"existence.txt:5: the answer that is right is Yes or No"),
        ("0001.jpg\tIs it?\tyes", "existence: an image has two questions, 0001.jpg has 3"),
        ("9.jpg\tIs it?\tyes\n9.jpg\tIs it not?\tno", "1 of 5 images are not in"),
    ],
)
def test_damaged_files_are_named(mme: Path, line: str, said: str) -> None:
    with (mme / "existence.txt").open("a") as handle:
        handle.write(f"{line}\n")
    found = two(mme)
    with pytest.raises(BadInput, match=said):
        found.check(set_of(found.source()))


def test_a_subtask_that_is_not_there_is_no_zero(mme: Path) -> None:
    found = evaluator("mme", path=str(mme))
    with pytest.raises(BadInput, match=r"no question of count, .*there are: code_reasoning, exis"):
        found.check(set_of(found.source()))
    (mme / "readme.txt").write_text("hello")
    with pytest.raises(BadInput, match=r"readme.txt: unknown subtask of MME 'readme'"):
        set_of(found.source())
    with pytest.raises(ValidationError, match="did you mean 'existence'"):
        evaluator("mme", path="x", subtasks=["existance"])


def test_an_unreadable_image_is_found_before_training(mme: Path) -> None:
    found = two(mme)
    data = set_of(found.source())
    fewer = type(data)(data.id, "", 3, data.texts[:3], data.metadata[:3])
    with pytest.raises(BadInput, match="1 of 4 images cannot be used"):
        found.check(fewer)


def write_answers(questions: Path, folder: Path, reply: Reply) -> str:
    """Write a folder of the official tool: image, question, truth and answer between tabs."""
    folder.mkdir(exist_ok=True)
    for path in questions.glob("*.txt"):
        lines = []
        for line in path.read_text(encoding="utf-8").splitlines():
            image, question, truth = line.split("\t")
            said = reply(path.stem, image, question, truth)
            lines.append(f"{image}\t{question}\t{truth}\t{said}\n")
        (folder / path.name).write_text("".join(lines), encoding="utf-8")
    return str(folder)


def test_answers_of_the_official_tool_are_scored(mme: Path, tmp_path: Path) -> None:
    folder = write_answers(mme, tmp_path / "made", lambda *asked: asked[3])
    alone = evaluator_of_answers(["existence", "code_reasoning"])
    data, said = alone.made_elsewhere(folder)
    assert alone.score_said(data, said)["mme/existence"] == 200
    with_files = two(mme)
    data, said = with_files.made_elsewhere(folder)
    assert with_files.score_said(data, said)["mme/cognition"] == 200


def evaluator_of_answers(subtasks: list[str] | None = None):  # type: ignore[no-untyped-def]
    from djsandbox_ray.evaluation.vqa.benchmark import FILES
    from djsandbox_ray.evaluation.vqa.mme import Mme, MmeConfig

    document = {"type": "mme", "subtasks": subtasks}
    return Mme(MmeConfig.model_validate(document, context={FILES: True}))


def test_answers_that_do_not_belong_are_counted(mme: Path, tmp_path: Path) -> None:
    folder = Path(write_answers(mme, tmp_path / "made", lambda *asked: asked[3]))
    lines = (folder / "existence.txt").read_text().splitlines(keepends=True)
    (folder / "existence.txt").write_text("".join(lines[1:]) + lines[-1])
    with pytest.raises(BadInput) as caught:
        two(mme).made_elsewhere(str(folder))
    assert str(caught.value) == (
        "1 of 8 questions have no answer: 'existence / 0000 / Is there a cat?' and 1 of 8 answers "
        "belong to no question: existence.txt:4 (one more to 'existence / 0001 / Is there a dog?')"
    )
    (folder / "existence.txt").write_text(lines[0] + "it goes\non\n")
    with pytest.raises(BadInput, match=r"existence.txt:2: image, question, truth and answer"):
        two(mme).made_elsewhere(str(folder))
    with pytest.raises(BadInput, match="answers of code_reasoning, existence too"):
        evaluator_of_answers(["OCR"]).made_elsewhere(
            write_answers(mme, tmp_path / "again", lambda *asked: "")
        )


def quarter_wrong(subtask: str, image: str, question: str, truth: str) -> str:
    digest = hashlib.sha256(f"{subtask}{image}{question}".encode()).hexdigest()
    return truth if int(digest, 16) % 4 else {"Yes": "No", "No": "Yes"}[truth]


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("reply", "perception", "cognition", "unparsed"),
    [
        (lambda *asked: "Yes", 500.0, 200.0, 0.0),
        (lambda *asked: "No", 500.0, 200.0, 0.0),
        (lambda *asked: asked[3], 2000.0, 800.0, 0.0),
        (lambda *asked: "", 0.0, 0.0, 1.0),
        (quarter_wrong, 1335.159364, 523.571429, 0.0),
    ],
)
def test_the_numbers_of_the_pack(
    shared_data: Path,
    tmp_path: Path,
    reply: Reply,
    perception: float,
    cognition: float,
    unparsed: float,
) -> None:
    questions = shared_data / "benchmarks" / "mme" / "questions"
    folder = write_answers(questions, tmp_path / "made", reply)
    found = evaluator_of_answers()
    data, said = found.made_elsewhere(folder)
    assert (data.rows, len(said)) == (1187, 2374)
    scores = found.score_said(data, said)
    assert scores["mme/perception"] == pytest.approx(perception, abs=1e-6)
    assert scores["mme/cognition"] == pytest.approx(cognition, abs=1e-6)
    assert scores["mme/unparsed"] == unparsed
    assert sum(scores[f"mme/{name}"] for name in PERCEPTION) == pytest.approx(perception)
    assert sum(scores[f"mme/{name}"] for name in COGNITION) == pytest.approx(cognition)
    assert len(SUBTASKS) == 14
    if reply is quarter_wrong:
        expected = {"OCR": 100.0, "celebrity": 141.4706, "count": 145.0, "posters": 130.2721}
        assert {name: round(scores[f"mme/{name}"], 4) for name in expected} == expected


@pytest.mark.shared_data
def test_the_same_numbers_are_had_by_asking(shared_data: Path) -> None:
    found = evaluator("mme", path=str(shared_data / "benchmarks" / "mme" / "questions"))
    data = found.questions()
    truth = {one.key: one.question.answer for one in found.placed(data)}

    def reply(asked: Asked) -> str:
        return truth[asked.key].title()

    scores = found.evaluate(Says(reply), data)
    assert (scores["mme/perception"], scores["mme/cognition"]) == (2000, 800)
    assert scores["mme/cut"] == 0

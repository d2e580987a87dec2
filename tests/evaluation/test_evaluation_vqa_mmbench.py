"""MMBench: its tables and their traps, rotations, early ends, and answers from elsewhere."""

from __future__ import annotations

import base64
import csv
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from asked_world import Says, evaluator, jpeg, samples_of, set_of, write_lines

from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.asking import Asked
from djsandbox_ray.evaluation.vqa.options import letter_of, rotated

NAMES = ["index", "question", "hint", "A", "B", "C", "D", "answer", "category", "l2-category"]
NAMES += ["image"]
OPTIONS = {"A": "cat", "B": "dog", "C": "fox", "D": "owl"}
REQUEST = "Answer with the option's letter from the given choices directly."


def cell(seed: int, side: int = 24) -> str:
    return base64.b64encode(jpeg(seed, side)).decode()


def row(index: int, answer: str = "B", image: str = "", **more: str) -> dict[str, str]:
    filled = {"index": str(index), "question": f"What is on {index % 1000000}?", **OPTIONS}
    category = {"category": "things", "l2-category": "coarse_perception"}
    return {**filled, "answer": answer, "image": image, "hint": "", **category, **more}


def write_table(path: Path, rows: list[dict[str, str]], names: list[str] = NAMES) -> str:
    with path.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, names, delimiter="\t", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


@pytest.fixture
def table(tmp_path: Path) -> str:
    """Three questions about two images, one large; of one, the rotations are rows."""
    large = cell(7, 420)
    assert len(large) > 131_072  # more than a field of Python's csv may have
    passes = [rotated(OPTIONS, "B", by) for by in range(4)]
    rows = [
        row(3, image=large, question='What\tis "on" it?', hint="Look at\nthe sky."),
        row(5, "C", image="3", C="nothing", D="nan"),
        *(
            row(9 + by * 1_000_000, right, cell(1) if by == 0 else "9", **options)
            for by, (options, right) in enumerate(passes)
        ),
    ]
    rows[1]["l2-category"] = "logic_reasoning"
    return write_table(tmp_path / "mmbench_dev.tsv", rows)


def mmbench(path: str, **settings: Any):  # type: ignore[no-untyped-def]
    settings = {"categories": ["coarse_perception", "logic_reasoning"], **settings}
    return evaluator("mmbench", path=path, **settings)


def test_images_are_stored_once_whatever_rows_show_them(table: str) -> None:
    source = mmbench(table).source()
    samples = samples_of(source)
    assert [sample.image for sample in samples] == [jpeg(7, 420), jpeg(1)]
    data = set_of(source)
    first, second = (meta["questions"]["mmbench"] for meta in data.metadata)
    assert [one["id"] for one in first] == ["3", "5"]
    assert first[0]["hint"] == "Look at\nthe sky."
    assert first[0]["question"] == 'What\tis "on" it?'
    assert list(first[1]["passes"][0]["options"]) == ["A", "B", "C"]  # nan is none
    assert len(second[0]["passes"]) == 4
    assert data.metadata[0]["whole"] == {"images": 2, "questions": 3}


def test_rotations_are_read_or_made(table: str) -> None:
    found = mmbench(table)
    questions = [one.question for one in found.placed(set_of(found.source()))]
    assert [len(one.passes) for one in questions] == [4, 3, 4]
    made = [rotated(OPTIONS, "B", by) for by in range(4)]
    assert list(questions[2].passes) == made
    assert list(questions[0].passes) == made


def knows(options: dict[str, str], right: str) -> str:
    return right


def test_a_question_is_asked_on_while_it_is_right(table: str) -> None:
    found = mmbench(table)
    data = set_of(found.source())
    model = Says(lambda asked: "A")
    scores = found.evaluate(model, data)
    # Where A is right in the first pass, the second is asked too, and wrong.
    assert Counter(one.key.rpartition("/")[0] for one in model.asked) == {
        "0/0": 1,
        "0/1": 1,
        "1/0": 1,
    }
    assert scores["mmbench/circular"] == scores["mmbench/vanilla"] == 0
    text = model.asked[0].text
    assert text == (
        'Look at\nthe sky.\nWhat\tis "on" it?\nA. cat\nB. dog\nC. fox\nD. owl\n' + REQUEST
    )
    model = Says(lambda asked: "B")
    scores = found.evaluate(model, data)
    assert len(model.asked) == 2 + 1 + 2
    assert scores["mmbench/vanilla"] == pytest.approx(2 / 3)
    every = mmbench(table, all_passes=True)
    model = Says(lambda asked: "B")
    scores = every.evaluate(model, data)
    assert len(model.asked) == 4 + 3 + 4
    assert scores["mmbench/mean_pass"] == pytest.approx(3 / 11)
    assert every.asking() != found.asking()
    assert mmbench(table, categories=[]).asking() == found.asking()


def test_all_right_by_the_texts_of_options(table: str) -> None:
    found = mmbench(table)
    data = set_of(found.source())
    options = {"What\tis": "dog", "What is on 5": "nothing", "What is on 9": "dog"}

    def reply(asked: Asked) -> str:
        wanted = next(text for start, text in options.items() if start in asked.text)
        line = next(line for line in asked.text.splitlines() if line.endswith(f". {wanted}"))
        return line[0]

    scores = found.evaluate(Says(reply), data)
    assert scores["mmbench/circular"] == 1
    assert scores["mmbench/coarse_perception"] == scores["mmbench/logic_reasoning"] == 1
    assert scores["mmbench/unparsed"] == 0


def test_its_own_tables_have_their_six_categories(table: str) -> None:
    found = evaluator("mmbench", path=table)
    names = [metric.name for metric in found.metrics()]
    assert "mmbench/finegrained_perception_instance-level" in names
    assert len(names) == 2 + 6 + 2
    with pytest.raises(BadInput, match=r"no question of the category 'finegrained.*there are: coa"):
        found.check(set_of(found.source()))
    assert [m.name for m in evaluator("mmbench", path="a.jsonl").metrics()] == [
        "mmbench/circular",
        "mmbench/vanilla",
        "mmbench/unparsed",
        "mmbench/cut",
    ]
    chinese = evaluator("mmbench", path="a.jsonl", language="cn")
    assert chinese.metrics()[0].name == "mmbench_cn/circular"


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"answer": ""}, r"a.tsv:3: it has no answer: those of MMBench's test part"),
        (
            {"answer": "E"},
            r"a.tsv:3: the answer 'E' is none of at least two options \(A, B, C, D\)",
        ),
        ({"image": "77"}, r"a.tsv:3: its image is that of row 77, but there is no such row"),
        ({"image": "2"}, r"a.tsv:3: its image is that of row 2, but that row has none itself"),
        ({"image": "!" * 80}, r"a.tsv:3: the image is not in base64"),
        ({"image": ""}, r"a.tsv:3: 'image' is to be a whole number, not ''"),
        ({"index": "1"}, r"the question 1 stands there in the passes \[0, 0\]"),
        ({"index": "1000001"}, r"passes \[0, 1\], with 4 options: pass 0 alone is needed"),
        ({"index": "one"}, r"a.tsv:3: 'index' is to be a whole number, not 'one'"),
        ({"question": " "}, r"a.tsv:3: no text under 'question'"),
    ],
)
def test_damaged_tables_are_named(tmp_path: Path, changed: dict[str, str], said: str) -> None:
    rows = [row(1, image=cell(1)), {**row(2, image=cell(2)), **changed}]
    path = write_table(tmp_path / "a.tsv", rows)
    with pytest.raises(BadInput, match=said):
        set_of(mmbench(path).source())


def test_a_table_without_images_is_named(tmp_path: Path) -> None:
    path = write_table(tmp_path / "a.tsv", [row(1)], NAMES[:-1])
    with pytest.raises(BadInput, match=r"a.tsv: no column image \(there are: index, question"):
        set_of(mmbench(path).source())
    path = write_table(tmp_path / "b.tsv", [row(1, image=cell(1))])
    with (tmp_path / "b.tsv").open("a") as handle:
        handle.write("2\tcut off\n")
    with pytest.raises(BadInput, match=r"b.tsv:3: 2 values, where there are 11 columns"):
        set_of(mmbench(path).source())


def test_lines_choose_their_language(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg(1))
    entry = {"id": 0, "image": "a.jpg", "question": "What?", "options": OPTIONS, "answer": "D"}
    chinese = {**entry, "id": 1, "question": "什么?", "lang": "zh"}
    path = write_lines(tmp_path / "a.jsonl", [{**entry, "lang": "en"}, chinese])
    english = evaluator("mmbench", path=path)
    data = set_of(english.source())
    assert [one.question.text for one in english.placed(data)] == ["What?"]
    other = evaluator("mmbench", path=path, language="cn")
    model = Says(lambda asked: "答案是D。")
    scores = other.evaluate(model, set_of(other.source()))
    assert model.asked[0].text == "什么?\nA. cat\nB. dog\nC. fox\nD. owl\n请直接回答选项字母。"
    assert scores["mmbench_cn/vanilla"] == 1
    assert scores["mmbench_cn/circular"] == 0
    assert scores["mmbench_cn/unparsed"] == 0


def test_answers_from_elsewhere(tmp_path: Path, table: str) -> None:
    found = mmbench(table)
    data = found.questions()
    wanted = [
        {"index": int(one.question.id) + by * 1_000_000, "prediction": right}
        for one in found.placed(data)
        for by, (_, right) in enumerate(one.question.passes)
    ]
    path = write_lines(tmp_path / "made.jsonl", wanted)
    data, said = found.made_elsewhere(path)
    assert len(said) == 11
    assert found.score_said(data, said)["mmbench/circular"] == 1
    # A table as VLMEvalKit and the submission have it.
    names = ["index", "question", "prediction"]
    made = [{key: str(value) for key, value in one.items()} for one in wanted]
    made[0]["prediction"] = "The answer is A."
    data, said = found.made_elsewhere(write_table(tmp_path / "made.tsv", made, names))
    scores = found.score_said(data, said)
    assert scores["mmbench/circular"] == pytest.approx(2 / 3)
    # LLaVA's lines, of the first rotation alone: nothing is said of the others.
    first = [
        {"question_id": one["index"], "round_id": 0, "text": one["prediction"]}
        for one in wanted
        if one["index"] < 1_000_000
    ]
    data, said = found.made_elsewhere(write_lines(tmp_path / "llava.jsonl", first))
    assert found.score_said(data, said) == {"mmbench/vanilla": 1.0, "mmbench/unparsed": 0.0}
    every = [
        {
            "question_id": one["index"] % 1_000_000,
            "round_id": one["index"] // 1_000_000,
            "text": "B",
        }
        for one in wanted
    ]
    data, said = found.made_elsewhere(write_lines(tmp_path / "rounds.jsonl", every))
    assert found.score_said(data, said)["mmbench/vanilla"] == pytest.approx(2 / 3)


def test_answers_that_do_not_belong_are_counted(tmp_path: Path, table: str) -> None:
    found = mmbench(table)
    made = [{"index": 3, "prediction": "A"}, {"index": 4, "prediction": "A"}]
    path = write_lines(tmp_path / "made.jsonl", made)
    with pytest.raises(BadInput) as caught:
        found.made_elsewhere(path)
    assert str(caught.value) == (
        "2 of 3 questions have no answer: '5 / 0', '9 / 0' and 1 of 2 answers belong to no "
        "question: made.jsonl:2 (none is '4 / 0')"
    )
    (tmp_path / "made.xlsx").write_bytes(b"PK")
    with pytest.raises(BadInput, match="tables of Excel are not read; save it as"):
        found.made_elsewhere(str(tmp_path / "made.xlsx"))
    with pytest.raises(BadInput, match=r"made.jsonl:1: no text under 'prediction' or 'text'"):
        found.made_elsewhere(write_lines(tmp_path / "made.jsonl", [{"index": 3}]))


PACK: dict[str, tuple[Callable[[dict[str, str], str], str], float, float]] = {
    "letters": (knows, 1.0, 1.0),
    "a sentence": (lambda options, right: f"The correct answer is {right}.", 1.0, 1.0),
    "texts": (lambda options, right: options[right], 0.9630, 1.0),
    "always A": (lambda options, right: "A", 0.0, 0.2778),
}


@pytest.mark.shared_data
@pytest.mark.parametrize("kind", sorted(PACK))
def test_the_numbers_of_the_pack(shared_data: Path, kind: str) -> None:
    reply, circular, vanilla = PACK[kind]
    path = str(shared_data / "benchmarks" / "mmbench" / "samples.jsonl")
    counts: Counter[str] = Counter()
    asked = 0
    for language, questions in (("en", 20), ("cn", 34)):
        found = evaluator("mmbench", path=path, language=language, all_passes=True)
        data = set_of(found.source())  # with its images
        placed = found.placed(data)
        assert len(placed) == questions
        passes = {
            f"{one.key}/{by}": pair for one in placed for by, pair in enumerate(one.question.passes)
        }
        model = Says(lambda asked, passes=passes: reply(*passes[asked.key]))
        scores = found.evaluate(model, data)
        asked += len(model.asked)
        for what in ("circular", "vanilla"):
            counts[what] += round(scores[f"{found.name}/{what}"] * questions)
    assert asked == 212
    assert counts["circular"] / 54 == pytest.approx(circular, abs=5e-5)
    assert counts["vanilla"] / 54 == pytest.approx(vanilla, abs=5e-5)


def test_an_answer_is_read_with_the_options_of_its_pass() -> None:
    moved, right = rotated({"A": "cat", "B": "dog"}, "A", 1)
    assert letter_of("a cat", moved) == right == "B"

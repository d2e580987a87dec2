from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from table_encoder import TableEncoder, split_of, unit

from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.zero_shot import ZeroShot, ZeroShotConfig, mean_per_class


def make(**values: Any) -> ZeroShot:
    return ZeroShot(ZeroShotConfig.model_validate({"type": "zero_shot", "label": "label"} | values))


EAST, NORTH, NORTH_EAST = (1.0, 0.0), (0.0, 1.0), (0.6, 0.8)


def test_numbers_computed_by_hand() -> None:
    """Four images, three of class a: two of those and the one of b are right."""
    split = split_of(["t"] * 4, ["a", "a", "a", "b"])
    encoder = TableEncoder(
        [EAST, EAST, NORTH, NORTH], {"a photo of a a.": EAST, "a photo of a b.": NORTH_EAST}
    )
    assert make().evaluate(encoder, split) == {
        "zero_shot_label/top1": 3 / 4,
        "zero_shot_label/mean_per_class": pytest.approx((2 / 3 + 1) / 2),
    }


def test_the_embeddings_of_templates_are_averaged_then_scaled() -> None:
    """The templates of a disagree: their mean is short, (1/2, 1/2), but only its direction counts.

    The image has a cosine of 0.97 with it and of 0.86 with b; without the scaling 0.69 and 0.86.
    """
    texts = {"x a": EAST, "y a": NORTH, "x b": EAST, "y b": EAST}
    image = unit((1.0, 0.6))
    found = make(templates=["x {}", "y {}"]).evaluate(
        TableEncoder([image, EAST], texts), split_of("tt", "ab")
    )
    assert found["zero_shot_label/top1"] == 1.0


@st.composite
def worlds(draw: Any) -> tuple[Any, ...]:
    classes, templates, size = draw(st.integers(2, 5)), draw(st.integers(1, 3)), 4
    rows = draw(st.integers(2, 25))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    target = np.concatenate([[0, 1], rng.integers(0, classes, rows - 2)])
    images = unit(rng.normal(size=(rows, size)))
    texts = unit(rng.normal(size=(classes, templates, size)))
    return classes, templates, target, images, texts


@given(worlds())
def test_against_the_definition(world: tuple[Any, ...]) -> None:
    classes, templates, target, images, texts = world
    names = [f"class {number}" for number in range(classes)]
    table = {f"t{t} {name}": texts[c, t] for c, name in enumerate(names) for t in range(templates)}
    evaluator = make(classes=names, templates=[f"t{t} {{}}" for t in range(templates)])
    split = split_of(["x"] * len(target), [names[c] for c in target])
    found = evaluator.evaluate(TableEncoder(images, table), split)

    right: dict[int, list[bool]] = {}
    for image, true in zip(images, target, strict=True):
        cosines = []
        for c in range(classes):
            mean = sum(texts[c, t].astype(np.float64) for t in range(templates)) / templates
            cosines.append(float(image @ mean) / float(np.sqrt(mean @ mean)))
        right.setdefault(int(true), []).append(int(np.argmax(cosines)) == true)
    everything = [hit for hits in right.values() for hit in hits]
    per_class = [sum(hits) / len(hits) for hits in right.values()]
    assert found["zero_shot_label/top1"] == pytest.approx(sum(everything) / len(everything))
    assert found["zero_shot_label/mean_per_class"] == pytest.approx(sum(per_class) / len(per_class))
    assert tuple(found) == tuple(metric.name for metric in evaluator.metrics())


def test_classes_are_those_that_occur_sorted() -> None:
    """The order decides ties: a collapsed model says the first class."""
    split = split_of("ttt", ["b", "c", "b"])
    encoder = TableEncoder([EAST] * 3, {"b": EAST, "c": EAST})
    found = make(templates=["{}"]).evaluate(encoder, split)
    assert found["zero_shot_label/top1"] == pytest.approx(2 / 3)
    assert found["zero_shot_label/mean_per_class"] == 0.5  # chance


def test_classes_that_do_not_occur_compete_but_do_not_count() -> None:
    split = split_of("tt", ["a", "b"])
    texts = {"a": EAST, "b": (-0.6, 0.8), "never": NORTH}
    encoder = TableEncoder([EAST, NORTH], texts)
    evaluator = make(classes=["never", "b", "a"], templates=["{}"])
    evaluator.check(split)
    assert evaluator.evaluate(encoder, split) == {
        "zero_shot_label/top1": 0.5,
        "zero_shot_label/mean_per_class": 0.5,
    }


def test_evaluating_leaves_the_embeddings_alone() -> None:
    images, text = unit(np.eye(2)), {"a": unit((1, 2)), "b": unit((2, 1))}
    encoder = TableEncoder(images, text)
    before = encoder.texts(["a", "b"]).copy()
    for _ in range(2):
        make(templates=["{}"]).evaluate(encoder, split_of("tt", "ab"))
    assert (encoder.texts(["a", "b"]) == before).all()
    assert (encoder.images(split_of("tt")) == images).all()


def test_braces_are_no_formats() -> None:
    evaluator = make(templates=["{x} {} {0:>9}"], classes=["{y}", "b"])
    texts = {"{x} {y} {0:>9}": EAST, "{x} b {0:>9}": NORTH}
    found = evaluator.evaluate(TableEncoder([EAST, NORTH], texts), split_of("tt", ["{y}", "b"]))
    assert found["zero_shot_label/top1"] == 1.0


@pytest.mark.parametrize(
    ("labels", "config", "why"),
    [
        (["a", "x", "y"], {"classes": ["a", "b"]}, r"labels \['x', 'y'\] under 'label'"),
        (["a", "a", "a"], {}, "label 'label' has only one class"),
        (["a", None, "b"], {}, "sample 1 has no label 'label'"),
        (["a", "", "b"], {}, "sample 1 has no label 'label'"),
        (["a", ["b"], "b"], {}, r"sample 1 has the label \['b'\] under 'label'"),
        ([1, 2, 3], {"classes": ["a", "b", "c"]}, r"\['3'\] under 'label' .* the numbers 0 to 2"),
        ([1, -1, 0], {"classes": ["a", "b", "c"]}, r"\['-1'\] under 'label'"),
        ([1, 0.5, 0], {"classes": ["a", "b", "c"]}, r"\['0.5'\] under 'label'"),
        ([1, 2, 9], {"classes": {1: "a", 2: "b"}}, r"\['9'\] .* among the labels \['1', '2'\]"),
        ([0, 1, 1], {"classes": ["1", "0"]}, "may be names of classes or their numbers"),
        (["a", "b", "a"], {"label": "colour"}, "has no label 'colour'; every sample has: label"),
    ],
)
def test_a_split_that_does_not_fit_is_bad_input(
    labels: list[str | None], config: dict[str, Any], why: str
) -> None:
    with pytest.raises(BadInput, match=why):
        make(**config).check(split_of("ttt", labels))


COLOURS = {"0": EAST, "1": EAST, "red": EAST, "green": NORTH, "blue": (-1.0, 0.0)}


@pytest.mark.parametrize("labels", [[1, 0, 0, 1], ["1", "0", "0", "1"], [1.0, 0.0, 0.0, 1.0]])
@pytest.mark.parametrize(
    "classes",
    [
        ["red", "green", "blue"],
        {0: "red", 1: "green"},
        {"1": "green", "0": "red", "2": "blue"},
        "names.txt",
    ],
)
def test_numbers_get_the_names_of_classes(
    labels: list[Any], classes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "names.txt").write_text("red\n green \r\nblue\n\n")
    evaluator, split = make(classes=classes, templates=["{}"]), split_of("tttt", labels)
    evaluator.check(split)
    found = evaluator.evaluate(TableEncoder([NORTH, EAST, EAST, EAST], COLOURS), split)
    assert found["zero_shot_label/top1"] == 0.75


@pytest.mark.parametrize("labels", [[1, 0, 0, 1], [1.0, 0.0, 0.0, 1.0]])
def test_numbers_have_the_names_that_the_data_gives_them(labels: list[Any]) -> None:
    """A class that does not occur competes, as one that the configuration names."""
    evaluator = make(templates=["{}"])
    split = split_of("tttt", labels, classes={"label": ("red", "green", "blue")})
    evaluator.check(split)
    found = evaluator.evaluate(TableEncoder([NORTH, EAST, (-1.0, 0.0), EAST], COLOURS), split)
    assert found["zero_shot_label/top1"] == 0.5
    assert evaluator.label_keys() == ("label",)


def test_what_the_configuration_names_wins() -> None:
    split = split_of("tt", [1, 0], classes={"label": ("blue", "red", "1")})
    for classes in (["red", "green"], {0: "red", 1: "green", 2: "blue"}):
        evaluator = make(classes=classes, templates=["{}"])
        evaluator.check(split)
        found = evaluator.evaluate(TableEncoder([NORTH, EAST], COLOURS), split)
        assert found["zero_shot_label/top1"] == 1.0
        assert evaluator.label_keys() == ()


def test_names_that_the_data_gives_may_be_numbers() -> None:
    evaluator, split = (
        make(templates=["{}"]),
        split_of("tt", [0, 1], classes={"label": ("1", "red")}),
    )
    found = evaluator.evaluate(TableEncoder([EAST, NORTH], {"1": EAST, "red": NORTH}), split)
    assert found["zero_shot_label/top1"] == 1.0


def test_names_of_another_key_do_not_count() -> None:
    with pytest.raises(BadInput, match="Give their names as 'classes'"):
        make().check(split_of("tt", [0, 1], classes={"other": ("red", "green")}))


def test_a_file_of_names_is_what_it_says(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("red\ngreen")
    listed = make(classes=["red", "green"])
    assert make(classes=str(tmp_path / "names.txt")).identity() == listed.identity()
    assert make().identity()["classes"] is None


@pytest.mark.parametrize(
    "labels",
    [
        [3, 0, 11],
        ["3", "0", "11"],
        [" 3", "0 ", "1e1"],
        [".5", "-1", "2."],
        [True, False, True],
        ["a", 3, "b"],
    ],
)
def test_numbers_without_names_are_an_error(labels: list[Any]) -> None:
    first = sorted(map(str, labels), key=lambda label: (len(label), label))[0]
    with pytest.raises(BadInput) as error:
        make(templates=["a {} circle"]).check(split_of("ttt", labels))
    assert f"'a {first} circle'" in str(error.value)
    assert "Give their names as 'classes'" in str(error.value)


def test_digits_may_be_what_images_show() -> None:
    digits = [str(number) for number in range(10)]
    for labels in ([3, 0], ["3", "0"]):
        evaluator, split = make(classes=digits, templates=["{}"]), split_of("tt", labels)
        evaluator.check(split)
        texts = {digit: EAST if digit == "3" else NORTH for digit in digits}
        found = evaluator.evaluate(TableEncoder([EAST, NORTH], texts), split)
        assert found["zero_shot_label/top1"] == 1.0


def test_codes_may_stand_for_names() -> None:
    evaluator = make(classes={"n01440764": "tench", "n02084071": "dog"}, templates=["{}"])
    found = evaluator.evaluate(
        TableEncoder([EAST, NORTH], {"tench": EAST, "dog": NORTH}),
        split_of("tt", ["n01440764", "n02084071"]),
    )
    assert found["zero_shot_label/top1"] == 1.0


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"label": ""}, "at least 1 character"),
        ({"classes": ["a"]}, "at least 2 items"),
        ({"classes": ["a", "b", "a"]}, "a class stands twice: 'a'"),
        ({"classes": {0: "a", 1: "a"}}, "a class stands twice: 'a'"),
        ({"classes": {0: "a", "0": "b"}}, "a label stands twice"),
        ({"classes": {True: "a", 2: "b"}}, "not True"),
        ({"classes": {0: "a"}}, "at least 2 items"),
        ({"classes": {0: 1, 1: 2}}, "valid string"),
        ({"classes": [0, 1]}, "valid string"),
        ({"classes": ["a", " "]}, r"the class 1 \(counted from 0\) has no name"),
        ({"classes": "no/such/file.txt"}, "the file 'no/such/file.txt' cannot be read"),
        ({"classes": "nowhere://x"}, "cannot be opened"),
        ({"templates": []}, "at least 1 item"),
        ({"templates": ["{}", "a photo"]}, "'a photo' needs exactly one {}"),
        ({"templates": ["{} {}"]}, "needs exactly one {}"),
        ({"templates": ["{c}"]}, "needs exactly one {}"),
        ({"template": ["{}"]}, "Extra inputs"),
    ],
)
def test_bad_configs(config: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        make(**config)


def test_mean_per_class_by_hand() -> None:
    target = np.array([0, 0, 0, 0, 2, 2, 5])
    predicted = np.array([0, 0, 0, 1, 2, 0, 5])
    assert mean_per_class(predicted, target) == pytest.approx((3 / 4 + 1 / 2 + 1) / 3)
    assert mean_per_class(np.array([1, 1]), np.array([0, 0])) == 0.0

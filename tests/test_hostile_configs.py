"""Whatever stands in a configuration, the answer is a configuration or a message."""

from __future__ import annotations

import contextlib
import copy
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from factories import minimal_document
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from djsandbox_ray import cli
from djsandbox_ray.config import RunConfig, checked, load_config, read_document
from djsandbox_ray.errors import BadInput
from djsandbox_ray.workflows.language.workflow import configured_workflow

ROOT = Path(__file__).parents[1]
SHIPPED = sorted((ROOT / "configs").rglob("*.yaml"))
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 1, 2**62, 0.5, -0.0, 1e308, float("nan"), float("inf"), "", " ", "x"),
    *("x" * 300, "x" * 300 + ".yaml", "a/b", "../..", "/", "s3://", "nowhere://x", "x:y", "a::b"),
    *("{a,b}", "*", "${scorer}", "${a.output}", "é", "1e14", "no", "json:loads", "os:system"),
    *([], {}, [[]], [{}], {"type": "x"}, {"type": 1}, {"x": {"y": "z"}}, [None], {"": ""}),
    *("-", "@", "~", "~nobody", "http://[::1]/x.tar", "file:///x", "x.json", "ViT-B-32"),
)
MARKS = ":-[]{}&*!|>'\"%@`#,? \n\t0x\x07\ufeffé"


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield where there is anything in a document."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in items:
        yield (*at, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*at, key))


def changed(document: dict[str, Any], rng: random.Random) -> dict[str, Any]:
    """Return a document with one thing replaced, removed or added."""
    document = copy.deepcopy(document)
    *around, last = rng.choice(list(places(document)))
    here: Any = document
    for key in around:
        here = here[key]
    kind, odd = rng.random(), copy.deepcopy(rng.choice(ODD))
    if kind < 0.7:
        here[last] = odd
    elif kind < 0.85 or isinstance(here, list):
        del here[last]
    else:
        here[rng.choice([1, None, True, 0.5, "x" * 300, "typ", "type", "path"])] = odd
    return document


def answered(document: dict[str, Any]) -> None:
    """Check that there is a configuration with a workflow, or a message that can be read."""
    said = ""
    try:
        config = checked(document, "test")
        assert isinstance(config, RunConfig)
        configured_workflow(config)
    except BadInput as error:
        said = str(error)
    assert len(said) < 20_000
    said.encode()


def mutations(count: int, seed: int) -> None:
    rng = random.Random(seed)
    shipped = [read_document(str(path)) for path in SHIPPED]
    for _ in range(count):
        document = rng.choice([minimal_document(), *shipped])
        for _ in range(rng.choice([1, 1, 2, 5])):
            document = changed(document, rng)
        answered(document)


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_mutated_configurations() -> None:
    mutations(150, seed=0)


@pytest.mark.slow
def test_mutated_configurations_at_length() -> None:
    mutations(20_000, seed=1)


@pytest.mark.slow
@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_anything_anywhere(odd: Any) -> None:
    """Every place of one configuration holds every odd value once."""
    whole = read_document(str(ROOT / "configs" / "demo.yaml"))
    for *around, last in places(whole):
        document = copy.deepcopy(whole)
        here: Any = document
        for key in around:
            here = here[key]
        here[last] = odd
        answered(document)


def garbled(text: str, rng: random.Random) -> str:
    """Return a text with some signs replaced, removed, repeated or added."""
    for _ in range(rng.choice([1, 2, 5, 20])):
        at = rng.randrange(len(text))
        end = at + rng.choice([0, 1, 1, 10])
        text = text[:at] + rng.choice(["", rng.choice(MARKS), text[at:end] * 2]) + text[end:]
    return text


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_garbled_files(path: Path, tmp_path: Path) -> None:
    rng = random.Random(path.name)
    for _ in range(8):
        file = tmp_path / "config.yaml"
        file.write_text(garbled(path.read_text(), rng), encoding="utf-8")
        with contextlib.suppress(BadInput):
            load_config(str(file))


@given(st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
def test_any_bytes(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "config.yaml").write_bytes(data)
    with pytest.raises(BadInput):
        load_config(str(tmp_path / "config.yaml"))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"name": "x" * 101}, "name: .*at most 100 characters"),
        ({"storage": "./" + "x" * 300}, "storage: a folder's name has 255 bytes at most"),
        ({"dataset__samples": 10**14}, "dataset.samples: .*100000000"),
        ({"dataset__samples": 1e14}, "dataset.samples: .*100000000"),
        ({"dataset__samples": "1e14"}, "dataset.samples: "),
        ({"trials__budget": 10**18}, "trials.budget: .*1000000000000"),
        ({"trials__budget": 1e30}, "trials.budget: "),
        ({"trials__seeds": 10**9}, "trials.seeds: .*1000"),
        ({"pools__controls": 10**9}, "pools.controls: .*1000"),
        ({"operators": [{"text_length_filter": {"max_len": float("nan")}}]}, "max_len: a finite"),
        ({"jobs": {"x": {"y": [float("inf")]}}}, r"jobs.x.y\[0\]: a finite number is needed"),
        ({"evaluation__alpha": float("nan")}, "evaluation.alpha: "),
    ],
)
def test_numbers_and_names_have_bounds(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(BadInput, match=why) as error:
        checked(minimal_document(**changes), "test")
    assert "1 error(s)" in str(error.value)


def test_many_errors_are_not_all_said() -> None:
    unknown = {f"key{number}": [1] * 100 for number in range(5000)}
    with pytest.raises(BadInput, match="and 4,950 more") as error:
        checked(minimal_document() | unknown, "test")
    assert len(str(error.value).splitlines()) == 52


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\nb: &b [" + "*a, " * 9_000 + "]\nc: [*b, *b, *b]",
        "name: " + "x" * 2_000_000,
        "a: " + "[" * 10_000,
        'name: "a\\0b"',
        "name: a\nname: b",
        "\x00",
    ],
)
def test_a_command_ends_with_2(
    text: str, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    monkeypatch.setattr(sys, "argv", ["djsandbox", "plan", str(path)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert str(path) in told
    assert "Traceback" not in told


def test_a_file_without_an_end_is_not_read_to_it() -> None:
    with pytest.raises(BadInput, match="more than 1,048,576 bytes"):
        load_config("/dev/zero")


def test_a_deep_override_is_refused() -> None:
    with pytest.raises(BadInput, match="value is needed"):
        read_document(str(SHIPPED[0]), [".".join("a" * 5000) + "=1"])

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from djsandbox_ray.recipes.export import recipe_document, recipe_yaml, with_scorer
from djsandbox_ray.records import Range
from djsandbox_ray.stats.operators import OperatorSpec, parse_process

OPERATORS = [
    {"image_text_similarity_filter": {"hf_clip": "${scorer}"}},
    "text_length_filter",
    "image_size_filter",
    {"special_characters_filter": {"max_ratio": 0.9}},
]
RANGES = [
    Range("image_text_similarity", 0.1 + 1e-17, None),
    Range("text_len", 12.0, 80.0),
    Range("image_sizes", 1e3, None),
    Range("special_char_ratio", None, 1.0000000001e-05),
]


def specs(folder: str = "/models/scorer-1") -> tuple[OperatorSpec, ...]:
    return parse_process(with_scorer(OPERATORS, folder))


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return recipe_document("demo", specs(), RANGES)


def text(document: dict[str, Any]) -> str:
    facts = ["Recipe demo.", "Expected effect: unknown."]
    return recipe_yaml(document, facts, file="demo.yaml", version="1.6.1")


def test_yaml_gives_back_every_digit(document: dict[str, Any]) -> None:
    assert yaml.safe_load(text(document)) == document
    assert document["process"] == [
        {
            "image_text_similarity_filter": {
                "hf_clip": "/models/scorer-1",
                "min_score": 0.1 + 1e-17,
                "max_score": sys.maxsize,
                "text_key": "text_with_tokens",
            }
        },
        {"text_length_filter": {"min_len": 12, "max_len": 80}},
        {"image_size_filter": {"min_size": "1000", "max_size": str(sys.maxsize)}},
        {"special_characters_filter": {"min_ratio": -sys.maxsize, "max_ratio": 1.0000000001e-05}},
    ]


def test_comments_say_how_to_run_it(document: dict[str, Any]) -> None:
    comments = [line for line in text(document).splitlines() if line.startswith("#")]
    found = "\n".join(comments)
    for words in (
        "Recipe demo.",
        "dj-process --config demo.yaml --dataset_path",
        "Data-Juicer 1.6.1",
        "text_with_tokens: ",
        "Paths of models",
    ):
        assert words in found
    plain = text(recipe_document("demo", specs(), RANGES[1:]))
    assert "text_with_tokens" not in plain
    assert "Paths of models" not in plain


def test_a_recipe_names_the_field_of_a_second_text() -> None:
    params = {"hf_clip": "/models/a", "text_key_second": "meta.title"}
    operators = parse_process([{"text_pair_similarity_filter": params}])
    document = recipe_document("demo", operators, [Range("text_pair_similarity", 0.5, None)])
    (entry,) = document["process"]
    assert entry["text_pair_similarity_filter"]["text_key_second"] == "meta.title"
    assert "#   meta.title: a text of the meta data" in text(document)
    # Its check before a run takes no number for a threshold of this operator.
    assert document["strict_preflight"] is False
    assert "strict_preflight" not in recipe_document("demo", specs(), RANGES)
    assert "meta.title" not in text(recipe_document("demo", specs(), RANGES))


def test_data_juicer_reads_what_was_meant(document: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "demo.yaml"
    path.write_text(text(document))
    code = (
        "import json, sys\n"
        "from djsandbox_ray.stats.datajuicer import load\n"
        "load()\n"
        "from data_juicer.config import init_configs\n"
        "cfg = init_configs(['--config', sys.argv[1]], load_configs_only=True)\n"
        "names = ('project_name', 'text_keys', 'image_key', 'skip_op_error', 'process')\n"
        "print('READ' + json.dumps({name: cfg[name] for name in names}))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    read = json.loads(done.stdout.split("READ")[1])
    assert {name: read[name] for name in read if name != "process"} == {
        name: document[name] for name in read if name != "process"
    }
    for given, found in zip(document["process"], read["process"], strict=True):
        ((name, params),) = given.items()
        assert {key: found[name][key] for key in params} == params
        text_key = "text_with_tokens" if "similarity" in name else "text"
        assert (found[name]["text_key"], found[name]["skip_op_error"]) == (text_key, False)


def test_the_scorer_is_put_in_its_place() -> None:
    assert with_scorer(OPERATORS, None) == OPERATORS
    found = with_scorer(OPERATORS, "/m")
    assert found[0] == {"image_text_similarity_filter": {"hf_clip": "/m"}}
    assert found[1:] == OPERATORS[1:]
    assert with_scorer([{"text_length_filter": None}], "/m") == [{"text_length_filter": {}}]

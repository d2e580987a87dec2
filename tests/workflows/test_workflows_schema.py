"""What editors and people read about configurations is what their classes say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from djsandbox_ray.config import RunConfig
from djsandbox_ray.settings.yaml_input import keys_of
from djsandbox_ray.workflows.examples import SCHEMA_LINE
from djsandbox_ray.workflows.schema import configuration_page, configuration_schema

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return configuration_schema()


@pytest.fixture(scope="module")
def wrong(schema: dict[str, Any]):
    validator = Draft202012Validator(schema)

    def places(document: Any) -> set[str]:
        found = set()
        for error in validator.iter_errors(document):
            for one in [error, *(error.context or ())]:
                found.add(".".join(map(str, one.absolute_path)))
        return found

    return places


def test_the_shipped_schema_is_fresh(schema: dict[str, Any]) -> None:
    shipped = json.loads((ROOT / "configs" / "schema.json").read_text())
    assert shipped == schema, "djsandbox schema > configs/schema.json"


def test_the_page_is_fresh() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert page == configuration_page(), "djsandbox schema --markdown > docs/configuration.md"


def test_the_page_names_every_key() -> None:
    page = configuration_page()
    for key in (*keys_of(RunConfig), "draw_share", "learning_rate", "cpus_per_worker", "patience"):
        assert f"| `{key}` |" in page, key
    # A key that a source changes keeps what it is for.
    assert "| `content` | `pairs` or `videos`" in page
    assert "as below" in page


def test_the_links_of_the_page_lead_somewhere() -> None:
    page = configuration_page()
    titles = [line.lstrip("# ") for line in page.splitlines() if line.startswith("#")]
    assert len(set(titles)) == len(titles)
    signs = (title.lower().replace(" ", "-") for title in titles)
    anchors = {"".join(s for s in title if s.isalnum() or s in "_-") for title in signs}
    linked = {part.partition(")")[0] for part in page.split("](#")[1:]}
    assert linked <= anchors


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_configurations_name_their_schema_and_are_as_it_says(path: Path, wrong) -> None:
    first, rest = path.read_text().split("\n", 1)
    assert first.startswith(SCHEMA_LINE)
    assert (path.parent / first.removeprefix(SCHEMA_LINE)).resolve() == ROOT / "configs/schema.json"
    assert wrong(yaml.safe_load(rest)) == set()


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"nosuch": 1}, ""),
        ({"dataset": {"type": "shapes"}}, "dataset"),  # how many
        ({"dataset": {"type": "shapes", "samples": 0}}, "dataset.samples"),
        ({"dataset": {"type": "shape"}}, "dataset"),
        ({"pools": {"bukets": 3}}, "pools"),
        ({"operators": []}, "operators"),
        ({"tracking": {"type": "mlflow", "patience": "long"}}, "tracking.patience"),
    ],
)
def test_what_an_editor_underlines(wrong, changes: dict[str, Any], place: str) -> None:
    whole = {"name": "x", "dataset": {"type": "shapes", "samples": 9}, "operators": ["a_filter"]}
    assert wrong(whole) == set()
    assert place in wrong({**whole, **changes})


@pytest.mark.parametrize(
    "part",
    [
        {"trials": {"model": {"type": "clip"}, "budget": 9, "seeds": [42]}},
        {"evaluation": {"metrics": [{"type": "zero_shot", "label": "a", "classes": "names.txt"}]}},
        {"evaluation": {"metrics": [{"type": "command", "command": ["a", 1, 0.5]}]}},
    ],
)
def test_what_validators_read_in_another_form_is_known(wrong, part: dict[str, Any]) -> None:
    whole = {"name": "x", "dataset": {"type": "shapes", "samples": 9}, "operators": ["a_filter"]}
    found = wrong({**whole, **part})
    assert not [place for place in found if place.endswith(("seeds", "classes", "command"))]


def test_classes_of_users_are_believed(wrong) -> None:
    own = {"type": "my_module:Source", "whatever": 1}
    assert wrong({"name": "x", "dataset": own, "operators": ["a_filter"]}) == set()

"""What the hooks that read data make of a small world, by their VERSION: on a real cluster."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from golden import check, digest, moment, plain, written
from planted_world import context_of
from safetensors.numpy import load_file

from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.hooks.hook import HOOKS
from djsandbox_ray.recipes.export import recipe_document
from djsandbox_ray.records import (
    Dataset,
    Evaluation,
    Leak,
    Range,
    Recipe,
    Scorer,
    Statistics,
    Thresholds,
)
from djsandbox_ray.stats.operators import parse_process
from djsandbox_ray.stats.parts import StatisticColumns
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.workflows.language.parameters import parameters

SAMPLES = 300
LONG = Range("text_len", 20.0, None)
HOOKS_OF_DATA = (
    *("ingest", "ingest_evaluation", "leaks", "scorer"),
    *("statistics", "pools", "diversity", "accept"),
)
"""In the order of a run."""
OUTPUTS = {"ingest": "dataset", "ingest_evaluation": "evaluation"}
"""Under which name others take what a hook makes, where that is not its own."""


def content(storage: Storage, output: Any) -> Any:
    """Return what lies where an output says, outside of the run's folder."""
    match output:
        case Dataset():
            table = SampleTable(storage.uri(output.table))
            digests = [one.hex() for one in table.column("digest").to_pylist()]
            return [table.column("text").to_pylist(), table.column("meta").to_pylist(), digests]
        case Evaluation():
            return [content(storage, one) for one in output.sets]
        case Leak():
            return storage.read_table(output.path).to_pydict()
        case Statistics():
            columns = StatisticColumns(storage, output.statistics, SAMPLES)
            return {item.name: columns[item.name].tolist() for item in output.statistics}
        case Scorer():
            path = Path(storage.uri(output.path), "model.safetensors")
            return {name: tensor.shape for name, tensor in load_file(path).items()}
    return None


def recipe(storage: Storage, folder: str, operators: list[Any]) -> dict[str, Any]:
    """Write a recipe, and return it with the thresholds that it stands for."""
    document = recipe_document("golden", parse_process(operators), [LONG])
    storage.write_bytes(f"{folder}/recipes/long.yaml", yaml.safe_dump(document).encode())
    return {
        "recipe": Recipe("recipe", f"{folder}/recipes/long.yaml", "", 0.5, 0.1, True),
        "thresholds": Thresholds("thresholds", (LONG,), "", "", ""),
    }


@pytest.fixture(scope="module")
def digests(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Run all hooks of data; return what is known of each one's output."""
    storage = Storage(str(tmp_path_factory.mktemp("golden")))
    shapes = {"type": "shapes", "samples": SAMPLES, "defects": {"repeated_words": 0.3}}
    trusted = {"type": "shapes", "samples": 40, "seed": 1}
    context, _ = context_of(
        storage,
        dataset=shapes,
        operators=["text_length_filter", "words_num_filter"],
        scorer={"dataset": trusted, "model": {"type": "clip", "batch_size": 8}, "budget": 16},
        evaluation={
            "dataset": {**shapes, "samples": 60},
            "metrics": [{"type": "planted_world:Measure"}],
            "leaks": "remove",
        },
    )
    folder = Path(storage.uri(context.folder))
    outputs: dict[str, Any] = {"ranking": None}
    outputs |= recipe(storage, context.folder, context.config.operators)
    made = {}
    for name in HOOKS_OF_DATA:
        hook = HOOKS.get(name)(context)
        given = {one: outputs[one] for one in parameters(type(hook)) if one in outputs}
        start = moment()
        output = hook.run(**given)
        assert output is not None, f"{name}: the world is too small for it"
        outputs[OUTPUTS.get(name, name)] = output
        texts = [asdict(output), content(storage, output), written(folder, start)]
        made[name] = plain(json.dumps(texts, sort_keys=True))
    return {name: digest(text) for name, text in made.items()}


@pytest.mark.parametrize("hook", [hook for hook in HOOKS_OF_DATA if hook != "pools"])
def test_the_output_is_that_of_its_version(hook: str, digests: dict[str, str]) -> None:
    check(hook, digests[hook])

"""Programs of others with packages of their own, through a race on Ray; killed, and resumed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import packaging
import pytest
from small_runs import run

pytestmark = pytest.mark.integration

PROGRAMS = str(Path(__file__).with_name("programs"))
ENVIRONMENT = {"python": "3.11", "packages": ["packaging==21.3"]}


def _model(notes: Path) -> dict[str, Any]:
    notes.mkdir(exist_ok=True)
    words = [f"--{name}" for name in ("pool", "samples", "seed", "checkpoint", "output", "metrics")]
    return {
        "type": "command",
        "command": ["python", "train.py", *(f"{word}={{{word[2:]}}}" for word in words)],
        "files": [PROGRAMS],
        "environment": ENVIRONMENT,
        "env": {"NOTES": str(notes)},
    }


EVALUATOR = {
    "type": "command",
    "command": [
        "python",
        "evaluate.py",
        "--model={output}",
        "--samples={evaluation}",
        "--metrics={metrics}",
    ],
    "files": [PROGRAMS],
    "metrics": {"accuracy": "results.accuracy.0"},
}


def _changes(folder: Path) -> dict[str, Any]:
    return {
        "dataset": {"type": "shapes", "samples": 900, "defects": {"special_characters": 0.3}},
        "pools": {"controls": 5, "size": 250},
        "trials": {
            "model": _model(folder / "notes"),
            "budget": 400,
            "seeds": 2,
            "retries": 0,
            "early_stopping": {"type": "race", "rungs": [0.5], "keep": 1, "audit": 0},
        },
        "evaluation": {
            "dataset": {"type": "shapes", "samples": 120, "seed": 2},
            "metrics": [EVALUATOR, {"type": "reported", "metrics": ["packaging"]}],
            "score": ["accuracy"],
        },
        "report": {},
        "tracking": {"type": "none"},
    }


def _notes(folder: Path) -> list[dict[str, Any]]:
    files = sorted((folder / "notes").glob("*.json"))
    return [json.loads(file.read_text()) for file in files]


@pytest.mark.slow
def test_a_program_with_packages_that_conflict_with_ours_races(
    ray_cluster: None, tmp_path: Path
) -> None:
    ran = run(tmp_path, _changes(tmp_path))
    ranking = ran.ranking
    # The captions of that pool are those of other pictures: nothing can be learnt from them.
    assert ranking.loc["self_test/shuffled_captions", "verdict"] == "worse"
    assert ranking.loc["self_test/shuffled_statistic", "verdict"] == "undecided"
    assert set(ran.parquet()["state"]) <= {"COMPLETED", "STOPPED"}
    seen = {note["version"] for note in _notes(tmp_path)}
    assert seen == {"21.3"}
    assert packaging.__version__ != "21.3"
    assert len(_notes(tmp_path)) == len(ran.parquet("curves.parquet"))
    # Every second call went on from where the first one had ended, in whichever process.
    assert {note["from"] for note in _notes(tmp_path)} == {0, 200}

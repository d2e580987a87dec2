"""A LLaVA in a whole run: whatever is killed, nothing that was kept is done twice."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter
from small_llava import answered, steps
from small_runs import SMALL, Ran, jobs_until, run

from djsandbox_ray.records import TrialRecord

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]

BATCH, BUDGET, FIXED = 16, 64, 64
RUNG = BUDGET + 32
"""Inside the second stage."""


def changes(place: Path) -> dict[str, Any]:
    base = {
        "dataset": {"type": "shapes", "samples": 200, "seed": 7},
        "questions": {"type": "shapes_questions", "samples": 200, "seed": 70},
        "samples": 256,
    }
    fixed = {"type": "shapes_questions", "samples": 60, "seed": 8}
    finetune = {"dataset": fixed, "samples": FIXED, "batch_size": BATCH, "template": "chat"}
    model = {
        "type": "small_llava:Mortal",
        "place": str(place),
        "base": {"build": "tiny", "train": base},
        "batch_size": BATCH,
        "finetune": finetune,
    }
    asked = {"type": "shapes_questions", "samples": 20, "seed": 11}
    return {
        "name": "llava",
        "dataset": {**SMALL["dataset"], "samples": 600},
        "pools": {"controls": 5, "size": 160, "self_tests": False},
        "trials": {
            "model": model,
            "budget": BUDGET,
            "seeds": 2,
            "early_stopping": {"type": "none", "rungs": [(RUNG - BUDGET) / FIXED]},
        },
        "evaluation": {
            "metrics": [
                {"type": "small_answers:Quiz", "samples": 20, "place": str(place)},
                {"type": "textvqa", "dataset": asked, "max_new_tokens": 4},
            ],
            "aggregate": "mean_relative",
            "score": ["quiz/wrong"],  # so small, it answers nothing rightly
        },
        "workflow": jobs_until("trials"),
        "tracking": {"type": "none"},
        "report": {},
    }


def records(ran: Ran) -> dict[tuple[str, int], TrialRecord]:
    read = TypeAdapter(TrialRecord).validate_python
    paths = [f"trials/{trial}.json" for trial in ran.parquet()["trial"]]
    found = [read(ran.storage.read_sealed(path)) for path in paths]
    return {(one.spec.pool, one.spec.seed): one for one in found}


def test_a_killed_trial_does_nothing_twice(ray_cluster: None, tmp_path: Path) -> None:
    places = {name: tmp_path / name for name in ("whole", "killed")}
    for place in places.values():
        (place / "notes").mkdir(parents=True)
    notes = places["killed"] / "notes"
    # In stage two, one step behind what was kept at the rung; while it answers; before it scores.
    (notes / "step").write_text(str((RUNG - BUDGET) // BATCH + 1))
    (notes / "answering").touch()
    (notes / "kill").touch()
    found = {name: run(place, changes(place / "notes")) for name, place in places.items()}
    assert not [path for path in notes.iterdir() if path.suffix != ".json"], "all three died"

    whole, killed = (records(found[name]) for name in places)
    assert sum(one.attempts for one in whole.values()) == len(whole)
    assert sum(one.attempts for one in killed.values()) == len(killed) + 3
    for key, one in whole.items():
        assert [(r.samples, r.loss, r.metrics) for r in killed[key].reports] == [
            (r.samples, r.loss, r.metrics) for r in one.reports
        ]

    taken = Counter(steps(notes))
    assert set(taken) == set(steps(places["whole"] / "notes"))
    again = [step for step, times in taken.items() if times > 1]
    assert len(again) == 1, "the one step that was not kept at a rung"
    ((_, stage, number),) = again
    assert (stage, number) == ("finetune", (RUNG - BUDGET) // BATCH)
    assert set(taken.values()) == {1, 2}
    said, alone = Counter(answered(notes)), Counter(answered(places["whole"] / "notes"))
    assert said == alone, "the batch at whose end it died was neither kept nor noted"
    assert said

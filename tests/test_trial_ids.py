"""Ids of trials stay, so that what a storage knows stays known: those of the demo, trial by trial.

The pools of image-text similarity are left out: they hang on a model that is trained on the spot,
whose last digits are those of the machine. The ids are those under :data:`VERSIONS`, whichever are
installed. To record ids that have changed on purpose, which means that all trials of all storages
are trained again, say

    GOLDEN=record python -m pytest tests/test_trial_ids.py
"""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from djsandbox_ray.config import checked
from djsandbox_ray.workflows.foresight.plan import make_plan
from djsandbox_ray.workflows.run import run_sandbox

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = Path(__file__).parent / "golden" / "demo_trials.json"
VERSIONS = {"torch": "2.14.1", "open_clip_torch": "3.3.0"}
"""Of the libraries that CLIP's numbers hang on; one more of these changes all ids, too."""
UNTIL_POOLS = ("ingest", "ingest_evaluation", "leaks", "scorer", "statistics", "pools")
"""Hooks of the jobs that a plan needs to have run before it can name every trial."""


def _demo(storage: Path, **changes: Any) -> dict[str, Any]:
    """Return the demo's configuration without what hangs on the scorer."""
    demo = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text())
    kept = [item for item in demo["operators"] if "image_text_similarity_filter" not in item]
    return {**demo, "scorer": None, "operators": kept, "storage": str(storage), **changes}


@pytest.mark.integration
def test_the_trials_of_the_demo_have_the_ids_that_they_always_had(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("djsandbox_ray.trials.family.version", VERSIONS.__getitem__)
    whole = _demo(tmp_path, tracking={"type": "none"})
    jobs = make_plan(checked(whole, "demo"))["jobs"]
    kept = [
        {"id": job["job"], "hook": job["hook"], "with": job["takes"]}
        for job in jobs
        if job["hook"] in UNTIL_POOLS
    ]
    run_sandbox(checked({**whole, "workflow": {"jobs": kept}}, "demo"), Console(file=io.StringIO()))
    found: dict[str, list[str]] = {}
    for trial in make_plan(checked(whole, "demo"))["trial_list"]:
        found.setdefault(trial["pool"], []).append(trial["trial"])
    if os.environ.get("GOLDEN") == "record":
        GOLDEN.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
    assert found == json.loads(GOLDEN.read_text()), (
        "ids of trials changed: all that storages know would be trained again. If that is meant, "
        "record them: GOLDEN=record python -m pytest tests/test_trial_ids.py"
    )

"""Damage to a finished run, kind by kind: the same command mends it, or names it and its remedy.

Either way there is no traceback, and a command that goes through ends with the same verdicts.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damages import DAMAGES
from small_runs import SMALL, WHOLE, Ran, run

from djsandbox_ray.errors import BadInput, SandboxError, StorageFailed
from djsandbox_ray.storage.store import Storage

pytestmark = pytest.mark.integration

UNTRACKED = {"tracking": {"type": "none"}}
RUN = "runs/whole"
KINDS = {
    "state": f"{RUN}/run.json",
    "configuration": f"{RUN}/config.yaml",
    "costs": f"{RUN}/costs.json",
    "marker": f"{RUN}/jobs/*.json",
    "decision": f"{RUN}/race/*/*.json",
    "assignments": f"{RUN}/assignments.parquet",
    "pools": f"{RUN}/pools.json",
    "trials table": f"{RUN}/trials.parquet",
    "curves": f"{RUN}/curves.parquet",
    "ranking": f"{RUN}/ranking.csv",
    "noise": f"{RUN}/noise.json",
    "ledger": f"{RUN}/ledger.json",
    "confirmation": f"{RUN}/confirmation.csv",
    "thresholds": f"{RUN}/thresholds/*.json",
    "recipe": f"{RUN}/recipes/*.yaml",
    "evidence": f"{RUN}/recipes/*.evidence.json",
    "acceptance": f"{RUN}/acceptance.json",
    "report": f"{RUN}/report.html",
    "figure": f"{RUN}/figures/*.png",
    "events": f"{RUN}/logs/events-*.jsonl",
    "journal": f"{RUN}/tracking/*/run.json",
    "journal of a trial": f"{RUN}/tracking/*/trials/*.json",
    "trial record": "trials/*.json",
    "dataset": "datasets/*/dataset.json",
    "table": "datasets/*/samples.lance/data/*.lance",
    "manifest": "datasets/*/samples.lance/_versions/*.manifest",
    "rejected": "datasets/*/rejected.parquet",
    "media digests": "datasets/*/media_digests.parquet",
    "leaks": "datasets/*/leaks/*.parquet",
    "statistics marker": "datasets/*/stats/*.json",
    "statistics part": "datasets/*/stats/*/part-*.parquet",
}
"""By kind, where such files lie."""
PLAIN = ("state", "costs", "decision", "assignments", "ranking", "trials table", "statistics part")
"""Of these, one damage each is tried whenever tests are run."""


@pytest.fixture
def damaged(finished_run: Ran, tmp_path: Path) -> Ran:
    """A copy of the finished run."""
    shutil.copytree(finished_run.home, tmp_path / "storage")
    (tmp_path / "storage" / "mlflow.db").unlink(missing_ok=True)
    config = finished_run.config.model_copy(update={"storage": str(tmp_path / "storage")})
    return Ran(config, "")


def _again(damaged: Ran, **changes: Any) -> Ran:
    return run(damaged.home.parent, {**UNTRACKED, **changes}, base=WHOLE)


def _cases() -> Iterator[Any]:
    for kind in KINDS:
        for number, damage in enumerate(DAMAGES):
            plain = kind in PLAIN and number == PLAIN.index(kind) % len(DAMAGES)
            yield pytest.param(kind, damage, marks=[] if plain else pytest.mark.slow)


@pytest.mark.parametrize(("kind", "damage"), _cases())
def test_every_damage_is_mended_or_named(
    damaged: Ran, finished_run: Ran, kind: str, damage: str
) -> None:
    found = sorted(damaged.home.glob(KINDS[kind]))
    assert found, f"no {kind} in a finished run"
    DAMAGES[damage](found[0])
    again = _again(damaged)
    assert "Traceback" not in again.out
    assert again.ranking.equals(finished_run.ranking)
    assert again.csv("confirmation.csv").equals(finished_run.csv("confirmation.csv"))
    for name in ("assignments.parquet", "trials.parquet", "curves.parquet"):
        first = finished_run.parquet(name)
        # How long it took, and how often, another start may change.
        other = ("seconds", "time", "attempts")
        numbers = [name for name in first if not any(word in name for word in other)]
        assert again.parquet(name)[numbers].equals(first[numbers])
    last = _again(damaged)
    assert "it is done again" not in last.out, "it is mended once"
    assert "made anew" not in last.out


@pytest.mark.parametrize(
    "damage",
    [pytest.param(name, marks=[] if name == "half" else pytest.mark.slow) for name in DAMAGES],
)
def test_damaged_digests_of_media_are_made_again_where_leaks_are_looked_for(
    finished_run: Ran, damaged: Ran, damage: str
) -> None:
    """A run whose leaks are known does not read them; one that has lost these does."""
    leaks = damaged.home / finished_run.outputs["leaks"].path
    (split,) = finished_run.outputs["evaluation"].sets
    # Other tests have run beside this one, with data of their own.
    data = (leaks.parents[1], damaged.home / "datasets" / split.id)
    digests = [folder / "media_digests.parquet" for folder in data]
    before = [pq.read_table(path) for path in digests]
    found = pq.read_table(leaks)
    for path in digests:
        DAMAGES[damage](path)
    leaks.unlink()
    again = _again(damaged)
    if damage != "flip":  # the bit may be one that nothing depends on
        assert again.out.count("leaks: reads the images and videos of ") == 2
    assert pq.read_table(leaks).equals(found)
    assert [_sorted(pq.read_table(path)) for path in digests] == [*map(_sorted, before)]


def _sorted(digests: pa.Table) -> list[dict[str, Any]]:
    """Return what media there are, in some order: their file has none."""
    return sorted(digests.to_pylist(), key=lambda row: (row["row_id"], row["digest"]))


def test_records_that_were_changed_by_hand_are_trained_again(damaged: Ran) -> None:
    """Values tripled in four records would be a confirmed effect."""
    before = damaged.ranking
    for path in sorted((damaged.home / "trials").glob("*.json"))[:4]:
        text = path.read_text()
        path.write_text(text.replace('"taste": 0.', '"taste": 2.'))
    shutil.rmtree(damaged.folder)
    assert _again(damaged).ranking.equals(before)


FAULTS: dict[str, Callable[[], Exception]] = {
    "full": lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
    "read-only": lambda: OSError(errno.EROFS, os.strerror(errno.EROFS)),
    "quota": lambda: OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
}


@pytest.mark.parametrize(
    ("fault", "at"),
    [
        ("full", 30),
        *(
            pytest.param(fault, at, marks=pytest.mark.slow)
            for fault, at in (("full", 3), ("full", 90), ("read-only", 30), ("quota", 30))
        ),
    ],
)
def test_a_storage_that_fails_in_mid_run_ends_it_and_the_same_command_goes_on(
    ray_cluster: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    finished_run: Ran,
    fault: str,
    at: int,
) -> None:
    written = 0
    before = Storage._note

    def refuse(storage: Storage, path: str, file: Path) -> None:
        nonlocal written
        written += "/logs/" not in path
        if written > at:
            raise FAULTS[fault]()
        before(storage, path, file)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "_note", refuse)
        with pytest.raises(StorageFailed, match="the same command goes on"):
            run(tmp_path, UNTRACKED, base=WHOLE)
    assert not list((tmp_path / "storage").rglob("*.part"))
    assert run(tmp_path, UNTRACKED, base=WHOLE).ranking.equals(finished_run.ranking)


@pytest.mark.slow
def test_a_disk_that_is_full_for_a_worker_ends_the_run_and_the_same_command_goes_on(
    ray_cluster: None, tmp_path: Path, mounted: Callable[[Path, str], None]
) -> None:
    """Checkpoints of trials, which workers write, have no room: what the driver writes has."""
    whole, small = tmp_path / "whole", tmp_path / "small"
    notes, trials = tmp_path / "notes", small / "storage" / "trials"
    for folder in (whole, notes, trials):
        folder.mkdir(parents=True)
    model = {"type": "small_family:Hoarder", "place": str(notes)}
    changes = {**UNTRACKED, "trials": {**SMALL["trials"], "model": model, "retries": 0}}
    (notes / "bytes").write_text("10")
    wanted = run(whole, changes).ranking
    mounted(trials, "3m")
    (notes / "bytes").write_text(str(5 << 20))
    where = rf"{trials}/trial-\S+: no space is left on the device"
    with pytest.raises(StorageFailed, match=rf"{where}; .*the same command goes on"):
        run(small, changes)
    assert not list(small.rglob("*.part"))
    subprocess.run(["mount", "-o", "remount,size=60m", str(trials)], check=True)
    assert run(small, changes).ranking.equals(wanted)
    assert {path.suffix for path in trials.iterdir()} == {".json"}, "no checkpoint is left"


def test_a_storage_that_is_removed_in_mid_run_ends_it(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, written = Storage._note, 0

    def remove(storage: Storage, path: str, file: Path) -> None:
        nonlocal written
        written += 1
        before(storage, path, file)
        if written == 40:
            shutil.rmtree(tmp_path / "storage", ignore_errors=True)

    monkeypatch.setattr(Storage, "_note", remove)
    with pytest.raises(SandboxError, match="removed or unmounted") as caught:
        run(tmp_path, UNTRACKED, base=WHOLE)
    assert caught.value.exit_code == 1
    assert not isinstance(caught.value, BadInput)

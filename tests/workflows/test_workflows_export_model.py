"""The model of a pool of a small run: had again by one training, the same as it was."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from damages import DAMAGES
from rich.console import Console
from small_runs import SMALL, Ran, run
from typer.testing import CliRunner

from djsandbox_ray.cli import app
from djsandbox_ray.errors import BadInput, Damaged
from djsandbox_ray.records import Pools
from djsandbox_ray.storage.store import Storage
from djsandbox_ray.workflows.export_model import export_model
from djsandbox_ray.workflows.finished import FinishedRun

POOL = "special_char_ratio/low"
MODEL = {"type": "clip", "arch": "tiny", "batch_size": 32}


@pytest.fixture(scope="module")
def trained(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("trained")
    return run(folder, {"trials": {**SMALL["trials"], "model": MODEL}})


def exported(trained: Ran, *arguments: Any, **options: Any) -> tuple[str, str]:
    """Export; return where the model lies, and what was said."""
    console = Console(file=io.StringIO(), width=200)
    place = export_model("small", *arguments, trained.config.storage, console, **options)
    assert isinstance(console.file, io.StringIO)
    return place, console.file.getvalue()


def best_seed(trained: Ran) -> int:
    trials = trained.parquet().query("pool == @POOL")
    names = [name for name in trials.columns if name.startswith("metric:")]
    return int(trials.assign(score=trials[names].mean(axis=1)).nlargest(1, "score")["seed"].iloc[0])


def test_the_best_trial_gives_the_model_that_the_run_had(trained: Ran, tmp_path: Path) -> None:
    import open_clip

    before = trained.stamps("trials/*")
    out = tmp_path / "out"
    place, said = exported(trained, POOL, output=str(out))
    seed = best_seed(trained)
    assert place == f"runs/small/models/special_char_ratio_low-seed{seed}"
    assert f"copied  {out}" in said
    _, head, card = (out / "README.md").read_text().split("---\n", 2)
    facts = yaml.safe_load(head)
    assert facts["library_name"] == "open_clip"
    assert facts["pipeline_tag"] == "zero-shot-image-classification"
    trial = trained.parquet().query("pool == @POOL and seed == @seed").iloc[0]
    for words in (
        f"pool `{POOL}`, seed {seed}",
        f"{trial['budget']} samples seen",
        "arch: tiny",
        "loss and metrics are those of the run",
        "Against the controls the pool is **",
        "`special_char_ratio`, computed by `special_characters_filter`, between",
    ):
        assert words in card
    for name, value in trial.items():
        if str(name).startswith("metric:"):
            assert f"| {str(name).removeprefix('metric:')} | {value:.6g} |" in card
    model, _ = open_clip.create_model_from_pretrained(f"local-dir:{out}")
    assert model.visual.image_size in (32, (32, 32))
    # Nothing is left of the training, and no record of a trial has changed.
    assert trained.stamps("trials/*") == before


def test_a_model_that_is_there_is_not_trained_again(trained: Ran) -> None:
    place, _ = exported(trained, POOL)
    before = trained.stamps(f"{place}/*")
    again, said = exported(trained, POOL)
    assert again == place
    assert "there already" in said
    assert trained.stamps(f"{place}/*") == before
    other = 1 - best_seed(trained)
    assert exported(trained, POOL, seed=other)[0].endswith(f"seed{other}")


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "exported.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_model_that_is_not_what_was_written_is_named_and_neither_copied_nor_replaced(
    trained: Ran, tmp_path: Path, damage: str, name: str
) -> None:
    place, _ = exported(trained, POOL)
    file = trained.home / place / name
    before = file.read_bytes()
    try:
        DAMAGES[damage](file)
        changed = trained.stamps(f"{place}/*")
        with pytest.raises(Damaged, match=rf"/{name} .*; remove the folder .*/{place}, and the"):
            exported(trained, POOL, output=str(tmp_path / "out"))
        assert trained.stamps(f"{place}/*") == changed
        assert not (tmp_path / "out").exists()
    finally:
        file.write_bytes(before)
    assert "there already" in exported(trained, POOL)[1]


def test_what_differs_from_the_run_is_said(trained: Ran) -> None:
    """As it would on other processors: here the record of the run is another one."""
    storage, pool = Storage(trained.config.storage), "special_char_ratio/high"
    trial = trained.parquet().query("pool == @pool and seed == 0").iloc[0]["trial"]
    path = f"trials/{trial}.json"
    record = storage.read_sealed(path)
    kept = storage.read_bytes(path)
    try:
        changed = [*record["reports"][:-1], {**record["reports"][-1], "loss": 1.25}]
        storage.write_sealed(path, {**record, "reports": changed})
        place, _ = exported(trained, pool, seed=0)
    finally:
        storage.write_bytes(path, kept)
    card = storage.read_bytes(f"{place}/README.md").decode()
    assert "numbers differ from those of the run, such as the training loss" in card
    assert "there 1.25" in card


@pytest.mark.parametrize(
    ("pool", "options", "why"),
    [
        ("special_char_ratio/top", {}, "no pool 'special_char_ratio/top'"),
        (POOL, {"seed": 99}, "no trial of 'special_char_ratio/low' with seed 99 was completed"),
        (POOL, {"output": "s3://bucket/x"}, "--output s3://bucket/x: a new or empty folder"),
        (POOL, {"repository": "x"}, "OWNER/NAME is needed"),
    ],
)
def test_what_cannot_be_is_said(trained: Ran, pool: str, options: dict[str, Any], why: str) -> None:
    with pytest.raises(BadInput, match=why):
        exported(trained, pool, **options)


def test_a_folder_that_holds_something_is_refused(trained: Ran, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(BadInput, match="a new or empty folder"):
        exported(trained, POOL, output=str(tmp_path))


def test_a_pool_that_breaks_a_policy_gives_no_model(
    trained: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    found = FinishedRun.pools_with

    def broken(run: FinishedRun, name: str) -> list[tuple[Pools, Any]]:
        return [(pools, replace(pool, breaks=("nsfw",))) for pools, pool in found(run, name)]

    monkeypatch.setattr(FinishedRun, "pools_with", broken)
    with pytest.raises(BadInput, match="breaks a policy, and no model of it is exported: nsfw"):
        exported(trained, POOL)


def test_a_family_that_cannot_is_refused_before_anything(trained: Ran, tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "storage"))
    for name in ("config.yaml", "run.json"):
        storage.write_bytes(f"runs/small/{name}", (trained.folder / name).read_bytes())
    for path in (trained.folder / "jobs").iterdir():
        storage.write_bytes(f"runs/small/jobs/{path.name}", path.read_bytes())
    for path in trained.folder.glob("*assignments.parquet"):
        storage.write_bytes(f"runs/small/{path.name}", path.read_bytes())
    document = yaml.safe_load((trained.folder / "config.yaml").read_text())
    document["trials"]["model"] = SMALL["trials"]["model"]
    storage.write_bytes("runs/small/config.yaml", yaml.safe_dump(document).encode())
    with pytest.raises(BadInput, match="small_family:Taster' cannot be exported: its family has"):
        export_model("small", POOL, storage.url, Console(quiet=True))
    storage.write_bytes("runs/small/config.yaml", b"- no mapping")
    with pytest.raises(BadInput, match="is no configuration"):
        export_model("small", POOL, storage.url, Console(quiet=True))


def test_the_command(trained: Ran) -> None:
    done = CliRunner().invoke(
        app, ["export-model", "small", POOL, "--storage", trained.config.storage]
    )
    assert (done.exit_code, done.exception) == (0, None)
    assert f"model   {trained.config.storage}/runs/small/models/" in done.output
    exports = [json.loads(path.read_text()) for path in trained.folder.rglob("exported.json")]
    assert {one["library"] for one in exports} == {"open_clip"}

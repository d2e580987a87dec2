"""The shipped configurations, run as a user runs them: at toy size, and in full (slow).

In full they must find what was planted; at toy size they must get to their end.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from small_runs import ROOT, said

from djsandbox_ray.config import load_config
from djsandbox_ray.dataset.sample_table import SampleTable
from djsandbox_ray.workflows.foresight.plan import make_plan, plan_table

pytestmark = pytest.mark.integration
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))

TOY = (
    "dataset.samples=600",
    "scorer.dataset.samples=300",
    "scorer.budget=640",
    "evaluation.dataset.samples=60",
    "trials.budget=128",
    "trials.model.batch_size=32",
    "trials.seeds=2",
    "pools.controls=5",
    "tracking={type: none}",
)
"""What makes a shipped configuration small; its structure stays as it is."""
FEWER = {
    "demo": (
        'operators=[{image_text_similarity_filter: {hf_clip: "${scorer}"}}, image_size_filter]',
        "evaluation.aggregate=standardized",  # so small, it guesses: nothing to divide by
    ),
    "llava": (
        "operators=[text_length_filter]",
        "trials.model.base.train.dataset.samples=200",
        "trials.model.base.train.questions.samples=200",
        "trials.model.base.train.samples=256",
        "trials.model.finetune.dataset.samples=60",
        "trials.model.finetune.samples=64",
        "trials.model.finetune.batch_size=32",
        "evaluation.metrics[1].dataset.samples=20",
        "evaluation.metrics[2].dataset.samples=20",
        "evaluation.score=[caption_nll/token]",  # so small, it answers nothing rightly
        "confirm.top=0",
    ),
    "t2v": (
        "dataset.samples=240",
        "operators=[video_motion_score_filter]",
        "trials.model.base.train.dataset.samples=60",
        "trials.model.base.train.samples=128",
        "evaluation.metrics[2].videos=4",
        "evaluation.metrics[2].sampling.steps=2",
        "confirm.top=0",
    ),
    "self_evolution": (
        "dataset.samples=240",
        "trials.budget=64",
        "trials.model.base.train.dataset.samples=60",
        "trials.model.base.train.samples=128",
        "trials.model.objective.solver_steps=10",
        "trials.model.objective.sampling_steps=2",
        "evaluation.metrics[0].videos=4",
        "evaluation.metrics[1].videos_per_prompt=1",
    ),
    # Every trial has to form a group.
    "clip_multi_worker": ("pools.self_tests=false", "confirm.top=0"),
}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_can_be_planned(
    config: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    if "../shared/data" in config.read_text():
        request.getfixturevalue("shared_data")
    monkeypatch.chdir(ROOT)
    made = make_plan(load_config(str(config), (), str(tmp_path)))
    assert made["trials_to_run"] >= (2 if made["pools"] else 0)
    assert not any(job["done"] for job in made["jobs"])


def test_a_chain_is_planned_stage_by_stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    config = load_config("configs/self_evolution.yaml", (), str(tmp_path))
    made = make_plan(config)
    (stage,) = made["stages"]
    each = config.trials.budget * 2
    assert [part["name"] for part in stage["parts"]] == [
        "distilled on control/0",
        "self-distilled on video_motion_score/high",
        "self-evolved on video_frames_text_similarity/high",
    ]
    assert all((part["trials"], part["samples"]) == (2, each) for part in stage["parts"])
    assert (stage["trials"], made["samples_to_train"]) == (6, 3 * each)
    flops = [part["flops"] for part in stage["parts"]]
    assert made["flops_to_train"] == pytest.approx(sum(flops))
    assert min(flops) > 0
    assert made["stored"]["samples"] <= 3000
    told = plan_table(made).plain.split("\n")
    assert "trials  6 at most" in told
    assert not any(line.startswith("pools ") for line in told)
    assert sum("    1. distilled on control/0" in line for line in told) == 1
    assert any(re.match(r"time    [\d.]+ CPU-minutes of training", line) for line in told)


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One storage for all small runs: what one has made of the same data, another finds."""
    return tmp_path_factory.mktemp("toys")


@pytest.mark.parametrize(
    "name", ["demo", "llava", "t2v", pytest.param("clip_multi_worker", marks=pytest.mark.slow)]
)
def test_a_small_one_gets_to_its_end_as_a_user_runs_it(name: str, toys: Path) -> None:
    config = f"configs/{name}.yaml"
    words = [word for change in (*TOY, *FEWER[name]) for word in ("--set", change)]
    out = said("run", config, "--storage", str(toys), *words, cwd=ROOT)
    assert "report.html" in out
    run = toys / "runs" / load_config(str(ROOT / config), ()).name
    assert json.loads((run / "run.json").read_text())["state"] == "COMPLETED"
    trials = pd.read_parquet(run / "trials.parquet")
    assert set(trials["state"]) <= {"COMPLETED", "STOPPED"}
    assert len(pd.read_csv(run / "ranking.csv")) >= 3
    page = (run / "report.html").read_text()
    assert "<html" in page
    pictures = run / "figures" / "videos.png"
    assert pictures.exists() == ("Videos that the models made" in page) == (name == "t2v")


def _chain(storage: Path, *changes: str) -> tuple[pd.DataFrame, Path]:
    """Run the chain of stages; return its table, and the folder of the run."""
    words = [word for change in changes for word in ("--set", change)]
    told = said("run", "configs/self_evolution.yaml", "--storage", str(storage), *words, cwd=ROOT)
    assert "evolution.md" in told
    run = storage / "runs" / "self-evolution"
    return pd.read_csv(run / "evolution.csv", index_col="stage"), run


def test_a_small_chain_of_stages_gets_to_its_end_and_is_not_trained_twice(toys: Path) -> None:
    changes = (*TOY, *FEWER["self_evolution"])
    stages, run = _chain(toys, *changes)
    assert stages.index.tolist() == ["distilled", "self-distilled", "self-evolved"]
    assert stages["init"].tolist() == ["base", "distilled", "self-distilled"]
    assert stages["self_evolution"].tolist() == ["no", "no", "yes"]
    assert (stages["seeds"] == 2).all()
    curves = pd.read_parquet(run / "stage_self-evolved_curves.parquet")
    assert {"term:cd", "term:real", "term:reward_image", "term:reward_video"} <= set(curves)
    adapters = sorted(toys.glob("models/stage-*/*/adapter_model.safetensors"))
    assert len(adapters) == 6
    written = [path.stat().st_mtime_ns for path in adapters]
    (run / "jobs" / "evolution.json").unlink()  # as if the driver had been killed at its end
    again, _ = _chain(toys, *changes)
    assert again.equals(stages)
    assert [path.stat().st_mtime_ns for path in adapters] == written


# In full.


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_self_evolution_brings_the_student_nearer_to_real_videos(tmp_path: Path) -> None:
    stages, run = _chain(tmp_path)
    assert (stages["seeds"] == 2).all()
    for stage in ("self-distilled", "self-evolved"):
        curves = pd.read_parquet(run / f"stage_{stage}_curves.parquet")
        assert (curves["term:real"] > 0).all()
    metrics = pd.read_csv(run / "evolution_metrics.csv").set_index(["stage", "metric"])["value"]
    assert metrics["self-evolved", "motion/ratio"] > 0.2


def _run(config: str, storage: Path, *changes: str) -> tuple[pd.DataFrame, Path]:
    words = [word for change in changes for word in ("--set", change)]
    said("run", config, "--storage", str(storage), *words, cwd=ROOT)
    (run,) = (storage / "runs").iterdir()
    return pd.read_csv(run / "ranking.csv", index_col="pool"), run


def _shares(run: Path, label: str) -> pd.DataFrame:
    """Return the table of label shares of the report, in per cent."""
    page = (run / "report.html").read_text()
    part = page[page.index(f"Share of samples by {label}") :]
    rows = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in part.split("<tr>")[1:]]
    header, width = rows[0], len(rows[0])
    body = [row for row in rows[1:] if len(row) == width and "/" in row[0]]
    return pd.DataFrame(body, columns=header).set_index("pool").astype(float)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_demo_finds_the_planted_defects(demo: Path) -> None:
    run = demo / "runs" / "demo"
    ranking = pd.read_csv(run / "ranking.csv", index_col="pool")
    verdict = ranking["verdict"]
    assert verdict["image_text_similarity/high"] == "better"
    assert verdict["image_text_similarity/low"] in ("worse", "stopped")
    assert verdict["self_test/shuffled_statistic"] == "undecided"
    assert verdict["self_test/shuffled_captions"] == "worse"
    assert verdict["special_char_ratio/high"] in ("worse", "stopped")
    confirmed = pd.read_csv(run / "confirmation.csv", index_col="pool")
    assert confirmed.loc["image_text_similarity/high", "verdict"] == "better"
    assert (verdict == "stopped").sum() > 2
    shares = _shares(run, "defect")
    for statistic, defect, share in (
        ("special_char_ratio", "special_characters", 16),
        ("word_rep_ratio", "repeated_words", 14),
    ):
        assert shares.loc[f"{statistic}/high", defect] > 2.5 * share
        assert shares.loc[f"{statistic}/low", defect] == 0
    assert shares.loc["image_text_similarity/high", "mismatched"] < 5
    assert shares.loc["image_text_similarity/low", "mismatched"] > 50


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_t2v_finds_clips_that_stand_still_and_those_with_wrong_captions(tmp_path: Path) -> None:
    ranking, run = _run("configs/t2v.yaml", tmp_path)
    verdict = ranking["verdict"]
    assert verdict["video_frames_text_similarity/high"] == "better"
    assert verdict["self_test/shuffled_statistic"] == "undecided"
    assert verdict["self_test/shuffled_captions"] == "worse"
    assert verdict["self_test/first_frames"] == "worse"
    shares = _shares(run, "defect")  # a fifth of all clips each
    assert shares.loc["video_motion_score/low", "static"] > 40
    assert shares.loc["video_motion_score/high", "static"] < 5
    assert shares.loc["video_frames_text_similarity/low", "mismatched"] > 30
    assert shares.loc["video_frames_text_similarity/high", "mismatched"] < 10
    # Whoever is taught by clips that stand still makes videos in which less moves.
    trials = pd.read_parquet(run / "trials.parquet").groupby("pool")["metric:motion/energy"].mean()
    controls = trials[trials.index.str.startswith("control/")]
    assert trials["self_test/first_frames"] < controls.mean()
    assert (run / "figures" / "videos.png").read_bytes().startswith(b"\x89PNG")
    # All clips are as long and as large: nothing is trained on that.
    assert {pool.split("/")[0] for pool in ranking.index} <= {
        *("video_frames_text_similarity", "video_motion_score", "self_test"),
    }
    shares = _shares(run, "defect")
    assert shares.loc["video_motion_score/low", "static"] > 55
    assert shares.loc["video_motion_score/middle", "static"] < 5
    assert shares.loc["video_frames_text_similarity/low", "mismatched"] > 30
    assert shares.loc["video_frames_text_similarity/high", "mismatched"] < 5
    assert list((run / "recipes").glob("*.yaml"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_probe_analyze_refine_finds_the_planted_truth(tmp_path: Path) -> None:
    ranking, run = _run("configs/probe_analyze_refine.yaml", tmp_path)
    verdict = ranking["verdict"]
    assert set(ranking.index[verdict == "better"]) == {
        "image_text_similarity/high",
        "image_sizes/high",
    }
    both = "image_text_similarity/high&image_sizes/high"
    combined = pd.read_csv(run / "combination_ranking.csv", index_col="pool")
    assert combined.index[0] == both
    assert combined.loc[both, "verdict"] == "better"
    # Wrong captions mask what good images are worth: together they do more than apart.
    effects = pd.read_csv(run / "interactions.csv").query("kind == 'interaction'")
    assert effects["verdict"].tolist() == ["helps"]
    accepted = json.loads((run / "acceptance.json").read_text())
    assert accepted["differing"] == 0
    kept = _kept_by_recipe(tmp_path, run)
    assert accepted["kept"] == kept["kept"].sum()
    clean = kept["defect"] == "clean"
    assert kept[clean]["kept"].mean() >= 0.9
    assert kept[~clean]["kept"].mean() <= 0.2
    assert "## Do combinations help" in (run / "insights.md").read_text()
    repetition = pd.read_csv(run / "repetition.csv")
    assert set(repetition["strategy"]) == {"repeat", "expand", "random"}
    assert (repetition.groupby("factor")["samples"].nunique() == 1).all()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for words in _commands_of_the_docs(tmp_path):
        said(*words, cwd=elsewhere)
    assert (elsewhere / "recipe.yaml").read_bytes() == next(
        (run / "recipes").glob("*.yaml")
    ).read_bytes()
    assert list((elsewhere / "kept").glob("*.tar"))


@pytest.mark.slow
def test_iterate_finds_one_defect_after_the_other_and_ends_by_its_target(tmp_path: Path) -> None:
    _, run = _run("configs/iterate.yaml", tmp_path)
    rounds = json.loads((run / "run.json").read_text())["rounds"]
    assert len(rounds) == 3
    assert rounds[-1]["then"] == "done: any of the targets hold"
    held = [item["target"] for item in rounds[-1]["targets"] if item["holds"]]
    assert held == ["ranking.better == 0"]
    verdicts = pd.read_csv(run / "round-2" / "ranking.csv")["verdict"]
    assert "better" not in verdicts.tolist()
    kept = _settings(run / "round-2")["pools"]["within"]
    assert [item["statistic"] for item in kept] == ["image_text_similarity", "image_sizes"]
    assert [item["statistic"] for item in _settings(run / "round-1")["pools"]["within"]] == [
        "image_text_similarity"
    ]
    # The recipe of a round stands for those before it, too: both defects are gone.
    for folder, gone in (
        (run, ["mismatched"]),
        (run / "round-1", ["mismatched", "low_contrast"]),
    ):
        rows = _kept_by_recipe(tmp_path, folder)
        assert rows[rows["defect"] == "clean"]["kept"].mean() >= 0.85
        for defect in gone:
            assert rows[rows["defect"].str.contains(defect)]["kept"].mean() <= 0.15
    assert not list((run / "round-2").glob("recipes/*"))


def _settings(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((folder / "config.yaml").read_text())
    return found


def _commands_of_the_docs(storage: Path) -> list[list[str]]:
    """Return what docs/workflow.md shows for the finished run, in that storage."""
    text = (ROOT / "docs" / "workflow.md").read_text()
    lines = [line.split("#")[0] for line in text.splitlines() if line.startswith("djsandbox ")]
    shown = [shlex.split(line)[1:] for line in lines if " run " not in line]
    return [
        [word.replace("sandbox/", f"{storage}/") for word in words] + ["--storage", str(storage)]
        for words in shown
    ]


def _kept_by_recipe(storage: Path, run: Path) -> pd.DataFrame:
    """Return what the generator says of every row, and whether the recipe's ranges keep it."""
    (recipe,) = (run / "recipes").glob("*.evidence.json")
    evidence = json.loads(recipe.read_text())
    home = storage / "datasets" / evidence["dataset"]["id"]
    table = SampleTable(str(home / "samples.lance"))
    metas = table.scan(0, table.rows, ["meta"])["meta"].to_pylist()
    rows = pd.DataFrame({"defect": [json.loads(meta)["defect"] for meta in metas], "kept": True})
    tables = [pd.read_parquet(p).set_index("row_id") for p in (home / "stats").glob("*.parquet")]
    statistics = pd.concat(tables, axis=1)
    for limits in evidence["retention"]["ranges"]:
        values = statistics[limits["statistic"]]
        low, high = limits["low"], limits["high"]
        rows["kept"] &= (values >= low if low is not None else True) & (
            values <= high if high is not None else True
        )
    return rows


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_several_workers_train_every_trial_under_deepspeed(tmp_path: Path) -> None:
    ranking, run = _run("configs/clip_multi_worker.yaml", tmp_path)
    assert ranking.loc["image_text_similarity/high", "verdict"] == "better"
    assert ranking.loc["self_test/shuffled_captions", "verdict"] == "worse"
    trials = pd.read_parquet(run / "trials.parquet")
    assert set(trials["state"]) <= {"COMPLETED", "STOPPED"}


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_llava_finds_the_captions_of_other_images(tmp_path: Path) -> None:
    ranking, run = _run("configs/llava.yaml", tmp_path)
    verdict = ranking["verdict"]
    assert verdict["image_text_similarity/high"] == "better"
    assert verdict["self_test/shuffled_captions"] == "worse"
    assert verdict["self_test/shuffled_statistic"] == "undecided"
    shares = _shares(run, "defect")
    assert shares.loc["image_text_similarity/high", "mismatched"] < 10
    assert shares.loc["image_text_similarity/low", "mismatched"] > 50
    assert list((run / "recipes").glob("*.yaml"))


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.shared_data
def test_cifar10_finds_the_shuffled_captions(shared_data: Path, tmp_path: Path) -> None:
    ranking, run = _run("configs/cifar10_captions.yaml", tmp_path)
    verdict = ranking["verdict"]
    assert verdict["image_text_similarity/high"] == "better"
    assert verdict["image_text_similarity/low"] == "worse"
    assert verdict["self_test/shuffled_statistic"] == "undecided"
    assert verdict["self_test/shuffled_captions"] == "worse"
    assert not any(pool.startswith("aspect_ratios/") for pool in ranking.index)
    shares = _shares(run, "shuffled")
    assert shares.loc["image_text_similarity/high", "True"] < 25
    assert shares.loc["image_text_similarity/low", "True"] > 55

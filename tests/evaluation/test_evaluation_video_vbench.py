"""VBench on a model that draws: computed here, by VBench itself, or both; and scored again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tiny_models
from made_videos import SMALL, DrawsSquares, write_cache, write_prompts, write_videos
from pydantic import ValidationError

from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.answer_store import AnswerStore, Unanswered
from djsandbox_ray.evaluation.data import NO_SET
from djsandbox_ray.evaluation.suite import Suite
from djsandbox_ray.evaluation.video.board import DIMENSIONS, averages, part_of
from djsandbox_ray.evaluation.video.dimensions import mean_value, temporal_flickering
from djsandbox_ray.evaluation.video.stored_videos import StoredVideos, VideoFolder
from djsandbox_ray.evaluation.video.vbench import NATIVE, Vbench, VbenchConfig
from djsandbox_ray.evaluation.video.video_files import video_frames
from djsandbox_ray.outside.environment import FOLDER
from djsandbox_ray.storage.store import Storage

STAND_IN = Path(__file__).parents[1] / "integration" / "stand_ins" / "vbench"
FLICKERING = ("temporal_flickering",)


@pytest.fixture(autouse=True)
def node(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path_factory.getbasetemp() / "node"))


@pytest.fixture
def store(tmp_path: Path) -> AnswerStore:
    return AnswerStore(Storage(str(tmp_path / "storage")), "training-1", 64)


def settings(
    folder: Path, dimensions: Sequence[str] | str = FLICKERING, **more: Any
) -> dict[str, Any]:
    names = tuple(DIMENSIONS) if isinstance(dimensions, str) else tuple(dimensions)
    path = folder / "prompts.json"
    prompts = str(path) if path.exists() else write_prompts(path, names)
    given = {"type": "vbench", "prompts": prompts, "videos_per_prompt": 2, "sampling": SMALL}
    return {**given, "dimensions": dimensions, **more}


def suite(folder: Path, dimensions: Sequence[str] | str = FLICKERING, **more: Any) -> Suite:
    config = VbenchConfig.model_validate(settings(folder, dimensions, **more))
    return Suite([config], [NO_SET])


def outside(folder: Path, trouble: str = "") -> dict[str, Any]:
    env = {"STAND_IN": trouble}
    return {"cache": write_cache(folder / "cache"), "files": [str(STAND_IN)], "env": env}


def test_flickering_is_of_the_files_and_everything_is_made_once(
    tmp_path: Path, store: AnswerStore
) -> None:
    maker = DrawsSquares()
    judged = suite(tmp_path, keep="all")
    found = judged.run(maker, store)
    assert list(found) == ["vbench/temporal_flickering"]
    assert len(maker.made) == len(set(maker.made)) == 4
    evaluator = Vbench(VbenchConfig.model_validate(settings(tmp_path)))
    videos = StoredVideos(store, evaluator.config.sampling)
    values = [
        temporal_flickering(video_frames(data, "a")) for _, data in videos.each(evaluator.wanted())
    ]
    assert found["vbench/temporal_flickering"] == pytest.approx(mean_value(values))
    again = DrawsSquares()
    assert judged.run(again, store) == found
    assert again.made == []


def test_a_video_that_stands_still_is_the_best_of_all(tmp_path: Path, store: AnswerStore) -> None:
    moving = suite(tmp_path).run(DrawsSquares(), store)
    other = AnswerStore(store.storage, "training-2", 64)
    still = suite(tmp_path).run(DrawsSquares(still=True), other)
    assert moving["vbench/temporal_flickering"] < 0.99
    assert still["vbench/temporal_flickering"] == 1
    evaluator = Vbench(VbenchConfig.model_validate(settings(tmp_path)))
    assert [line for line in evaluator.remarks(NO_SET) if "stands still" in line]
    assert evaluator.sees(evaluator.metrics()[0]) == frozenset()


def test_what_is_measured_stays_and_most_videos_go(tmp_path: Path, store: AnswerStore) -> None:
    write_prompts(tmp_path / "prompts.json", ("temporal_flickering", "scene"))
    judged = suite(tmp_path, keep="none")
    found = judged.run(DrawsSquares(), store)
    (folder,) = store.storage.names("videos/training-1/64")
    names = store.storage.names(f"videos/training-1/64/{folder}")
    assert [name.partition("-")[0] for name in names] == ["temporal_flickering"]
    assert judged.rescored({"loss": 1.0, **found}, store) == {"loss": 1.0, **found}
    again = DrawsSquares()
    assert judged.run(again, store) == found  # a trial that was cut off before its report
    assert again.made == []
    other = suite(tmp_path, ("temporal_flickering", "scene"), official=outside(tmp_path))
    with pytest.raises(Unanswered):
        other.rescored(found, store)


def test_another_way_to_measure_needs_no_training(
    tmp_path: Path, store: AnswerStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_prompts(tmp_path / "prompts.json", ("temporal_flickering", "color"))
    judged = suite(tmp_path, keep="all")
    found = judged.run(DrawsSquares(), store)
    other = suite(tmp_path, keep="all", implementation="official", official=outside(tmp_path))
    assert other.identity() == judged.identity()
    assert other.scored != judged.scored
    again = other.rescored(found, store)
    assert again["vbench/temporal_flickering"] != found["vbench/temporal_flickering"]
    asked, scored = judged.identity(), judged.scored
    monkeypatch.setattr(Vbench, "VERSION", 2)
    newer = suite(tmp_path, keep="all")
    assert newer.identity() == asked
    assert newer.scored != scored
    for change in ({"sampling": {**SMALL, "steps": 3}}, {"videos_per_prompt": 1}, {"limit": 1}):
        assert suite(tmp_path, **change).identity() != asked


def test_all_sixteen_by_vbench_itself_and_the_averages(tmp_path: Path, store: AnswerStore) -> None:
    maker = DrawsSquares()
    official = outside(tmp_path, "unseen")
    given = settings(tmp_path, "all", official=official, videos_per_prompt=1)
    config = VbenchConfig.model_validate(given)
    judged = Suite([config], [NO_SET])
    found = judged.run(maker, store)
    values = {name: found[f"vbench/{name}"] for name in DIMENSIONS}
    for name, value in averages(values).items():
        assert found[f"vbench/{name}"] == value
    assert found["vbench/color_seen"] == 0.5
    assert len(maker.made) == 1 + 16  # one prompt is for all
    assert judged.rescored(found, store) == found
    known = {metric.name: metric for metric in Vbench(config).metrics()}
    assert [name for name, metric in known.items() if metric.scored] == ["vbench/total"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    torch = pytest.importorskip("torch")
    from transformers import ViTConfig, ViTModel

    folder = tmp_path_factory.mktemp("weights")
    texts = ["oil painting", "a red square"]
    clip = str(tiny_models.clip_for(texts, folder))
    layers = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = ViTConfig(**layers, intermediate_size=64, image_size=32, patch_size=8)
    ViTModel(config, add_pooling_layer=False).save_pretrained(folder / "dino")
    head = {"weight": torch.full((1, 16), 0.1), "bias": torch.tensor([5.0])}
    torch.save(head, folder / "head.pth")
    return {
        "dino": str(folder / "dino"),
        "clip_b32": clip,
        "clip_l14": clip,
        "aesthetic_head": str(folder / "head.pth"),
    }


def test_five_dimensions_are_measured_here(
    tmp_path: Path, store: AnswerStore, weights: dict[str, str]
) -> None:
    moving = suite(tmp_path, tuple(NATIVE), weights=weights, implementation="native")
    found = moving.run(DrawsSquares(), store)
    assert set(found) == {f"vbench/{name}" for name in NATIVE}
    assert 0 < found["vbench/subject_consistency"] < 1
    other = AnswerStore(store.storage, "training-2", 64)
    still = moving.run(DrawsSquares(still=True), other)
    for name in ("subject_consistency", "background_consistency", "temporal_flickering"):
        assert still[f"vbench/{name}"] == pytest.approx(1, abs=1e-6)
    assert 0.4 < found["vbench/aesthetic_quality"] < 0.6


def test_each_dimension_is_measured_where_it_can_be(
    weights: dict[str, str], tmp_path: Path
) -> None:
    given = settings(tmp_path, "quality", official=outside(tmp_path))
    config = VbenchConfig.model_validate({**given, "weights": {"dino": weights["dino"]}})
    assert config.by("native") == ("subject_consistency", "temporal_flickering")
    assert set(config.by("official")) == set(part_of("quality")) - set(config.by("native"))
    config = VbenchConfig.model_validate({**given, "implementation": "official"})
    assert config.by("native") == ()
    known = {metric.name: metric for metric in Vbench(config).metrics()}
    assert [name for name, metric in known.items() if metric.scored] == ["vbench/quality"]
    assert Vbench(config).sees(known["vbench/dynamic_degree"]) == {"frames"}
    for name in ("quality", "motion_smoothness"):
        assert Vbench(config).sees(known[f"vbench/{name}"]) == frozenset()
    whole = Vbench(VbenchConfig.model_validate({**given, "dimensions": "all"}))
    seen = {metric.name: whole.sees(metric) for metric in whole.metrics()}
    assert [name for name, found in seen.items() if "frames" in found] == ["vbench/dynamic_degree"]
    for name in ("scene", "semantic", "total", "uniform"):
        assert seen[f"vbench/{name}"] == {"captions"}
    named = VbenchConfig.model_validate({**settings(tmp_path), "name": "ours"})
    assert [metric.name for metric in Vbench(named).metrics()] == ["ours/temporal_flickering"]
    assert Vbench(named).metrics()[0].scored


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"dimensions": ["flickering"]}, "did you mean 'temporal_flickering'"),
        ({"dimensions": []}, "names are needed, each once"),
        ({"dimensions": ["color", "color"]}, "names are needed, each once"),
        (
            {"dimensions": "all"},
            "official: is needed for subject_consistency, .* weights.dino would do",
        ),
        (
            {"dimensions": ["color"]},
            r"official: is needed for color: VBench's environment and cache \[",
        ),
        (
            {"dimensions": ["color", "scene"], "implementation": "native"},
            "native: color, scene are not computed here",
        ),
        (
            {"dimensions": ["aesthetic_quality"], "implementation": "native"},
            "aesthetic_quality takes weights.clip_l14, weights.aesthetic_head",
        ),
        ({"videos_per_prompt": 6}, "less than or equal to 5"),
        ({"sampling": {"frames": 1}}, "greater than or equal to 2"),
    ],
)
def test_what_cannot_be_configured(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        VbenchConfig.model_validate({**settings(tmp_path), **changed})


def test_what_is_not_there_is_said_before_training(tmp_path: Path) -> None:
    lost = {"weights": {"dino": str(tmp_path / "nowhere")}, "dimensions": ["subject_consistency"]}
    write_prompts(tmp_path / "prompts.json")
    with pytest.raises(BadInput, match=r"vbench: weights.dino: '.*nowhere' does not exist"):
        suite(tmp_path, **lost)
    program = outside(tmp_path)
    (tmp_path / "cache" / "amt_model" / "amt-s.pth").unlink()
    with pytest.raises(BadInput, match=r"official\.cache: 1 of 1 files .*amt-s\.pth"):
        suite(tmp_path, ("motion_smoothness",), official=program)
    entry = {"prompt_en": "a", "dimension": ["temporal_flickering"]}
    (tmp_path / "prompts.json").write_text(json.dumps([entry]))
    with pytest.raises(BadInput, match="prompts: none is for color"):
        suite(tmp_path, ("color",), official=outside(tmp_path))


def test_who_makes_no_videos_is_told(tmp_path: Path, store: AnswerStore) -> None:
    model: Any = object()
    with pytest.raises(BadInput, match="it asks for videos, but this model makes none"):
        suite(tmp_path).run(model, store)
    with pytest.raises(BadInput, match="the model family is to say them"):
        suite(tmp_path).run(DrawsSquares())


def test_two_evaluators_share_what_is_made_in_the_same_way(
    tmp_path: Path, store: AnswerStore
) -> None:
    configs = [
        VbenchConfig.model_validate({**settings(tmp_path), "name": name, "keep": keep})
        for name, keep in (("one", "none"), ("other", "all"))
    ]
    maker = DrawsSquares()
    found = Suite(configs, [NO_SET, NO_SET]).run(maker, store)
    assert found["one/temporal_flickering"] == found["other/temporal_flickering"]
    assert len(maker.made) == 4
    wanted = Vbench(configs[1]).wanted()
    assert len(list(StoredVideos(store, configs[1].sampling).each(wanted))) == 4  # one keeps all


def test_a_folder_is_measured_as_a_model_is(tmp_path: Path, store: AnswerStore) -> None:
    evaluator = Vbench(VbenchConfig.model_validate(settings(tmp_path)))
    folder = write_videos(tmp_path / "made", evaluator.wanted())
    found = evaluator.evaluate(VideoFolder(Path(folder)), NO_SET)
    assert found == suite(tmp_path).run(DrawsSquares(), store)

"""VBench's file of prompts is read whole, chosen from, and refused where something is missing."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from made_videos import MORE, write_prompts

from djsandbox_ray.errors import BadInput
from djsandbox_ray.evaluation.video.board import DIMENSIONS
from djsandbox_ray.evaluation.video.prompts import (
    VideoPrompt,
    chosen_prompts,
    read_prompts,
    videos_of,
)

COUNTS = {
    "human_action": 100,
    "temporal_style": 100,
    "overall_consistency": 93,
    "aesthetic_quality": 93,
    "imaging_quality": 93,
    "appearance_style": 90,
    "scene": 86,
    "background_consistency": 86,
    "color": 85,
    "spatial_relationship": 84,
    "multiple_objects": 82,
    "object_class": 79,
    "temporal_flickering": 75,
    "subject_consistency": 72,
    "dynamic_degree": 72,
    "motion_smoothness": 72,
}


def test_vbenchs_own_prompts(shared_data: Path) -> None:
    path = str(shared_data / "benchmarks" / "vbench" / "VBench_full_info.json")
    prompts = read_prompts(path)
    assert len(prompts) == 946
    assert Counter(name for one in prompts for name in one.dimensions) == COUNTS
    assert len(videos_of(prompts, 5)) == 944 * 5  # two texts stand there twice
    assert [one.entry() for one in prompts] == json.loads(Path(path).read_text())
    assert {len(videos_of(prompts, 1, name)) for name in COUNTS} == set(COUNTS.values())
    some = chosen_prompts(prompts, tuple(DIMENSIONS), 3)
    assert Counter(name for one in some for name in one.dimensions) == dict.fromkeys(COUNTS, 3)


def test_a_limit_takes_the_same_ones_and_no_more(tmp_path: Path) -> None:
    prompts = read_prompts(write_prompts(tmp_path / "own.json", each=4))
    few = chosen_prompts(prompts, ("color", "scene"), 2)
    assert few == chosen_prompts(list(prompts), ("color", "scene"), 2)
    assert Counter(name for one in few for name in one.dimensions) == {"color": 2, "scene": 2}
    for one in few:
        assert set(one.more) <= set(one.dimensions)
    assert len(chosen_prompts(prompts, ("color",))) == 4
    with pytest.raises(BadInput, match="none is for scene"):
        chosen_prompts([VideoPrompt("a", ("color",), {})], ("scene",))


def entry(**changed: Any) -> dict[str, Any]:
    return {"prompt_en": "a", "dimension": ["dynamic_degree"], **changed}


def looking(name: str, more: Any) -> dict[str, Any]:
    return entry(dimension=[name], auxiliary_info={name: more})


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({}, "is to be a list of objects"),
        ([], "is to be a list of objects"),
        (["a"], r"own.json\[0\]: an object is needed, not str"),
        ([entry(prompt_en=None)], "no text under 'prompt_en'"),
        ([entry(prompt_en="a/b")], r"\[0\]: the prompt 'a/b' holds '/'"),
        ([entry(prompt_en="a" * 241)], "has 241 bytes"),
        ([entry(dimension=[])], "a list of dimensions is needed"),
        ([entry(dimension=["dynamic"])], "unknown dimension 'dynamic'; did you mean 'dynamic_d"),
        ([entry(), entry()], r"\[1\]: 'a' stands for dynamic_degree in \[0\], too"),
        ([entry(auxiliary_info=[])], "an object is needed under 'auxiliary_info'"),
        ([entry(dimension=["color"])], r"color looks for 'color' in auxiliary_info\.color"),
        (
            [looking("multiple_objects", {"object": "cat"})],
            "multiple_objects looks for 'object', two with ' and '",
        ),
        ([looking("scene", {"scene": "alley"})], r"scene\.scene"),
        ([entry(dimension=["spatial_relationship"])], "'object_a', 'object_b' and 'relationship'"),
    ],
)
def test_what_is_no_file_of_prompts(tmp_path: Path, entries: Any, said: str) -> None:
    path = tmp_path / "own.json"
    path.write_text(json.dumps(entries))
    with pytest.raises(BadInput, match=said):
        read_prompts(str(path))


def test_what_dimensions_look_for_may_be_there(tmp_path: Path) -> None:
    path = tmp_path / "own.json"
    path.write_text(json.dumps([looking(name, more) for name, more in MORE.items()]))
    assert [one.dimensions[0] for one in read_prompts(str(path))] == list(MORE)
    path.write_text("[")
    with pytest.raises(BadInput, match="cannot be read"):
        read_prompts(str(path))
    with pytest.raises(BadInput, match="cannot be read"):
        read_prompts(str(tmp_path / "nowhere.json"))

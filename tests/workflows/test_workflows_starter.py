"""``djsandbox init`` on pairs: a configuration that trains. Others: ``..._recipes.py``."""

from __future__ import annotations

import resource

import pytest
from held_data import PAIRS, ROWS, caption, folder, jsonl, llava, photos, picture, webdataset
from typer.testing import CliRunner

from djsandbox_ray.cli import app
from djsandbox_ray.config import load_config
from djsandbox_ray.errors import BadInput
from djsandbox_ray.workflows.foresight.plan import make_plan


@pytest.mark.parametrize("write", PAIRS, ids=lambda write: write.__name__)
def test_a_layout_is_recognised_and_its_configuration_accepted(init, tmp_path, write) -> None:
    write(tmp_path / "my data")
    said = init(str(tmp_path / "my data"))
    assert f"layout: {PAIRS[write]}\n" in said
    first = "a photo of a even" if write is folder else caption(0)
    assert f"first caption: {first!r}" in said
    config = load_config("my-data.yaml", (), str(tmp_path / "sandbox"))
    assert config.dataset.type == PAIRS[write]
    fifth, half = ROWS // 5, ROWS // 2
    # Where the names of two folders are the captions, the rows are as many of one as of the other.
    rows = (half - fifth // 2, half + fifth // 2) if write is folder else (0, fifth)
    assert config.evaluation.dataset.rows == rows
    (metric,) = config.evaluation.metrics
    assert metric.type == ("zero_shot" if write is folder else "retrieval")
    assert make_plan(config)


@pytest.mark.slow
@pytest.mark.parametrize("write", PAIRS, ids=lambda write: write.__name__)
def test_what_is_written_runs(ray_cluster: None, init, tmp_path, write) -> None:
    write(tmp_path / "data")
    init(str(tmp_path / "data"), "--output", "my.yaml")
    sets = ["trials.budget=64", "trials.seeds=2", "pools.controls=5", "pools.self_tests=false"]
    sets += ["confirm.top=0", "tracking.type=none"]
    arguments = ["run", "my.yaml", *(word for one in sets for word in ("--set", one))]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output


def test_nothing_is_overwritten(init, tmp_path) -> None:
    jsonl(tmp_path / "data")
    init(str(tmp_path / "data"))
    written = (tmp_path / "data.yaml").read_text()
    with pytest.raises(BadInput, match=r"'data\.yaml' exists and is not overwritten"):
        init(str(tmp_path / "data"))
    assert (tmp_path / "data.yaml").read_text() == written


def test_nothing_is_left_of_a_file_that_cannot_be_written_whole(init, tmp_path) -> None:
    jsonl(tmp_path / "data")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, before[1]))
    try:
        with pytest.raises(BadInput, match=r"'data\.yaml' cannot be written: File too large"):
            init(str(tmp_path / "data"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not (tmp_path / "data.yaml").exists()
    init(str(tmp_path / "data"))


def test_data_with_one_text_are_refused(init, tmp_path) -> None:
    (tmp_path / "data").mkdir()
    for name in photos(tmp_path / "data"):
        (tmp_path / "data" / name).with_suffix(".txt").write_text("a thing")
    with pytest.raises(BadInput, match=r"all of the 240 rows .* have the text 'a thing'"):
        init(str(tmp_path / "data"))
    assert not list(tmp_path.glob("*.yaml"))


def test_a_list_that_belongs_to_no_tar_is_another_layout(init, tmp_path) -> None:
    webdataset(tmp_path / "data")
    (tmp_path / "data" / "test.parquet").write_bytes(b"of no tar")
    with pytest.raises(BadInput, match="holds several layouts, parquet, webdataset"):
        init(str(tmp_path / "data"))


def test_what_is_not_recognised_says_what_is(init, tmp_path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "notes.doc").write_text("x")
    with pytest.raises(BadInput, match=r"known are webdataset: \.tar"):
        init(str(tmp_path / "data"))
    (tmp_path / "data" / "a.csv").write_text("x")
    (tmp_path / "data" / "a.jsonl").write_text("{}")
    with pytest.raises(BadInput, match="holds several layouts, csv, jsonl"):
        init(str(tmp_path / "data"))
    with pytest.raises(BadInput, match=r"none of its first rows can be used: a\.jsonl#0: bad_text"):
        init(str(tmp_path / "data" / "a.jsonl"))
    assert not list(tmp_path.glob("*.yaml"))


def test_too_few_samples_are_an_error(init, tmp_path) -> None:
    (tmp_path / "data" / "one").mkdir(parents=True)
    (tmp_path / "data" / "one" / "1.jpg").write_bytes(picture(1))
    (tmp_path / "data" / "one" / "1.txt").write_text("one")
    with pytest.raises(BadInput, match="1 samples are too few"):
        init(str(tmp_path / "data"))


def test_of_several_lists_of_json_those_of_a_layout_are_named(init, tmp_path) -> None:
    llava(tmp_path / "data")
    (tmp_path / "data" / "captions.json").write_text('{"images": [], "annotations": []}')
    with pytest.raises(BadInput, match=r"there are captions\.json, instruct\.json"):
        init(str(tmp_path / "data"))


def test_other_json_among_images_is_no_layout(init, tmp_path) -> None:
    folder(tmp_path / "data")
    (tmp_path / "data" / "classes.json").write_text('["even", "odd"]')
    assert "layout: folder" in init(str(tmp_path / "data"))

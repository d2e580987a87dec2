"""Folders of models and word lists by URL: the same operator as with a local one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from s3_server import S3Server

from djsandbox_ray.errors import BadInput
from djsandbox_ray.stats.fused import FusedOperators
from djsandbox_ray.stats.models import is_url, on_this_node
from djsandbox_ray.stats.needs import check_needs
from djsandbox_ray.stats.operators import OperatorSpec, operator_id, parse_process, resolve_paths
from djsandbox_ray.storage.cache import FOLDER
from djsandbox_ray.storage.store import Storage

TEXTS = ["this is bad and bad", "a good day"]


@pytest.fixture
def places(s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Give the same word list in a folder and in a bucket."""
    monkeypatch.setenv(FOLDER, str(tmp_path / "cache"))
    (tmp_path / "words").mkdir()
    (tmp_path / "words" / "flagged_words.json").write_text(json.dumps({"en": ["bad"]}))
    storage = Storage(f"{s3.url}/{tmp_path.name}")
    storage.upload(tmp_path / "words", "lists/words")
    return str(tmp_path / "words"), f"{storage.url}/lists/words"


def _spec(folder: str) -> OperatorSpec:
    (spec,) = parse_process([{"flagged_words_filter": {"flagged_words_dir": folder}}])
    return spec


def test_an_operator_is_the_same_wherever_its_files_lie(places: tuple[str, str]) -> None:
    here, there = map(_spec, places)
    check_needs([here, there])
    assert operator_id(here) == operator_id(there)
    assert resolve_paths(there) == there, "a URL is no path of this machine"


def test_an_operator_reads_what_was_brought(places: tuple[str, str]) -> None:
    spec = _spec(places[1])
    with on_this_node(spec.params) as params:
        local = OperatorSpec(spec.name, params)
        assert Path(params["flagged_words_dir"]).is_dir()
        (computed,) = FusedOperators([local])(TEXTS, None, [0])
    assert computed.columns["flagged_words_ratio"].tolist() == pytest.approx([0.4, 0.0])


def test_a_url_without_files_is_an_unmet_need(places: tuple[str, str]) -> None:
    spec = _spec(places[1] + "-none")
    with pytest.raises(BadInput, match=r"operators\[0\].flagged_words_filter: needs"):
        check_needs([spec])
    with pytest.raises(BadInput, match="there is no such folder"):
        operator_id(spec)
    (model,) = parse_process([{"image_text_similarity_filter": {"hf_clip": places[1] + "-none"}}])
    with pytest.raises(BadInput, match="hf_clip: a local model folder, or one at a URL"):
        check_needs([model])


def test_only_parameters_that_hold_folders_are_followed() -> None:
    assert is_url("hf_clip", "s3://bucket/clip")
    assert is_url("stopwords_dir", "memory://words")
    assert not is_url("hf_clip", "openai/clip-vit-base-patch32")
    assert not is_url("api_endpoint", "http://127.0.0.1/v1")
    assert not is_url("hf_clip", None)

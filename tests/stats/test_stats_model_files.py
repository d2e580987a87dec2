"""Model files that operators find by name: looked for truthfully, and part of the id."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from pydantic import ValidationError

from djsandbox_ray.errors import BadInput
from djsandbox_ray.identity import content_id
from djsandbox_ray.stats import datajuicer, model_files
from djsandbox_ray.stats.compute import StatisticsConfig
from djsandbox_ray.stats.model_files import TOKENIZER, find, find_hub
from djsandbox_ray.stats.models import content_digest
from djsandbox_ray.stats.needs import needs
from djsandbox_ray.stats.operators import OperatorSpec, operator_id

PERPLEXITY = OperatorSpec("perplexity_filter")
TOKENS = OperatorSpec("alphanumeric_filter", {"tokenization": True})


@pytest.fixture
def models(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "en.arpa.bin").write_bytes(b"ngrams")
    (folder / "en.sp.model").write_bytes(b"pieces")
    return folder


def missing(spec: OperatorSpec, models: Path) -> str:
    return " ".join(need.what for need in needs(spec, str(models)) if not need.there)


def test_what_a_model_file_holds_is_part_of_the_id(models: Path, tmp_path: Path) -> None:
    before = operator_id(PERPLEXITY, str(models))
    copy = shutil.copytree(models, tmp_path / "copy")
    assert operator_id(PERPLEXITY, str(copy)) == before, "wherever the folder lies"
    (copy / "en.arpa.bin").write_bytes(b"other ngrams")
    assert operator_id(PERPLEXITY, str(copy)) != before
    assert operator_id(OperatorSpec("text_length_filter"), str(models)) == operator_id(
        OperatorSpec("text_length_filter")
    )


def test_the_variable_of_data_juicer_says_where_unless_the_configuration_does(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (other := tmp_path / "other").mkdir()
    monkeypatch.setenv(datajuicer.HOME, f"{other}:{models}")
    assert find("en.sp.model") == models / "en.sp.model"
    assert operator_id(PERPLEXITY) == operator_id(PERPLEXITY, str(models))
    assert find("en.sp.model", str(other)) is None
    assert "en.sp.model" in missing(PERPLEXITY, other)
    assert "en.sp.model" not in missing(PERPLEXITY, models)


def test_a_pipeline_of_spacy_may_be_unpacked(models: Path) -> None:
    """Data-Juicer itself wants the archive, and unpacks it beside itself."""
    name = "en_core_web_md-3.7.0"
    action = OperatorSpec("text_action_filter")
    assert name in missing(action, models)
    (models / f"{name}.tar.gz").touch()
    assert find(name, str(models)) == models / f"{name}.tar.gz"
    (models / name).mkdir()
    (models / name / "config.cfg").write_text("[nlp]")
    assert name not in missing(action, models)
    assert find(name, str(models)) == models / name


def test_an_unpacked_pipeline_is_given_to_data_juicer_by_the_name_of_its_archive(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datajuicer.load()
    from data_juicer.utils import model_utils

    monkeypatch.setenv(datajuicer.HOME, "")
    monkeypatch.setattr(model_utils, "DJEMH", None)
    datajuicer.use_models(str(models))
    archive = "en_core_web_md-3.7.0.tar.gz"
    assert not Path(model_utils.check_model(archive)).is_relative_to(models), "there is nothing"
    (models / archive.removesuffix(".tar.gz")).mkdir()
    assert model_utils.check_model(archive) == str(models / archive)
    assert model_utils.check_model("en.sp.model") == str(models / "en.sp.model")


def test_a_tokenizer_that_no_parameter_names_may_lie_in_the_folder(
    models: Path, tokenizer_folder: Path
) -> None:
    assert TOKENIZER in missing(TOKENS, models)
    before = operator_id(TOKENS, str(models))
    shutil.copytree(tokenizer_folder, models / TOKENIZER)
    assert find_hub(TOKENIZER, str(models)) == models / TOKENIZER
    assert missing(TOKENS, models) == ""
    assert operator_id(TOKENS, str(models)) != before


def test_data_of_nltk_is_a_need(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phrases = OperatorSpec("phrase_grounding_recall_filter")
    assert "tokenizers/punkt_tab/english" in missing(phrases, models)
    monkeypatch.setenv("NLTK_DATA", str(models))
    (models / "tokenizers" / "punkt_tab" / "english").mkdir(parents=True)
    found = missing(phrases, models)
    assert "punkt_tab" not in found
    assert "taggers/averaged_perceptron_tagger_eng" in found


def test_the_detector_of_easyocr_is_a_need_and_part_of_the_id(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = OperatorSpec("video_ocr_area_ratio_filter")
    monkeypatch.setenv("EASYOCR_MODULE_PATH", str(models))
    before = operator_id(letters)
    assert "craft_mlt_25k.pth" in missing(letters, models)
    (models / "model").mkdir()
    (models / "model" / "craft_mlt_25k.pth").write_bytes(b"detector")
    assert operator_id(letters) != before
    assert "craft_mlt_25k.pth" in missing(letters, models)  # EasyOCR would download another
    digest = hashlib.md5(b"detector").hexdigest()
    monkeypatch.setattr(model_files, "_DETECTOR_MD5", digest)
    assert "craft_mlt_25k.pth" not in missing(letters, models)


def test_easyocr_downloads_nothing(models: Path) -> None:
    from types import SimpleNamespace

    easyocr = SimpleNamespace(easyocr=SimpleNamespace(download_and_unzip=None))
    datajuicer._keep_easyocr_here(easyocr)
    with pytest.raises(BadInput, match=r"x\.pth is not in models.*nothing is downloaded"):
        easyocr.easyocr.download_and_unzip("address", "x.pth", "models", False)


def test_the_program_that_a_backend_runs_is_a_need(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(models))
    duration = "video_duration_filter"
    assert "ffmpeg" in missing(OperatorSpec(duration, {"video_backend": "ffmpeg"}), models)
    assert "ffmpeg" not in missing(OperatorSpec(duration, {"video_backend": "av"}), models)


def test_the_folder_is_one_of_every_node() -> None:
    assert StatisticsConfig(models="models").models == str(Path("models").resolve())
    with pytest.raises(ValidationError, match="not a URL"):
        StatisticsConfig(models="s3://bucket/models")
    with pytest.raises(ValidationError):
        StatisticsConfig(models="")


def predictor_at(folder: Path, architecture: str = "AestheticsPredictorV2Linear") -> OperatorSpec:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"architectures": [architecture]}))
    return OperatorSpec("image_aesthetics_filter", {"hf_scorer_model": str(folder)})


def test_how_a_predictor_of_aesthetics_is_read_is_part_of_the_id(tmp_path: Path) -> None:
    """Data-Juicer chooses its class, and whether to divide by ten, by words in its path."""
    plain = operator_id(predictor_at(tmp_path / "a" / "v2-linear"))
    assert operator_id(predictor_at(tmp_path / "b" / "v2-linear")) == plain, "wherever it lies"
    other = operator_id(predictor_at(tmp_path / "v2-relu"))
    divided = operator_id(predictor_at(tmp_path / "aesthetics-predictor-v2-linear"))
    first = operator_id(predictor_at(tmp_path / "v1" / "v2-linear"))
    assert len({plain, other, divided, first}) == 4
    content = content_digest(tmp_path / "a" / "v2-linear")
    version = datajuicer.load().version
    params = {"hf_scorer_model": {"content": content}}
    assert plain == content_id("op", "image_aesthetics_filter", params, version), "as it was"


def test_a_predictor_of_aesthetics_whose_path_says_nothing_is_an_unmet_need(
    tmp_path: Path,
) -> None:
    assert "'v2' and 'linear'" in missing(predictor_at(tmp_path / "scorer"), tmp_path)
    url = OperatorSpec("image_aesthetics_filter", {"hf_scorer_model": "memory://models/v1"})
    assert "not one at a URL" in missing(url, tmp_path)
    assert "hf_scorer_model" not in missing(predictor_at(tmp_path / "v1"), tmp_path)

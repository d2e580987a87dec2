"""Importing Data-Juicer must leave the process as it was, and never install or download."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from djsandbox_ray.errors import BadInput, MissingExtra
from djsandbox_ray.stats import datajuicer

ROOT = Path(__file__).resolve().parents[2]

PROBE = """
import logging, os, sys
from loguru import logger
from PIL import ImageFile
handler = logging.StreamHandler()
logging.getLogger().addHandler(handler)
before = (logging.root.level, list(logging.root.handlers), dict(logger._core.handlers),
          list(sys.path), ImageFile.LOAD_TRUNCATED_IMAGES)
from djsandbox_ray.stats.datajuicer import load
assert "data_juicer" not in sys.modules
load()
assert "data_juicer.ops" in sys.modules
after = (logging.root.level, list(logging.root.handlers), dict(logger._core.handlers),
         list(sys.path), ImageFile.LOAD_TRUNCATED_IMAGES)
assert before == after, (before, after)
assert before[4] is False
assert os.environ["HF_HUB_OFFLINE"] == "1"
logger.remove()
logger.add(lambda message: None)
"""


def test_importing_has_no_side_effects_on_logging_paths_or_pillow() -> None:
    done = subprocess.run([sys.executable, "-c", PROBE], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Importing operator modules" not in done.stderr  # its own log lines


@pytest.mark.parametrize(
    ("package", "extra"),
    [
        ("kenlm", "language"),
        ("fasttext-predict", "language"),
        ("spacy", "spacy"),
        ("opencv-contrib-python", "video"),
    ],
)
def test_a_missing_package_names_the_extra(package: str, extra: str) -> None:
    lazy = datajuicer.load().lazy_loader
    with pytest.raises(MissingExtra, match=rf"djsandbox-ray\[{extra}\]"):
        lazy._install_package(package)  # type: ignore[attr-defined]


def test_a_missing_package_without_an_extra_is_an_import_error() -> None:
    lazy = datajuicer.load().lazy_loader
    loader = lazy("no_such_package_anywhere")
    with pytest.raises(ImportError, match="no_such_package_anywhere"):
        _ = loader.attribute


def test_no_check_installs_packages() -> None:
    lazy = datajuicer.load().lazy_loader
    lazy.check_packages(["no-such-package-anywhere"])  # type: ignore[attr-defined]


def test_model_files_are_neither_deleted_nor_downloaded(tmp_path: Path) -> None:
    datajuicer.load()
    from data_juicer.utils import asset_utils, model_utils

    with pytest.raises(BadInput, match="nothing is downloaded"):
        model_utils.check_model("en.sp.model", force=True)
    present = tmp_path / "mine.bin"
    present.write_bytes(b"x")
    assert model_utils.check_model(str(present)) == str(present)
    with pytest.raises(ValueError, match="not in remote server"):
        asset_utils.load_words_asset(str(tmp_path), "stopwords")


def test_the_name_of_a_statistic_is_looked_up_without_a_log_of_who_asked() -> None:
    datajuicer.load()
    from data_juicer.utils.constant import StatsKeys, StatsKeysConstant

    names = [name for name in vars(StatsKeysConstant) if not name.startswith("_")]
    assert "text_len" in names
    for name in names:
        assert vars(StatsKeys)[name] == getattr(StatsKeysConstant, name)
    with pytest.raises(AttributeError):
        _ = StatsKeys.no_such_statistic


def test_every_extra_is_declared_in_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(datajuicer.EXTRAS.values()) <= set(project["optional-dependencies"])

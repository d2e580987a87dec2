"""Importing Data-Juicer must leave the process as it was, and never install or download."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import table4_models
from conftest_stats import captions

from djsandbox_ray.errors import BadInput, MissingExtra
from djsandbox_ray.stats import datajuicer
from djsandbox_ray.stats.fused import FusedOperators
from djsandbox_ray.stats.operators import OperatorSpec

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


# Texts that several operators parse


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small pipeline of spaCy, where Data-Juicer looks for it."""
    if not find_spec("spacy"):
        pytest.skip("needs spacy")
    datajuicer.load()
    from data_juicer.utils import model_utils

    monkeypatch.setenv(datajuicer.HOME, "")
    monkeypatch.setattr(model_utils, "DJEMH", None)
    datajuicer.use_models(str(tmp_path))
    name, verbs = "en_core_web_md-3.7.0", ["photo", "red", "small"]
    return table4_models.spacy_pipeline(tmp_path / name, verbs, ["dog", "cat", "tree", "house"])


def test_operators_share_the_parse_of_a_text_and_its_values_are_those_of_data_juicer(
    pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import spacy

    calls: Counter[str] = Counter()
    parse = spacy.language.Language.__call__

    def counted(self: Any, text: str, **options: Any) -> Any:
        calls[text] += 1
        return parse(self, text, **options)

    texts = [text for text in captions(60, seed=1) if text.strip()]
    texts.append(texts[0])
    fused = FusedOperators(
        [OperatorSpec("text_action_filter"), OperatorSpec("text_entity_dependency_filter")]
    )
    with monkeypatch.context() as patch:
        patch.setattr(spacy.language.Language, "__call__", counted)
        computed = fused(texts, None, [0, 1])
    assert set(calls) == set(texts)
    assert set(calls.values()) == {1}

    from data_juicer.ops import load_ops
    from data_juicer.utils import model_utils

    alone = load_ops([{"text_action_filter": {}}, {"text_entity_dependency_filter": {}}])
    for operator, ours in zip(alone, computed, strict=True):
        # Their pipeline, as it is loaded without us.
        monkeypatch.setitem(model_utils.MODEL_ZOO, operator.model_key, spacy.load(pipeline))
        batch: dict[str, list[Any]] = {"text": texts, "__dj__stats__": [{} for _ in texts]}
        operator.compute_stats_batched(batch)
        (key,) = ours.columns
        rows = [stats[key] for stats in batch["__dj__stats__"]]
        theirs = [np.mean(row) if np.size(row) else np.nan for row in rows]
        np.testing.assert_array_equal(ours.columns[key], theirs)
        assert len({value for value in theirs if np.isfinite(value)}) > 1


def test_what_stays_parsed_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datajuicer, "PARSED_TOKENS", 6)
    calls: list[str] = []

    def parse(text: str) -> list[str]:
        calls.append(text)
        return text.split()

    parser = datajuicer._Parser(parse)
    for text in ("a b c", "d e f", "a b c", "g", "a b c", "d e f", "1 2 3 4 5 6 7", "", "", "g"):
        assert parser(text) == text.split()
    assert calls == ["a b c", "d e f", "g", "d e f", "1 2 3 4 5 6 7", "", "g"]

"""What an operator needs beside its parameters, and what of it is not there.

Nothing is loaded and nothing is downloaded: packages are looked up, not imported; model files and
folders are looked for where Data-Juicer looks for them.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from djsandbox_ray.errors import BadInput
from djsandbox_ray.stats import inspection, model_files
from djsandbox_ray.stats.datajuicer import EXTRAS, HOME, load
from djsandbox_ray.stats.models import is_there, is_url, names_at
from djsandbox_ray.stats.operators import OperatorSpec

# Packages behind Data-Juicer's kinds of model (its model_utils.py).
_PACKAGES = {
    "api": ("openai",),
    "fasttext": ("fasttext",),
    "huggingface": ("torch", "transformers"),
    "kenlm": ("kenlm",),
    "nltk_pos_tagger": ("nltk",),
    "opencv_classifier": ("cv2",),
    "sentencepiece": ("sentencepiece",),
    "simple_aesthetics": ("torch", "transformers", "aesthetics_predictor"),
    "spacy": ("spacy",),
}
_WORD_LISTS = {"flagged_words_dir": "flagged_words", "stopwords_dir": "stopwords"}
# Used only when the operator is asked to.
_OPTIONAL = frozenset({"vllm"})
_ENDPOINT = ("OPENAI_API_KEY", "OPENAI_BASE_URL")


@dataclass(frozen=True)
class Need:
    """One thing that an operator needs."""

    what: str
    there: bool


def check_needs(
    specs: Sequence[OperatorSpec], *, models: str | None = None, where: str = "operators"
) -> None:
    """Check that everything the operators need is there.

    Args:
        specs: the operators.
        models: the folder of model files, ``statistics.models``.
        where: position of the list in the configuration, for messages.

    Raises:
        BadInput: names all that is missing, each with its position in the configuration.
    """
    lines = [
        f"{where}[{index}].{spec.name}: needs {need.what}"
        for index, spec in enumerate(specs)
        for need in needs(spec, models)
        if not need.there
    ]
    if lines:
        raise BadInput("\n".join(lines))


def needs(spec: OperatorSpec, models: str | None = None) -> tuple[Need, ...]:
    """Return what an operator with these parameters needs, and whether it is there.

    Args:
        spec: the operator.
        models: the folder of model files, ``statistics.models``.
    """
    values, kinds = spec.values, spec.model_kinds
    found = _packages(spec.filter_class, kinds)
    found += [_file(name, models) for name in model_files.names(kinds, values)]
    found += [_nltk(name) for name in model_files.nltk_names(kinds)]
    if "easyocr" in kinds:
        where = "'model' in the folder of EASYOCR_MODULE_PATH, or in ~/.EasyOCR"
        there = model_files.find_easyocr() is not None
        found.append(Need(f"{model_files.EASYOCR} in {where}, on every node", there))
    if values.get("video_backend") == "ffmpeg":
        found.append(Need("the program 'ffmpeg'", shutil.which("ffmpeg") is not None))
    found += [
        _model(name, values[name], models) for name in model_files.HUB_PARAMETERS if name in values
    ]
    found += [
        _word_list(name, values[name], words)
        for name, words in _WORD_LISTS.items()
        if name in values
    ]
    if "api" in kinds:
        set_here = all(os.environ.get(name) for name in _ENDPOINT)
        found.append(Need(f"an API: the environment variables {' and '.join(_ENDPOINT)}", set_here))
    if spec.name == "alphanumeric_filter" and values.get("tokenization"):
        found.append(_model("tokenizer", model_files.TOKENIZER, models))
    return tuple(found)


def _packages(cls: type, kinds: Iterable[str]) -> list[Need]:
    lazy = load().lazy_loader
    wanted = {package for kind in kinds for package in _PACKAGES.get(kind, ())}
    if "video" in inspection.reads(cls):
        wanted.add("av")
    for module in inspection.modules(cls):
        for value in vars(module).values():
            if type(value) is lazy:  # its own __getattr__ would import the module
                wanted.add(str(object.__getattribute__(value, "_module_name")).split(".")[0])
    return [_package(name) for name in sorted(wanted - _OPTIONAL)]


def _package(name: str) -> Need:
    extra = f" (extra {EXTRAS[name]!r})" if name in EXTRAS else ""
    return Need(f"the package {name!r}{extra}", find_spec(name) is not None)


def _file(name: str, models: str | None) -> Need:
    there = model_files.find(name, models) is not None
    return Need(f"{name} in the folder of statistics.models, or of {HOME}", there)


def _nltk(name: str) -> Need:
    there = model_files.find_nltk(name) is not None
    return Need(f"NLTK's data {name} in ~/nltk_data, or a folder of NLTK_DATA", there)


def _model(parameter: str, value: Any, models: str | None) -> Need:
    what = f"{parameter}: a local model folder"
    if not value:
        return Need(what, False)
    if is_url(parameter, value):
        return Need(f"{what}, or one at a URL ({value!r} is not there)", bool(names_at(value)))
    if model_files.find_hub(value, models):
        return Need(what, True)
    here = is_there(value) and Path(value).is_dir()
    if here or os.environ.get("HF_HUB_OFFLINE", "1") in ("0", "false", "False"):
        return Need(what, True)
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        return Need(what, False)
    try:
        cached = isinstance(try_to_load_from_cache(value, "config.json"), str)
        cached = cached or isinstance(try_to_load_from_cache(value, "tokenizer_config.json"), str)
    except HFValidationError:  # a path, and there is no such folder
        cached = False
    why = f"{value!r} is not one, nor below the folder of models, nor in the Hugging Face cache"
    return Need(f"{what} ({why})", cached)


def _word_list(parameter: str, folder: str, words: str) -> Need:
    remote = is_url(parameter, folder)
    names = names_at(folder) if remote else [path.name for path in Path(folder).glob("*.json")]
    there = any(words in name and name.endswith(".json") for name in names)
    return Need(f"{parameter}: a folder with {words}.json, {{'en': [...]}}", there)

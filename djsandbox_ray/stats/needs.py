"""What an operator needs beside its parameters, what of it is not there, and how to get it.

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
from djsandbox_ray.nodes.connection import is_online
from djsandbox_ray.stats import inspection, model_files, remedies
from djsandbox_ray.stats.datajuicer import EXTRAS, HOME, load
from djsandbox_ray.stats.endpoint import EndpointConfig
from djsandbox_ray.stats.models import is_there, is_url, names_at
from djsandbox_ray.stats.operators import SECOND, OperatorSpec

# Packages behind Data-Juicer's kinds of model (its model_utils.py).
_PACKAGES = {
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


@dataclass(frozen=True)
class Need:
    """One thing that an operator needs."""

    what: str
    there: bool
    where: str
    """Where it was found, or the places where it was looked for."""
    remedy: str
    """How to get it."""


def check_needs(
    specs: Sequence[OperatorSpec],
    *,
    models: str | None = None,
    endpoint: EndpointConfig | None = None,
    places: Sequence[int] | None = None,
) -> None:
    """Check that everything the operators need is there.

    Args:
        specs: the operators.
        models: the folder of model files, ``statistics.models``.
        endpoint: where a language model is, ``statistics.endpoint``.
        places: of the operators in that list, if they are not all of it.

    Raises:
        BadInput: names all that is missing, each with its position in the configuration.
    """
    lines = [
        f"operators[{index}].{spec.name}: needs {need.what}"
        for index, spec in zip(places or range(len(specs)), specs, strict=True)
        for need in needs(spec, models, endpoint)
        if not need.there
    ]
    if lines:
        raise BadInput("\n".join(lines))


def needs(
    spec: OperatorSpec, models: str | None = None, endpoint: EndpointConfig | None = None
) -> tuple[Need, ...]:
    """Return what an operator with these parameters needs, and whether it is there.

    Args:
        spec: the operator.
        models: the folder of model files, ``statistics.models``.
        endpoint: where a language model is, ``statistics.endpoint``.
    """
    values, kinds = spec.values, spec.model_kinds
    found = _packages(spec.filter_class, kinds)
    found += [_file(name, models) for name in model_files.names(kinds, values)]
    found += [_nltk(name) for name in model_files.nltk_names(kinds)]
    if "easyocr" in kinds:
        found.append(_detector())
    if values.get("video_backend") == "ffmpeg":
        found += [_program(name) for name in ("ffmpeg", "ffprobe")]
    found += [
        _model(name, values[name], models)
        for name in model_files.HUB_PARAMETERS
        if isinstance(values.get(name), str)
    ]
    found += [
        _word_list(name, values[name], words)
        for name, words in _WORD_LISTS.items()
        if name in values
    ]
    if "cv_classifier" in values:
        found.append(_faces(values["cv_classifier"]))
    if SECOND in values:
        what = f"{SECOND}: a text among the samples' meta data, such as meta.title"
        there, remedy = spec.second is not None, f"{spec.name}: {{{SECOND}: meta.FIELD}}"
        found.append(Need(what, there, spec.second or "the configuration", remedy))
    if spec.images is not None:
        what = f"{spec.images} images in a sample, no more and no fewer: others get no value"
        found.append(Need(what, True, "the samples", ""))
    if spec.asks:
        found += _endpoint(endpoint)
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
    if "api" in kinds:
        wanted.discard("torch")  # of the other way to use such an operator, a model of its own
    return [_package(name) for name in sorted(wanted - _OPTIONAL)]


def _endpoint(endpoint: EndpointConfig | None) -> list[Need]:
    what = "statistics.endpoint: the address of a language model, OpenAI-compatible"
    if endpoint is None:
        remedy = "statistics: {endpoint: {url: 'http://127.0.0.1:8000/v1'}}"
        return [Need(what, False, "the configuration", remedy)]
    found = [Need(what, True, endpoint.url, "")]
    if (variable := endpoint.key_variable) is not None:
        key = f"the key of {endpoint.url} in the environment variable {variable}"
        remedy = f"set {variable} on every node, or key_variable: null for a server without keys"
        found.append(Need(key, bool(os.environ.get(variable)), "the environment", remedy))
    return found


def _package(name: str) -> Need:
    extra = f" (extra {EXTRAS[name]!r})" if name in EXTRAS else ""
    found = find_spec(name)
    where = str(Path(found.origin).parent) if found and found.origin else "the Python environment"
    return Need(f"the package {name!r}{extra}", found is not None, where, remedies.package(name))


def _file(name: str, models: str | None) -> Need:
    what = f"{name} in the folder of statistics.models, or of {HOME}"
    places = model_files.folders(models)
    remedy = remedies.file(name, places[0])
    found = model_files.find(name, models)
    if found is None:
        return Need(what, False, ", ".join(map(str, places)), remedy)
    if wrong := model_files.defect(found):
        return Need(f"{what} ({wrong})", False, str(found), remedy)
    return Need(what, True, str(found), remedy)


def _nltk(name: str) -> Need:
    what = f"NLTK's data {name} in ~/nltk_data, or a folder of NLTK_DATA"
    found, places = model_files.find_nltk(name), model_files.nltk_folders()
    where = str(found) if found else ", ".join(map(str, places))
    return Need(what, found is not None, where, remedies.nltk(name, places[0]))


def _detector() -> Need:
    path = model_files.easyocr_place()
    what = f"EasyOCR's detector, {model_files.EASYOCR}, in EASYOCR_MODULE_PATH or ~/.EasyOCR"
    return Need(what, model_files.is_detector(path), str(path), remedies.detector(path))


def _faces(classifier: str) -> Need:
    path = model_files.faces(classifier)
    what = "cv_classifier: a file of OpenCV's that finds faces"
    there = path is not None and is_there(path)
    return Need(what, there, str(path or "the package 'cv2'"), remedies.FACES)


def _program(name: str) -> Need:
    found = shutil.which(name)
    return Need(f"the program {name!r}", found is not None, found or "PATH", remedies.PROGRAM)


def _model(parameter: str, value: Any, models: str | None) -> Need:
    what = f"{parameter}: a local model folder"
    remedy = remedies.model(parameter, value, models)
    if not value:
        return Need(what, False, "the parameter, which is empty", remedy)
    if is_url(parameter, value):
        if parameter == model_files.BY_PATH:
            why = " (not one at a URL: Data-Juicer reads off the path of what class it is)"
            return Need(what + why, False, value, remedy)
        there = bool(names_at(value))
        why = "" if there else f", or one at a URL ({value!r} is not there)"
        return Need(what + why, there, value, remedy)
    below = model_files.find_hub(value, models)
    if below or (is_there(value) and Path(value).is_dir()):
        folder = str(below or Path(value).resolve())
        if parameter == model_files.BY_PATH and model_files.predictor(folder) is None:
            why = (
                "by 'v1', 'v2' and 'linear', or 'v2' and 'relu' in its path it is known how to read"
            )
            return Need(f"{what} ({why})", False, folder, "rename the folder so")
        return Need(what, True, folder, remedy)
    if is_online():
        return Need(what, True, "the Hugging Face hub: HF_HUB_OFFLINE allows it", remedy)
    if cached := _cached(value):
        return Need(what, True, cached, remedy)
    why = f"{value!r} is not one, nor below the folder of models, nor in the Hugging Face cache"
    places = [value, *(str(Path(home, value)) for home in (models, os.environ.get(HOME)) if home)]
    return Need(f"{what} ({why})", False, ", ".join(places), remedy)


def _cached(name: str) -> str | None:
    """Return where the cache of Hugging Face holds a model of the hub; None if it does not."""
    try:
        from huggingface_hub import try_to_load_from_cache
        from huggingface_hub.errors import HFValidationError
    except ImportError:
        return None
    try:
        found = [
            try_to_load_from_cache(name, file) for file in ("config.json", "tokenizer_config.json")
        ]
    except HFValidationError:  # a path, and there is no such folder
        return None
    return next((str(Path(path).parent) for path in found if isinstance(path, str)), None)


def _word_list(parameter: str, folder: str, words: str) -> Need:
    remote = is_url(parameter, folder)
    names = names_at(folder) if remote else [path.name for path in Path(folder).glob("*.json")]
    there = any(words in name and name.endswith(".json") for name in names)
    what = f"{parameter}: a folder with {words}.json, {{'en': [...]}}"
    where = folder if remote else str(Path(folder).resolve())
    return Need(what, there, where, remedies.WORD_LIST)

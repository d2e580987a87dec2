"""What an operator needs beside its parameters, and what of it is not there.

Nothing is loaded and nothing is downloaded: packages are looked up, not imported; model files and
folders are looked for where Data-Juicer looks for them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from djsandbox_ray.errors import BadInput
from djsandbox_ray.stats import inspection
from djsandbox_ray.stats.datajuicer import EXTRAS, load
from djsandbox_ray.stats.models import is_url, names_at
from djsandbox_ray.stats.operators import OperatorSpec

# Packages and files behind Data-Juicer's kinds of model (its model_utils.py).
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
_FILES = {
    "fasttext": "lid.176.bin",
    "kenlm": "{lang}.arpa.bin",
    "sentencepiece": "{lang}.sp.model",
    "spacy": "{lang}_core_web_md-3.7.0",
}
# Parameters that name a model of the Hugging Face hub or a local folder in its format.
_MODEL_PARAMETERS = (
    "hf_blip",
    "hf_clip",
    "hf_model",
    "hf_nsfw_model",
    "hf_owlvit",
    "hf_scorer_model",
    "hf_tokenizer",
    "hf_watermark_model",
)
_WORD_LISTS = {"flagged_words_dir": "flagged_words", "stopwords_dir": "stopwords"}
# Used only when the operator is asked to.
_OPTIONAL = frozenset({"vllm"})
_ENDPOINT = ("OPENAI_API_KEY", "OPENAI_BASE_URL")


@dataclass(frozen=True)
class Need:
    """One thing that an operator needs."""

    what: str
    there: bool


def check_needs(specs: Sequence[OperatorSpec], *, where: str = "operators") -> None:
    """Check that everything the operators need is there.

    Raises:
        BadInput: names all that is missing, each with its position in the configuration.
    """
    lines = [
        f"{where}[{index}].{spec.name}: needs {need.what}"
        for index, spec in enumerate(specs)
        for need in needs(spec)
        if not need.there
    ]
    if lines:
        raise BadInput("\n".join(lines))


def needs(spec: OperatorSpec) -> tuple[Need, ...]:
    """Return what an operator with these parameters needs, and whether it is there."""
    values = _values(spec)
    kinds = list(inspection.prepared_models(spec.filter_class))
    if values.get("tokenization") and "lang" in values:
        kinds.append("sentencepiece")
    if "api_or_hf_model" in values:
        kinds.append("huggingface" if values.get("is_hf_model") else "api")
    found = _packages(spec.filter_class, kinds)
    found += [_file(_FILES[kind].format(**values)) for kind in kinds if kind in _FILES]
    found += [_model(name, values[name]) for name in _MODEL_PARAMETERS if name in values]
    found += [
        _word_list(name, values[name], words)
        for name, words in _WORD_LISTS.items()
        if name in values
    ]
    if "api" in kinds:
        set_here = all(os.environ.get(name) for name in _ENDPOINT)
        found.append(Need(f"an API: the environment variables {' and '.join(_ENDPOINT)}", set_here))
    if spec.name == "alphanumeric_filter" and values.get("tokenization"):
        found.append(_model("tokenizer", "EleutherAI/pythia-6.9b-deduped"))  # hard-wired there
    return tuple(found)


def _values(spec: OperatorSpec) -> dict[str, Any]:
    known = inspection.parameters(spec.filter_class)
    return {name: spec.params.get(name, parameter.default) for name, parameter in known.items()}


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


def _file(name: str) -> Need:
    from data_juicer.utils.cache_utils import DATA_JUICER_EXTERNAL_MODELS_HOME as EXTERNAL
    from data_juicer.utils.cache_utils import DATA_JUICER_MODELS_CACHE as CACHE

    folders = [folder for folder in (EXTERNAL or "").split(os.pathsep) if folder.strip()]
    there = any(Path(f, n).exists() for f in [*folders, CACHE] for n in (name, f"{name}.tar.gz"))
    return Need(f"the file {name} in the folder that DATA_JUICER_EXTERNAL_MODELS_HOME names", there)


def _model(parameter: str, value: Any) -> Need:
    what = f"{parameter}: a local model folder"
    if not value:
        return Need(what, False)
    if is_url(parameter, value):
        return Need(f"{what}, or one at a URL ({value!r} is not there)", bool(names_at(value)))
    if Path(value).is_dir() or os.environ.get("HF_HUB_OFFLINE", "1") in ("0", "false", "False"):
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
    return Need(f"{what} ({value!r} is not one, nor in the Hugging Face cache)", cached)


def _word_list(parameter: str, folder: str, words: str) -> Need:
    remote = is_url(parameter, folder)
    names = names_at(folder) if remote else [path.name for path in Path(folder).glob("*.json")]
    there = any(words in name and name.endswith(".json") for name in names)
    return Need(f"{parameter}: a folder with {words}.json, {{'en': [...]}}", there)

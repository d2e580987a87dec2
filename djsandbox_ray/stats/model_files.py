"""Model files that operators find by name: where Data-Juicer looks for them, and what is there.

A model in the format of Hugging Face is a parameter; others (n-grams, language identification,
spaCy's pipelines, NLTK's data) have names that Data-Juicer knows, in folders that it searches.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from djsandbox_ray.stats.datajuicer import HOME, load
from djsandbox_ray.stats.models import is_there

HUB_PARAMETERS = (
    "hf_blip",
    "hf_clip",
    "hf_model",
    "hf_nsfw_model",
    "hf_owlvit",
    "hf_scorer_model",
    "hf_tokenizer",
    "hf_watermark_model",
)
"""Parameters that name a model of the Hugging Face hub or a local folder in its format."""
TOKENIZER = "EleutherAI/pythia-6.9b-deduped"
"""The tokenizer that Data-Juicer's ``alphanumeric_filter`` counts tokens by, which no parameter
changes; as every name of the hub, it may be a folder below that of the models."""

_FILES = {
    "fasttext": "lid.176.bin",
    "kenlm": "{lang}.arpa.bin",
    "sentencepiece": "{lang}.sp.model",
    "spacy": "{lang}_core_web_md-3.7.0",
}
"""By Data-Juicer's kind of model (its model_utils.py)."""
_NLTK = {
    "nltk_pos_tagger": ("taggers/averaged_perceptron_tagger_eng", "tokenizers/punkt_tab/english")
}
EASYOCR = "craft_mlt_25k.pth"
"""What EasyOCR finds text with."""
_ARCHIVE = ".tar.gz"


def names(kinds: Sequence[str], values: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the files that kinds of models have, given an operator's parameters."""
    return tuple(_FILES[kind].format(**values) for kind in kinds if kind in _FILES)


def nltk_names(kinds: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the data of NLTK that kinds of models read."""
    return tuple(name for kind in kinds for name in _NLTK.get(kind, ()))


def find(name: str, models: str | None = None) -> Path | None:
    """Return where Data-Juicer finds a model file or an unpacked folder; None if it does not.

    Args:
        name: without the ending of an archive, which is taken where it is not unpacked.
        models: ``statistics.models``; without it the variable of Data-Juicer holds.
    """
    for folder in [*_named(models), Path(load().model_cache)]:
        for found in (folder / name, folder / f"{name}{_ARCHIVE}"):
            if is_there(found):
                return found
    return None


def find_hub(name: str, models: str | None = None) -> Path | None:
    """Return the folder that stands for a name of the Hugging Face hub, if there is one."""
    named = [models] if models else [os.environ.get(HOME, "")]  # one folder only, says Data-Juicer
    return next(
        (path for home in named if home and is_there(path := Path(home, name)) and path.is_dir()),
        None,
    )


def find_nltk(name: str) -> Path | None:
    """Return where NLTK finds its data, in the order of its ``nltk.data.path``."""
    system = [Path(root) for root in ("/usr/share", "/usr/local/share", "/usr/lib")]
    prefixes = [Path(sys.prefix, *parts) for parts in ((), ("share",), ("lib",))]
    named = [Path(item) for item in os.environ.get("NLTK_DATA", "").split(os.pathsep) if item]
    folders = [root / "nltk_data" for root in (Path.home(), *prefixes, *system)]
    places = (folder / name for folder in [*named, *folders])
    return next((place for place in places if place.exists()), None)


def find_easyocr() -> Path | None:
    """Return where EasyOCR finds its detector."""
    named = (os.environ.get(name) for name in ("EASYOCR_MODULE_PATH", "MODULE_PATH"))
    home = next(filter(None, named), None) or Path.home() / ".EasyOCR"
    path = Path(home, "model", EASYOCR)
    return path if path.exists() else None


def found_by_name(
    kinds: Sequence[str], values: Mapping[str, Any], models: str | None
) -> dict[str, Path]:
    """Return what an operator reads that no parameter holds, and that is there, by its name."""
    hub = [values[name] for name in HUB_PARAMETERS if isinstance(values.get(name), str)]
    if values.get("tokenization") and "lang" not in values:
        hub.append(TOKENIZER)
    looked_up = {name: find(name, models) for name in names(kinds, values)}
    looked_up |= {name: find_nltk(name) for name in nltk_names(kinds)}
    looked_up |= {name: find_hub(name, models) for name in hub if name and not is_there(name)}
    looked_up |= {EASYOCR: find_easyocr()} if "easyocr" in kinds else {}
    return {name: path for name, path in looked_up.items() if path is not None}


def _named(models: str | None) -> list[Path]:
    listed = [models] if models else os.environ.get(HOME, "").split(os.pathsep)
    return [Path(folder.strip()) for folder in listed if folder.strip()]

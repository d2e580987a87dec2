"""Model files that operators find by name: where Data-Juicer looks for them, and what is there.

A model in the format of Hugging Face is a parameter; others (n-grams, language identification,
spaCy's pipelines, NLTK's data) have names that Data-Juicer knows, in folders that it searches.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tarfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
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
BY_PATH = "hf_scorer_model"
"""The one parameter of which Data-Juicer reads off the path how to read the model."""
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
_DETECTOR_MD5 = "2f8227d2def4037cdb3b34389dcf9ec1"
"""Of EasyOCR 1.7 (its config.py): it downloads a file with another sum again."""
_PREDICTORS = {"linear": "AestheticsPredictorV2Linear", "relu": "AestheticsPredictorV2ReLU"}
_FACES = "haarcascade_frontalface_alt.xml"


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
    for folder in folders(models):
        for found in (folder / name, folder / f"{name}{_ARCHIVE}"):
            if is_there(found):
                return found
    return None


def folders(models: str | None = None) -> list[Path]:
    """Return the folders where Data-Juicer looks for model files, in its order."""
    return [*_named(models), Path(load().model_cache)]


def defect(found: Path) -> str | None:
    """Return why what was found by its name cannot be loaded, where its form tells; else None.

    A pipeline of spaCy is a folder with a ``config.cfg``; of an archive Data-Juicer unpacks what
    lies in ``<name>/<name without version>/<name>``, as in spaCy's own, unless a folder of its name
    is beside it.
    """
    folder = found.with_name(found.name.removesuffix(_ARCHIVE))
    if folder.is_dir():
        lacks = "core_web" in folder.name and not (folder / "config.cfg").is_file()
        return f"{folder} is no pipeline of spaCy: it has no config.cfg" if lacks else None
    if found == folder:
        return None
    inside = f"{folder.name}/{folder.name.rsplit('-', 1)[0]}/{folder.name}/config.cfg"
    try:
        with tarfile.open(found, "r:gz") as archive:
            archive.getmember(inside)
    except KeyError:
        return f"{found} is no archive of a pipeline of spaCy: it has no {inside}"
    except (OSError, EOFError, tarfile.TarError) as error:
        return f"{found} is no archive: {error}"
    return None


def find_hub(name: str, models: str | None = None) -> Path | None:
    """Return the folder that stands for a name of the Hugging Face hub, if there is one."""
    named = [models] if models else [os.environ.get(HOME, "")]  # one folder only, says Data-Juicer
    return next(
        (path for home in named if home and is_there(path := Path(home, name)) and path.is_dir()),
        None,
    )


def predictor(path: str) -> str | None:
    """Return the class by which Data-Juicer loads a predictor of aesthetics: its path decides.

    None where the path names none, which Data-Juicer refuses.
    """
    if "v1" in path:
        return "AestheticsPredictorV1"
    if "v2" in path:
        return next((name for word, name in _PREDICTORS.items() if word in path), None)
    return None


def read_off_path(value: str, models: str | None) -> dict[str, Any]:
    """Return what the path of a predictor of aesthetics decides and what its content does not say.

    Args:
        value: the operator's parameter; for a name of the hub that is nowhere here, the name says
            it all.
        models: ``statistics.models``.

    Returns:
        ``class``, where it is not the one that the model's own configuration names; ``by_ten``,
        where scores are divided by ten for the path of a folder.
    """
    below = find_hub(value, models) if value else None
    folder = below or (Path(value).resolve() if value and is_there(value) else None)
    if folder is None:
        return {}
    try:
        named = json.loads((folder / "config.json").read_bytes())["architectures"][0]
    except (OSError, ValueError, LookupError, TypeError):
        named = None
    chosen = predictor(str(folder))
    read = {} if chosen == named else {"class": chosen}
    by_ten = below is None and "aesthetics-predictor" in str(folder)
    return {**read, "by_ten": True} if by_ten else read


def find_nltk(name: str) -> Path | None:
    """Return where NLTK finds its data."""
    return next((place for folder in nltk_folders() if (place := folder / name).exists()), None)


def nltk_folders() -> list[Path]:
    """Return the folders of NLTK's data, in the order of its ``nltk.data.path``."""
    system = [Path(root) for root in ("/usr/share", "/usr/local/share", "/usr/lib")]
    prefixes = [Path(sys.prefix, *parts) for parts in ((), ("share",), ("lib",))]
    named = [Path(item) for item in os.environ.get("NLTK_DATA", "").split(os.pathsep) if item]
    return [*named, *(root / "nltk_data" for root in (Path.home(), *prefixes, *system))]


def find_easyocr() -> Path | None:
    """Return where EasyOCR finds its detector."""
    path = easyocr_place()
    return path if path.exists() else None


def easyocr_place() -> Path:
    """Return where EasyOCR looks for its detector, whether or not it is there."""
    named = (os.environ.get(name) for name in ("EASYOCR_MODULE_PATH", "MODULE_PATH"))
    home = next(filter(None, named), None) or Path.home() / ".EasyOCR"
    return Path(home, "model", EASYOCR)


def is_detector(path: Path) -> bool:
    """Say whether a file is the one that EasyOCR takes: any other it downloads again."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, hashlib.md5).hexdigest() == _DETECTOR_MD5


def faces(classifier: str) -> Path | None:
    """Return the file of a classifier of faces, or OpenCV's own for none; None without OpenCV."""
    if classifier:
        return Path(classifier)
    package = find_spec("cv2")
    places = (package.submodule_search_locations or []) if package else []
    return Path(places[0], "data", _FACES) if places else None


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

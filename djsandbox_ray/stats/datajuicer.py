"""The only door to Data-Juicer: imports it once, lazily, and without its side effects on us.

As a library Data-Juicer installs missing packages with pip, downloads models and word lists,
removes every loguru sink, configures the root logger, lets PIL accept truncated images and adds a
relative folder to ``sys.path``. All of that is switched off or undone here.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

from djsandbox_ray.errors import BadInput, MissingExtra
from djsandbox_ray.nodes.connection import prepare_environment

HOME = "DATA_JUICER_EXTERNAL_MODELS_HOME"
"""Data-Juicer's variable for the folder of model files; several are separated as in ``PATH``."""
PARSED_TOKENS = 1 << 16
"""Tokens of texts that stay parsed: about 40 MB, or 2,000 captions, more than a batch has."""
# Which of our extras brings a package that a filter may ask for.
EXTRAS = {
    "av": "video",
    "cv2": "video",
    "easyocr": "easyocr",
    "fasttext": "language",
    "kenlm": "language",
    "nltk": "nltk",
    "sentencepiece": "language",
    "spacy": "spacy",
    "torch": "clip",
    "torchvision": "clip",
    "transformers": "clip",
}
_MODULE_OF_PACKAGE = {"fasttext-predict": "fasttext", "opencv-contrib-python": "cv2"}


@dataclass(frozen=True)
class DataJuicer:
    """What the sandbox uses of Data-Juicer.

    Attributes:
        version: its version, part of every operator's identity.
        filters: every registered filter class by its name.
        others: names of the registered operators that are not filters.
        attribution: filters that compare with a validation set, which only Python code can give.
        base: the class ``Filter``, which all filters extend.
        stats_field: key of the list of statistics in a batch.
        context_field: key of the list of shared intermediate values in a batch.
        image_token: stands for an image in a text.
        end_token: ends a chunk of a text.
        lazy_loader: the class that stands for a module until it is used.
        get_model: loads a model, or returns the one that is loaded.
        plain_text: removes the special tokens from a text.
        model_cache: the folder where it looks for model files last.
    """

    version: str
    filters: dict[str, type]
    others: frozenset[str]
    attribution: frozenset[str]
    base: type
    stats_field: str
    context_field: str
    image_token: str
    end_token: str
    lazy_loader: type
    get_model: Callable[..., Any]
    plain_text: Callable[[str], str]
    model_cache: str


def _missing_package(package: str) -> ImportError | MissingExtra:
    """Return the error for a package that is not installed, naming our extra where there is one."""
    module = _MODULE_OF_PACKAGE.get(package, package).split(".")[0]
    if module in EXTRAS:
        return MissingExtra(module, EXTRAS[module])
    return ImportError(
        f"the package {package!r} is not installed, and no extra of djsandbox-ray brings it; "
        f"install it by hand if you want the operator that needs it"
    )


def _refuse_installation(_cls: type, package_spec: str, pip_args: Any = None) -> NoReturn:
    raise _missing_package(package_spec)


def _skip_check(_cls: type, package_specs: Any, pip_args: Any = None) -> None:
    """Let an operator find out by importing: Data-Juicer's check demands names it never imports."""


def _refuse_nltk() -> NoReturn:
    """End an operator's attempt to have NLTK load any pickle, and to download; it goes on."""
    raise BadInput("NLTK downloads nothing here")


def _refuse_easyocr(_url: str, filename: str, folder: str, *_: Any) -> NoReturn:
    raise BadInput(f"{filename} is not in {folder}, or is broken: nothing is downloaded")


def _keep_easyocr_here(module: Any) -> None:
    """Keep EasyOCR from downloading a detector that is not there, or not the one it knows."""
    module.easyocr.download_and_unzip = _refuse_easyocr


def _nltk_tagger(**_options: Any) -> Any:
    """Return NLTK's tagger as Data-Juicer does, which downloads its data again every time."""
    return importlib.import_module("nltk.tag").pos_tag


def _hugging_face(*arguments: Any, **options: Any) -> Any:
    """Load a model as Data-Juicer does.

    It asks a processor of OWL-ViT for boxes, which since transformers 5 its image processor finds.
    """
    from data_juicer.utils.model_utils import prepare_huggingface_model

    loaded = prepare_huggingface_model(*arguments, **options)
    processor = loaded[1] if isinstance(loaded, tuple) else loaded
    boxes = "post_process_object_detection"
    if not hasattr(processor, boxes) and hasattr(getattr(processor, "image_processor", 0), boxes):
        setattr(processor, boxes, getattr(processor.image_processor, boxes))
    return loaded


class _Parser:
    """A pipeline of spaCy that remembers the last texts: several operators ask for the same ones.

    They read what is parsed and do not change it.
    """

    def __init__(self, pipeline: Callable[[str], Any]) -> None:
        self._pipeline = pipeline
        self._parsed: dict[str, Any] = {}  # the least recently asked for comes first
        self._tokens = 0

    def __call__(self, text: str) -> Any:
        parsed = self._parsed.pop(text, None)
        if parsed is None:
            parsed = self._pipeline(text)
            self._tokens += len(parsed)
        self._parsed[text] = parsed
        while self._tokens > PARSED_TOKENS:
            self._tokens -= len(self._parsed.pop(next(iter(self._parsed))))
        return parsed


class _Features:
    """A CLIP whose features are tensors; since transformers 5 they are one of several outputs."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.device = model.device

    def get_text_features(self, **inputs: Any) -> Any:
        """Return the features of texts, shape (texts, dimensions)."""
        return self._model.get_text_features(**inputs).pooler_output

    def get_image_features(self, pixels: Any) -> Any:
        """Return the features of images, shape (images, dimensions)."""
        return self._model.get_image_features(pixels).pooler_output


def _with_features(get_model: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the look-up of a loaded model and its processor."""

    def get(*arguments: Any, **options: Any) -> tuple[_Features, Any]:
        model, processor = get_model(*arguments, **options)
        return _Features(model), processor

    return get


@lru_cache(maxsize=2)
def _parser(_folder: str | None, **options: Any) -> _Parser:
    from data_juicer.utils.model_utils import prepare_spacy_model

    return _Parser(prepare_spacy_model(**options))


def _spacy(**options: Any) -> _Parser:
    """Load a pipeline as Data-Juicer does, once for all operators."""
    from data_juicer.utils import model_utils

    return _parser(model_utils.DJEMH, **options)


def _never_download(check_model: Callable[..., str]) -> Callable[..., str]:
    """Wrap Data-Juicer's look-up of model files, which deletes and downloads what fails to load."""

    def check(model_name: str, force: bool = False) -> str:
        if force:
            raise BadInput(
                f"the model file {model_name!r} cannot be loaded (absent or broken); put it into "
                f"the folder of statistics.models, or of {HOME}: nothing is downloaded"
            )
        found = check_model(model_name)
        unpacked = model_name.removesuffix(".tar.gz")
        if unpacked != model_name and not Path(found).exists():
            # Of an unpacked folder Data-Juicer wants the archive's name, not the archive.
            folder = check_model(unpacked)
            return f"{folder}.tar.gz" if Path(folder).is_dir() else found
        return found

    return check


@contextmanager
def _import_guard() -> Iterator[None]:
    """Undo what importing Data-Juicer does to this process."""
    import loguru
    from PIL import ImageFile

    root, path = logging.getLogger(), list(sys.path)
    level, handlers, truncated = root.level, list(root.handlers), ImageFile.LOAD_TRUNCATED_IMAGES
    sinks = type(loguru.logger)
    remove, add = sinks.remove, sinks.add
    # Sinks cannot be put back through loguru's API, so they must not go in the first place.
    sinks.remove = lambda *_args, **_kwargs: None  # type: ignore[method-assign]
    sinks.add = lambda *_args, **_kwargs: 0  # type: ignore[method-assign]
    try:
        yield
    finally:
        sinks.remove, sinks.add = remove, add  # type: ignore[method-assign]
        root.setLevel(level)
        root.handlers[:] = handlers
        sys.path[:] = path
        ImageFile.LOAD_TRUNCATED_IMAGES = truncated


@lru_cache(maxsize=1)
def load() -> DataJuicer:
    """Import Data-Juicer (about 2.5 CPU-seconds the first time) and return what we use of it."""
    prepare_environment()
    lazy = _guarded_import()
    from data_juicer import __version__
    from data_juicer.ops import ATTRIBUTION_FILTERS, OPERATORS, Filter
    from data_juicer.utils.cache_utils import DATA_JUICER_MODELS_CACHE
    from data_juicer.utils.constant import Fields
    from data_juicer.utils.mm_utils import SpecialTokens, remove_special_tokens
    from data_juicer.utils.model_utils import get_model

    filters = {name: cls for name, cls in OPERATORS.modules.items() if issubclass(cls, Filter)}
    filters = {name: cls for name, cls in filters.items() if "deduplicator" not in name}
    return DataJuicer(
        version=__version__,
        filters=filters,
        others=frozenset(set(OPERATORS.modules) - set(filters)),
        attribution=frozenset(ATTRIBUTION_FILTERS.modules),
        base=Filter,
        stats_field=Fields.stats,
        context_field=Fields.context,
        image_token=SpecialTokens.image,
        end_token=SpecialTokens.eoc,
        lazy_loader=lazy,
        get_model=get_model,
        plain_text=remove_special_tokens,
        model_cache=DATA_JUICER_MODELS_CACHE,
    )


def use_models(folder: str | None) -> None:
    """Have this process look for model files in a folder; None for what the variable says."""
    if folder is None:
        return
    load()
    from data_juicer.utils import model_utils

    os.environ[HOME] = model_utils.DJEMH = folder


def _guarded_import() -> type:
    """Import the operators with installation and downloads switched off first."""
    import loguru

    # What matters reaches us as exceptions; its log lines would drown the progress of a run.
    loguru.logger.disable("data_juicer")
    with _import_guard():
        lazy: type = importlib.import_module("data_juicer.utils.lazy_loader").LazyLoader
        lazy._install_package = classmethod(_refuse_installation)  # type: ignore[attr-defined]
        lazy.check_packages = classmethod(_skip_check)  # type: ignore[attr-defined]
        importlib.import_module("data_juicer.ops")
        from data_juicer.ops.filter import image_pair_similarity_filter as of_images
        from data_juicer.ops.filter import text_pair_similarity_filter as of_texts
        from data_juicer.ops.filter import video_ocr_area_ratio_filter as with_easyocr
        from data_juicer.utils import asset_utils, model_utils, nltk_utils

    _name_statistics_directly()
    model_utils.MODEL_FUNCTION_MAPPING["huggingface"] = _hugging_face
    model_utils.MODEL_FUNCTION_MAPPING["nltk_pos_tagger"] = _nltk_tagger
    model_utils.MODEL_FUNCTION_MAPPING["spacy"] = _spacy
    nltk_utils.patch_nltk_pickle_security = _refuse_nltk
    model_utils.check_model = _never_download(model_utils.check_model)
    asset_utils.ASSET_LINKS.clear()
    with_easyocr.easyocr.post_import = _keep_easyocr_here
    for module in (of_images, of_texts):
        module.get_model = _with_features(module.get_model)
    return lazy


def _name_statistics_directly() -> None:
    """Make every statistic's name a plain attribute of ``StatsKeys``.

    Its own look-up inspects the caller's frame to keep a log of who asked, several times per row:
    a tenth of what text operators take. Nobody here reads that log.
    """
    from data_juicer.utils.constant import StatsKeys, StatsKeysConstant

    for name, key in vars(StatsKeysConstant).items():
        if not name.startswith("_"):
            setattr(StatsKeys, name, key)

